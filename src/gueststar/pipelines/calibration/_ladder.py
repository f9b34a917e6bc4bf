"""A ladder: flats of one filter and one lamp at many exposure times."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.detrend.calibrate import subtract_in_place
from gueststar.algorithms.detrend.overscan import OverscanConfig
from gueststar.algorithms.response.even_light import even_blocks, spread_blocks
from gueststar.core.bits import MaskPlane
from gueststar.core.errors import DataError, MissingInput
from gueststar.model.calibration import Calibrations
from gueststar.model.camera import Amplifier, Detector, parse_section
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import Float32Image
from gueststar.pipelines.assembly import assemble
from gueststar.pipelines.calibration._frames import RawSource
from gueststar.pipelines.calibration._prepare import check_belongs
from gueststar.pipelines.electronics import Electronics

BLOCK = 32
"""Pixels of the blocks in which light is called even."""


class LadderFrame(NamedTuple):
    """One flat, read and freed of zero level, bias and dark."""

    info: ExposureInfo
    image: Float32Image
    """ADU above zero; NaN where saturated or not read."""
    noise_adu: dict[str, float]
    """Read noise by amplifier, ADU: the overscan's, else the camera's."""
    saturation: dict[str, float]
    """Counts above zero at which amplifiers saturate, ADU."""


def choose_ladder(infos: Sequence[ExposureInfo], *, min_levels: int, min_span: float) -> list[int]:
    """Return which frames make the ladder: of the filter with the most exposure times, middling times first.

    Raises MissingInput where no filter has flats of enough exposure times, far enough apart.
    """
    by_filter: dict[str | None, list[int]] = defaultdict(list)
    for number, info in enumerate(infos):
        if info.exposure_s > 0:
            by_filter[info.physical_filter].append(number)
    times = {glass: sorted({infos[i].exposure_s for i in members}) for glass, members in by_filter.items()}
    enough = {g: t for g, t in times.items() if len(t) >= min_levels and t[-1] >= min_span * t[0]}
    if not enough:
        counts = ", ".join(f"{len(t)} in {glass}" for glass, t in sorted(times.items(), key=str)) or "no flats"
        raise MissingInput(
            f"no ladder of flats: {min_levels} exposure times that span a factor of {min_span:g} are needed, "
            f"there are {counts}"
        )
    chosen = max(enough, key=lambda glass: (len(enough[glass]), len(by_filter[glass]), str(glass)))
    middle = float(np.median(np.log(enough[chosen])))
    return sorted(by_filter[chosen], key=lambda i: (abs(math.log(infos[i].exposure_s) - middle), infos[i].mjd_start))


def read_ladder_frame(
    source: RawSource, detector: Detector, known: Calibrations, *, overscan: OverscanConfig, electronics: Electronics
) -> LadderFrame:
    """Read a flat and take off zero level, bias and dark current; all stays in ADU."""
    raw = source() if callable(source) else source
    if raw.info.observation_type != "flat" or raw.detector.id != detector.id:
        raise DataError(
            f"frame is a {raw.info.observation_type} of detector {raw.detector.id}, not a flat of {detector.id}"
        )
    assembled = assemble(
        raw, overscan=overscan, unit="adu", keep_pedestal=known.bias is not None, electronics=electronics
    )
    image = assembled.image
    for amplifier in detector.amplifiers:
        target = parse_section(amplifier.detector_section)
        if known.bias is not None:
            check_belongs(known.bias, detector)
            subtract_in_place(image[target], known.bias.pixels.image[target], factor=1.0)
        if known.dark is not None:
            check_belongs(known.dark, detector)
            factor = raw.info.exposure_s / amplifier.gain
            subtract_in_place(image[target], known.dark.pixels.image[target], factor=factor)
    image[(assembled.mask & int(MaskPlane.SATURATED | MaskPlane.NO_DATA)) != 0] = np.nan
    noise, saturation = {}, {}
    for amplifier in detector.amplifiers:
        level = assembled.overscans.get(amplifier.name)
        measured = level.read_noise if level is not None else math.nan
        noise[amplifier.name] = measured if math.isfinite(measured) else amplifier.read_noise / amplifier.gain
        saturation[amplifier.name] = amplifier.saturation - (
            level.level if level is not None else _zero_of(amplifier, known)
        )
    return LadderFrame(raw.info, image, noise, saturation)


def part_of(image: NDArray[Any], amplifier: Amplifier) -> NDArray[Any]:
    """Return an amplifier's part of an assembled image."""
    return image[parse_section(amplifier.detector_section)]


def uneven_pixels(frame: LadderFrame, amplifier: Amplifier) -> NDArray[np.bool_]:
    """Return the pixels of an amplifier that got unlike light: another level would be mixed into the amplifier's."""
    part = part_of(frame.image, amplifier)
    return ~spread_blocks(even_blocks(part, block=BLOCK), part.shape, block=BLOCK)


def _zero_of(amplifier: Amplifier, known: Calibrations) -> float:
    """Return about where the zero of an amplifier without overscan lies in raw counts, ADU."""
    if known.bias is not None:
        return float(np.median(part_of(known.bias.pixels.image, amplifier)))
    return amplifier.bias_level


def ladder_facts(infos: Sequence[ExposureInfo], rejected: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what went into a product that was made from a ladder, and what did not."""
    times = [info.mjd_tai for info in infos]
    return {
        "inputs": [info.exposure_id for info in infos],
        "exposure_s": [info.exposure_s for info in infos],
        "physical_filter": infos[0].physical_filter,
        "rejected": list(rejected),
        "mjd_first": min(times),
        "mjd_last": max(times),
    }
