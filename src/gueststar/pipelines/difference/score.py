"""The score of a difference image that was made elsewhere: its matched filter, brought to unit scatter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.detection.matched_filter import matched_score
from gueststar.algorithms.subtraction.fine_psf import cell_centres
from gueststar.algorithms.subtraction.normalise import (
    ScoreNoise,
    measure_score_noise,
    median_sigma,
    normalise_in_place,
)
from gueststar.algorithms.subtraction.prepare import find_unusable, grow
from gueststar.core.bits import UNUSABLE, MaskPlane
from gueststar.core.errors import DataError
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.psf import Psf
from gueststar.pipelines.difference.subtract import DifferenceConfig, DifferenceResult

PSF_CELLS = 3
"""A varying PSF is taken to be constant in as many cells along each axis."""


class ScoreDifference:
    """Make what detection needs of a difference image of which only pixels and PSF are known.

    Noise that neighbouring pixels share, as after a convolution, is not in a variance plane: the scatter of the
    score tells it, and score and variance are scaled by it.
    """

    def __init__(self, config: DifferenceConfig | None = None) -> None:
        self.config = config or DifferenceConfig()

    def run(self, difference: CalibratedImage) -> DifferenceResult:
        """Return the difference with its variance set right for PSF fits, and its score.

        Raises DataError when too few pixels are usable.
        """
        pixels, config = difference.pixels, self.config
        bad = find_unusable(pixels.image, pixels.variance, pixels.mask, int(UNUSABLE))
        usable = 1.0 - float(np.mean(bad))
        if usable < config.min_usable:
            raise DataError(f"only {usable:.1%} of the difference's pixels are usable, needs {config.min_usable:.0%}")
        score = matched_score(pixels.image, pixels.variance, bad, _kernels(difference.psf))
        saturated = (pixels.mask & int(MaskPlane.SATURATED)) != 0
        spoiled = grow(saturated, config.saturated_growth_fwhm * difference.psf.central_fwhm)
        excluded = np.asarray(grow(bad, config.mask_growth) | spoiled)
        noise = measure_score_noise(score, ~excluded, box=config.score_box)
        variance = np.array(pixels.variance)
        normalise_in_place(score, variance, excluded, noise)
        made = replace(difference, pixels=MaskedImage(pixels.image, variance, pixels.mask))
        return DifferenceResult(made, score, np.ones_like(score), _metrics(made, noise, ~excluded))


def _kernels(psf: Psf) -> NDArray[np.float32]:
    """Return PSF stamps for the cells of the image."""
    n = 1 if psf.order == 0 else PSF_CELLS
    x, y = cell_centres(psf.shape, (n, n))
    stamps = psf.stamps(x=x, y=y)
    return stamps.reshape(n, n, *stamps.shape[1:])


def _metrics(difference: CalibratedImage, noise: ScoreNoise, usable: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the figures that `MakeDifference` has of its own differences, as far as they exist."""
    psf, pixels = difference.psf, difference.pixels
    ny, nx = difference.shape
    power = float(np.sum(psf.stamp(x=(nx - 1) / 2, y=(ny - 1) / 2).astype(np.float64) ** 2))
    part = np.s_[::4, ::4]
    values, variance = pixels.image[part][usable[part]], pixels.variance[part][usable[part]]
    if values.size == 0:
        raise DataError("no pixel of the difference is far enough from unusable ones to measure its noise")
    sigma = float(np.sqrt(np.median(variance) / power))
    return {
        "method": "entered",
        "score_noise": noise.median,
        "score_noise_range": [noise.lowest, noise.highest],
        "limiting_mag": float(difference.photocal.magnitude(5.0 * sigma)),
        "psf_flux_sigma": sigma,
        "pixel_noise_ratio": median_sigma(values) ** 2 / float(np.median(variance)),
        "usable_fraction": float(usable.mean()),
        "difference_fwhm": psf.central_fwhm,
    }
