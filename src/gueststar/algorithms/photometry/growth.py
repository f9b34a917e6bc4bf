"""From the PSF's flux to the flux in a large aperture."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats64 = NDArray[np.float64]


class ApertureCorrection(NamedTuple):
    """Ratio of a large aperture's flux to the PSF's."""

    ratio: float
    """1 where it could not be measured."""
    ratio_err: float
    """Error of the ratio; NaN where it could not be measured."""
    scatter: float
    """Scatter of single stars about it."""
    n_stars: int


def measure_aperture_correction(
    psf_flux: Floats64,
    aperture_flux: Floats64,
    aperture_flux_err: Floats64,
    *,
    min_stars: int = 10,
    max_correction: float = 0.15,
) -> ApertureCorrection:
    """Return the clipped weighted mean of ``aperture_flux / psf_flux`` of clean bright stars.

    With fewer than ``min_stars`` stars, or a ratio further than ``max_correction`` from one, no correction is made.
    """
    ratio = aperture_flux / psf_flux
    sigma = np.hypot(aperture_flux_err / psf_flux, 0.003)
    is_used = np.isfinite(ratio) & np.isfinite(sigma) & (sigma < 0.05)
    for _ in range(5):
        if is_used.sum() < min_stars:
            return ApertureCorrection(1.0, float("nan"), float("nan"), int(is_used.sum()))
        centre = float(np.median(ratio[is_used]))
        scatter = float(1.4826 * np.median(np.abs(ratio[is_used] - centre)))
        is_used &= np.abs(ratio - centre) < 3.0 * np.hypot(sigma, scatter)
    weight = 1.0 / (sigma[is_used] ** 2 + scatter**2)
    mean = float(np.sum(weight * ratio[is_used]) / weight.sum())
    error = float(1.0 / np.sqrt(weight.sum()))
    if abs(mean - 1.0) > max_correction:
        return ApertureCorrection(1.0, error, scatter, int(is_used.sum()))
    return ApertureCorrection(mean, error, scatter, int(is_used.sum()))
