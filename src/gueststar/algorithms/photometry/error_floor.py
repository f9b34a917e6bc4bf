"""What errors must hold beyond noise: measured on bright stars, in the middle of the image and in its corners."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from gueststar.algorithms.psf.evaluate import normalised

Floats64 = NDArray[np.float64]


class ErrorFloor(NamedTuple):
    """Variance that noise does not explain, about the image."""

    middle: float
    corner: float
    """Variance in the corners; it changes from the middle with the square of the distance."""
    n_stars: int
    """Stars on which it was measured; with too few it is nought."""

    def variance(self, *, x: Floats64, y: Floats64, shape: tuple[int, int]) -> Floats64:
        """Return the variance at positions (pixels) of an image of ``shape`` (ny, nx)."""
        return np.asarray(self.middle + (self.corner - self.middle) * _outwards(x, y, shape))


NO_FLOOR = ErrorFloor(0.0, 0.0, 0)


def measure_error_floor(
    deviation: Floats64,
    noise: Floats64,
    *,
    x: Floats64,
    y: Floats64,
    shape: tuple[int, int],
    min_stars: int = 10,
    stars_for_corners: int = 60,
    n_sigma: float = 4.0,
) -> ErrorFloor:
    """Return the variance of deviations from the truth, or from one another, beyond that of their ``noise`` (sigma).

    Both are ``[n, stars]``, of n quantities with one floor; ``x`` and ``y`` are the stars' places in an image of
    ``shape``. With ``stars_for_corners`` stars the variance may differ between middle and corners, where models
    extrapolate; it is negative nowhere. Outliers (blends) are clipped at ``n_sigma``.
    """
    is_good = np.isfinite(deviation) & np.isfinite(noise)
    d2, var = deviation[is_good] ** 2, noise[is_good] ** 2
    place = np.broadcast_to(_outwards(x, y, shape), deviation.shape)[is_good]
    n_stars = d2.size // max(len(deviation), 1)
    if n_stars < min_stars:
        return NO_FLOOR._replace(n_stars=n_stars)
    terms = np.stack([1.0 - place, place] if n_stars >= stars_for_corners else [np.ones_like(place)], axis=1)
    # Chi-square of one degree of freedom has its median at 0.455; what is clipped at 4 sigma shifts no mean.
    floor = np.full(terms.shape[1], max(float(np.median(d2 - 0.455 * var)) / 0.455, 0.0))
    for _ in range(6):
        total = np.maximum(var + terms @ floor, 1e-14)
        is_used = d2 < n_sigma**2 * total
        floor = nnls(terms[is_used] / total[is_used, None], (d2 - var)[is_used] / total[is_used])[0]
    return ErrorFloor(float(floor[0]), float(floor[-1]), n_stars)


def _outwards(x: Floats64, y: Floats64, shape: tuple[int, int]) -> Floats64:
    """Return 0 in the middle of an image, 1 in its corners, rising as the square of the distance."""
    u, v = normalised(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64), shape)
    return np.clip(0.5 * (u**2 + v**2), 0.0, 1.0)
