"""The amplifiers of a raw detector put together, their zero level removed."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.detrend.assemble import place_amplifier_in_place
from gueststar.algorithms.detrend.overscan import OverscanConfig, OverscanLevel, OverscanStrip, measure_overscan
from gueststar.core.bits import MaskPlane
from gueststar.model.camera import Amplifier, parse_section
from gueststar.model.image import Float32Image, MaskImage
from gueststar.model.raw import AmplifierPixels, RawDetector
from gueststar.pipelines.electronics import NO_ELECTRONICS, Electronics, Signal, correct_counts, ill_corrected


class Assembled(NamedTuple):
    """A detector image with its zero level removed."""

    image: Float32Image
    """ADU or electrons, as asked."""
    mask: MaskImage
    """SATURATED, SUSPECT (not known to be linear, or crosstalk of saturated pixels) and NO_DATA."""
    overscans: dict[str, OverscanLevel]
    """By amplifier name; those without overscan are absent."""


class ZeroLevel(NamedTuple):
    """What is to be subtracted from an amplifier's rows."""

    rows: NDArray[np.float32]
    """ADU."""
    measured: OverscanLevel | None
    """None: without overscan."""


def assemble(
    raw: RawDetector,
    *,
    overscan: OverscanConfig,
    unit: Literal["adu", "electron"],
    keep_pedestal: bool,
    electronics: Electronics = NO_ELECTRONICS,
) -> Assembled:
    """Subtract the overscan of each amplifier and place the pixels in the detector image.

    An amplifier without overscan keeps its pedestal with ``keep_pedestal`` (a bias master will take it away,
    or is being made), else its camera's ``bias_level`` is subtracted. ``electronics`` tells what is done to the
    counts on the way: crosstalk, then linearity.
    """
    image = np.empty(raw.detector.shape, np.float32)
    mask = np.empty(raw.detector.shape, np.int32)
    levels = {p.amplifier.name: measure_zero(p, overscan=overscan, keep_pedestal=keep_pedestal) for p in raw.amplifiers}
    counts = _counts_above_zero(raw, levels, overscan, electronics)
    for part in raw.amplifiers:
        amplifier = part.amplifier
        corrected = None
        if electronics.corrects(amplifier.name):
            corrected = correct_counts(raw.detector.id, part, counts, electronics)
            corrected += np.float32(_kept_pedestal(amplifier, keep_pedestal, electronics))
        place_amplifier_in_place(
            image, mask, data=part.data, row_level=levels[amplifier.name].rows,
            target=parse_section(amplifier.detector_section),
            flip_x=amplifier.flip_x, flip_y=amplifier.flip_y, gain=amplifier.gain if unit == "electron" else 1.0,
            saturation=amplifier.saturation, linear_below=_linear_below(part, levels[amplifier.name], electronics),
            counts=corrected,
        )  # fmt: skip
        if amplifier.name in electronics.crosstalk:
            placed = mask[parse_section(amplifier.detector_section)]
            turned = placed[:: -1 if amplifier.flip_y else 1, :: -1 if amplifier.flip_x else 1]
            turned[ill_corrected(raw.detector.id, part, counts, electronics)] |= int(MaskPlane.SUSPECT)
    return Assembled(image, mask, {n: z.measured for n, z in levels.items() if z.measured is not None})


def measure_zero(part: AmplifierPixels, *, overscan: OverscanConfig, keep_pedestal: bool) -> ZeroLevel:
    """Measure the zero level of an amplifier's rows in its overscan; without one it is as `assemble` says."""
    n_rows = part.data.shape[0]
    if part.overscans:
        level = measure_overscan(_strips(part), n_rows=n_rows, config=overscan)
        return ZeroLevel(level.row_level, level)
    return ZeroLevel(np.full(n_rows, 0.0 if keep_pedestal else part.amplifier.bias_level, np.float32), None)


def _counts_above_zero(
    raw: RawDetector, levels: dict[str, ZeroLevel], overscan: OverscanConfig, electronics: Electronics
) -> dict[tuple[int, str], Signal]:
    """Return the counts that corrections need; nothing where nothing is corrected."""
    if not electronics.linearity and not electronics.crosstalk:
        return {}
    found = {}
    for part in raw.amplifiers:
        zero = levels[part.amplifier.name].rows[:, None]
        if not part.overscans and not zero.any():
            zero = np.float32(electronics.pedestal.get(part.amplifier.name, 0.0)) + zero
        found[raw.detector.id, part.amplifier.name] = _signal(part, zero)
    for other in raw.others:
        if other.detector.id in electronics.detectors:
            for part in other.amplifiers:
                zero = measure_zero(part, overscan=overscan, keep_pedestal=False).rows[:, None]
                found[other.detector.id, part.amplifier.name] = _signal(part, zero)
    return found


def _signal(part: AmplifierPixels, zero: NDArray[np.float32]) -> Signal:
    return Signal(part.amplifier, part.data - zero, part.data >= part.amplifier.saturation)


def _linear_below(part: AmplifierPixels, zero: ZeroLevel, electronics: Electronics) -> float | None:
    """Return the raw count above which the response is not known: the end of the measured curve, else the camera's."""
    table = electronics.linearity.get(part.amplifier.name)
    if table is None:
        return part.amplifier.linear_below
    pedestal = electronics.pedestal.get(part.amplifier.name, 0.0) if not part.overscans else 0.0
    return table.highest_level + float(np.median(zero.rows)) + pedestal


def _kept_pedestal(amplifier: Amplifier, keep_pedestal: bool, electronics: Electronics) -> float:
    """Return the zero level that is put back for the bias master to take away."""
    return electronics.pedestal.get(amplifier.name, 0.0) if keep_pedestal and not amplifier.overscans else 0.0


def _strips(part: AmplifierPixels) -> list[OverscanStrip]:
    first_data_row = parse_section(part.amplifier.data_section)[0].start
    return [
        OverscanStrip(pixels, parse_section(region.section)[0].start - first_data_row)
        for region, pixels in zip(part.amplifier.overscans, part.overscans, strict=True)
    ]
