"""The sky taken away."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gueststar.algorithms.background.estimate import Background, BackgroundConfig, estimate_background
from gueststar.core.bits import UNUSABLE
from gueststar.core.errors import DataError
from gueststar.model.image import MaskedImage


class SubtractedImage(NamedTuple):
    """An image without its sky, the sky, and what was measured of it."""

    pixels: MaskedImage
    background: Background
    metrics: dict[str, Any]


class SubtractBackground:
    """Estimate the sky and subtract it."""

    def __init__(self, config: BackgroundConfig | None = None) -> None:
        self.config = config or BackgroundConfig()

    def run(self, pixels: MaskedImage) -> SubtractedImage:
        """Return the image without sky; variance and mask are those given.

        Raises DataError when no pixel is usable.
        """
        try:
            background = estimate_background(pixels.image, pixels.is_masked(UNUSABLE), config=self.config)
        except ValueError as error:
            raise DataError(f"sky cannot be estimated: {error}") from None
        subtracted = MaskedImage(pixels.image - background.level, pixels.variance, pixels.mask)
        metrics = {
            "sky_level": float(np.median(background.mesh_level)),
            "sky_rms": float(np.median(background.mesh_rms)),
            "sky_range": float(np.ptp(background.mesh_level)),
            "sky_free_fraction": background.free_fraction,
        }
        return SubtractedImage(subtracted, background, metrics)
