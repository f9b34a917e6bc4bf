"""What the pixels of one frame say of an amplifier where its cards are silent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.stats.raw_sections import measure_section
from gueststar.cameras.drafting.guess import Guess

_CONVERTER_TOPS = (4095, 16383, 32767, 65535)
"""Highest values of 12, 14, 15 and 16 bits."""


@dataclass(frozen=True)
class PixelFacts:
    """Measured on one frame, ADU."""

    noise: float | None
    """Of the overscan; None: there is none."""
    bias_level: Guess | None
    saturation: Guess

    def read_noise(self, gain: float) -> Guess:
        """Return the read noise in electrons."""
        if self.noise is None:
            return Guess(10.0, "no card and no overscan tells: FILL IN", "assumed")
        return Guess(round(self.noise * gain, 2), "noise of the overscan times gain", "inferred")


def measure_pixels(data: NDArray[np.float32], overscan: NDArray[np.float32] | None) -> PixelFacts:
    """Return what one frame's data and overscan [y, x] tell."""
    highest = measure_section(data).highest
    if overscan is None:
        level = Guess(round(float(np.percentile(data, 0.1)), 1), "lowest pixels of one frame: FILL IN", "assumed")
        return PixelFacts(None, level, _saturation(highest))
    measured = measure_section(overscan)
    bias = Guess(round(measured.level, 1), "level of the overscan", "inferred")
    return PixelFacts(measured.noise, bias, _saturation(highest))


def _saturation(highest: float) -> Guess:
    """Return the saturation that the converter's range implies: 92 % of the range that holds the highest pixel."""
    top = next((top for top in _CONVERTER_TOPS if highest <= top), _CONVERTER_TOPS[-1])
    if highest in _CONVERTER_TOPS:
        return Guess(float(round(0.98 * top)), f"pixels end at {highest:g}, the top of the converter", "inferred")
    return Guess(float(round(0.92 * 65535)), "92 % of 16 bits: FILL IN", "assumed")
