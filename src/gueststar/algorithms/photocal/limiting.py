"""How faint an image goes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def limiting_magnitude(
    *, psf_effective_area: ArrayLike, sky_variance: ArrayLike, zero_point: ArrayLike, n_sigma: float = 5.0
) -> NDArray[np.float64]:
    """Return the magnitude of a point source whose PSF flux is ``n_sigma`` times its error.

    ``psf_effective_area`` is the noise-equivalent area 1 / sum(p**2) in pixels, ``sky_variance`` the
    variance of a pixel without sources (image units squared); arrays give maps. NaN where the variance or the
    area is not positive.
    """
    variance = np.asarray(sky_variance, dtype=np.float64) * np.asarray(psf_effective_area, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        limit = np.asarray(zero_point) - 2.5 * np.log10(n_sigma * np.sqrt(variance))
    return np.where(variance > 0, limit, np.nan)


def effective_area(psf: NDArray[np.floating]) -> float:
    """Return the noise-equivalent area, pixels, of a PSF stamp: (sum p)**2 / sum p**2."""
    values = np.asarray(psf, dtype=np.float64)
    return float(values.sum() ** 2 / (values**2).sum())
