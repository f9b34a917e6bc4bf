"""The amplifiers of a raw detector put together, their zero level removed."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from gueststar.algorithms.detrend.assemble import place_amplifier_in_place
from gueststar.algorithms.detrend.overscan import OverscanConfig, OverscanLevel, OverscanStrip, measure_overscan
from gueststar.model.camera import parse_section
from gueststar.model.image import Float32Image, MaskImage
from gueststar.model.raw import AmplifierPixels, RawDetector


class Assembled(NamedTuple):
    """A detector image with its zero level removed."""

    image: Float32Image
    """ADU or electrons, as asked."""
    mask: MaskImage
    """SATURATED, SUSPECT (not known to be linear) and NO_DATA."""
    overscans: dict[str, OverscanLevel]
    """By amplifier name; those without overscan are absent."""


def assemble(
    raw: RawDetector, *, overscan: OverscanConfig, unit: Literal["adu", "electron"], keep_pedestal: bool
) -> Assembled:
    """Subtract the overscan of each amplifier and place the pixels in the detector image.

    An amplifier without overscan keeps its pedestal with ``keep_pedestal`` (a bias master will take it away,
    or is being made), else its camera's ``bias_level`` is subtracted.
    """
    image = np.empty(raw.detector.shape, np.float32)
    mask = np.empty(raw.detector.shape, np.int32)
    levels: dict[str, OverscanLevel] = {}
    for part in raw.amplifiers:
        amplifier = part.amplifier
        n_rows = part.data.shape[0]
        if part.overscans:
            level = measure_overscan(_strips(part), n_rows=n_rows, config=overscan)
            levels[amplifier.name] = level
            row_level = level.row_level
        else:
            row_level = np.full(n_rows, 0.0 if keep_pedestal else amplifier.bias_level, np.float32)
        place_amplifier_in_place(
            image, mask, data=part.data, row_level=row_level, target=parse_section(amplifier.detector_section),
            flip_x=amplifier.flip_x, flip_y=amplifier.flip_y, gain=amplifier.gain if unit == "electron" else 1.0,
            saturation=amplifier.saturation, linear_below=amplifier.linear_below,
        )  # fmt: skip
    return Assembled(image, mask, levels)


def _strips(part: AmplifierPixels) -> list[OverscanStrip]:
    first_data_row = parse_section(part.amplifier.data_section)[0].start
    return [
        OverscanStrip(pixels, parse_section(region.section)[0].start - first_data_row)
        for region, pixels in zip(part.amplifier.overscans, part.overscans, strict=True)
    ]
