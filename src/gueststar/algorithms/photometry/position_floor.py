"""Hold fitted positions against windowed centroids: what the PSF model leaves uncertain of bright stars' places."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from gueststar.algorithms.psf.evaluate import normalised
from gueststar.algorithms.psf.fit import cutouts
from gueststar.algorithms.psf.scene import Scene, SourceState
from gueststar.algorithms.psf.simultaneous import SourceErrors
from gueststar.algorithms.psf.spline import SplinePsf, shifted_stamps

Floats64 = NDArray[np.float64]

_STEP = 0.05
"""Pixels by which models are moved to measure how windowed centroids follow."""


class CentroidOffsets(NamedTuple):
    """Windowed centroid less fitted position of stars along x and y, pixels, and what noise makes of it."""

    x: Floats64
    y: Floats64
    x_err: Floats64
    y_err: Floats64


def centroid_offsets(
    scene: Scene, psf: SplinePsf, stars: SourceState, errors: SourceErrors, *, fwhm: float
) -> CentroidOffsets:
    """Return how far the Gaussian-windowed centroids of ``stars`` are from those that their fitted models have.

    The window is as wide as the PSF (``fwhm``, pixels). Both estimates hold the same photons: noise moves one against
    the other by the difference of their variances. What remains is that the star's shape is not the model's. Stars with
    masked pixels in the window should not be given.
    """
    half = min(int(np.ceil(1.5 * fwhm)), psf.half)
    ix, iy = np.rint(stars.x).astype(np.int64), np.rint(stars.y).astype(np.int64)
    dx, dy = stars.x - ix, stars.y - iy
    g = np.arange(-half, half + 1)
    u, v = g[None, None, :] - dx[:, None, None], g[None, :, None] - dy[:, None, None]
    window = np.exp(-0.5 * (u**2 + v**2) / (fwhm / 2.3548) ** 2)
    residual = cutouts(scene.residual, ix, iy, half, 0.0)
    place = {"x": stars.x, "y": stars.y, "radius": half}
    model = stars.flux[:, None, None] * shifted_stamps(psf, dx=dx, dy=dy, **place)  # type: ignore[arg-type]
    variance = cutouts(scene.sky_variance, ix, iy, half, 1.0) + scene.slope * np.maximum(model, 0.0)
    found = []
    for lever, shift, fit_err in ((u, (_STEP, 0.0), errors.x_err), (v, (0.0, _STEP), errors.y_err)):
        weight = window * lever
        ahead = shifted_stamps(psf, dx=dx + shift[0], dy=dy + shift[1], **place)  # type: ignore[arg-type]
        behind = shifted_stamps(psf, dx=dx - shift[0], dy=dy - shift[1], **place)  # type: ignore[arg-type]
        follows = stars.flux * np.sum(weight * (ahead - behind), axis=(1, 2)) / (2.0 * _STEP)
        offset = np.sum(weight * residual, axis=(1, 2)) / follows
        of_window = np.sum(weight**2 * variance, axis=(1, 2)) / follows**2
        found.append((offset, np.sqrt(np.maximum(of_window - fit_err**2, 0.0))))
    (x, x_err), (y, y_err) = found
    return CentroidOffsets(x, y, x_err, y_err)


class PositionFloor(NamedTuple):
    """Variance of bright stars' positions that noise does not explain, pixels squared, about the image."""

    middle: float
    corner: float
    """Variance in the corners; it grows from the middle with the square of the distance."""
    n_stars: int
    """Stars on which it was measured; with too few it is nought."""

    def variance(self, *, x: Floats64, y: Floats64, shape: tuple[int, int]) -> Floats64:
        """Return the variance at positions (pixels) of an image of ``shape`` (ny, nx)."""
        return self.middle + (self.corner - self.middle) * _outwards(x, y, shape)


def measure_position_floor(
    offsets: CentroidOffsets, *, x: Floats64, y: Floats64, shape: tuple[int, int], min_stars: int = 10,
    stars_for_corners: int = 60, n_sigma: float = 4.0,
) -> PositionFloor:  # fmt: skip
    """Return the scatter of centroids about fitted positions beyond noise, as variance along one axis.

    ``x`` and ``y`` are the stars' places in an image of ``shape``. With ``stars_for_corners`` stars the variance may
    differ between middle and corners, where models extrapolate; it is negative nowhere. Outliers (blends) are clipped
    at ``n_sigma``.
    """
    square, noise, q = [], [], []
    for offset, err in ((offsets.x, offsets.x_err), (offsets.y, offsets.y_err)):
        is_good = np.isfinite(offset) & np.isfinite(err)
        square.append((offset[is_good] - np.median(offset[is_good])) ** 2 if is_good.any() else np.zeros(0))
        noise.append(err[is_good] ** 2)
        q.append(_outwards(x, y, shape)[is_good])
    d2, var, place = (np.concatenate(part) for part in (square, noise, q))
    n_stars = d2.size // 2
    if n_stars < min_stars:
        return PositionFloor(0.0, 0.0, n_stars)
    terms = np.stack([1.0 - place, place] if n_stars >= stars_for_corners else [np.ones_like(place)], axis=1)
    # A median's worth to begin with: chi-square of one degree of freedom has its median at 0.455.
    floor = np.full(terms.shape[1], max(float(np.median(d2 - 0.455 * var)) / 0.455, 0.0))
    for _ in range(6):
        total = var + terms @ floor
        is_used = d2 < n_sigma**2 * np.maximum(total, 1e-12)
        weight = 1.0 / np.maximum(total[is_used], 1e-12)
        floor = nnls(terms[is_used] * weight[:, None], (d2 - var)[is_used] * weight)[0]
    return PositionFloor(float(floor[0]), float(floor[-1]), n_stars)


def _outwards(x: Floats64, y: Floats64, shape: tuple[int, int]) -> Floats64:
    """Return 0 in the middle of an image, 1 in its corners, rising as the square of the distance."""
    u, v = normalised(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64), shape)
    return np.clip(0.5 * (u**2 + v**2), 0.0, 1.0)
