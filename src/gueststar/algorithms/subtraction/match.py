"""How two images of the same sky differ before subtraction: shift, flux ratio, background."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from gueststar.algorithms.psf.evaluate import normalised, polynomial_terms
from gueststar.algorithms.stats.select import median_of

Floats = NDArray[np.float64]
Float32Image = NDArray[np.float32]
Bools = NDArray[np.bool_]


class PolynomialField(NamedTuple):
    """A scalar that varies over an image: polynomial of total degree ``order`` in normalised position."""

    coefficients: Floats
    order: int
    shape: tuple[int, int]
    rms: float
    """Robust scatter of the data about it."""
    n: int
    """Points used."""

    def __call__(self, x: Floats, y: Floats) -> Floats:
        """Return the values at image positions."""
        u, v = normalised(np.asarray(x, np.float64), np.asarray(y, np.float64), self.shape)
        return np.asarray(np.tensordot(self.coefficients, polynomial_terms(u, v, self.order), axes=1))


def fit_polynomial_field(
    x: Floats,
    y: Floats,
    value: Floats,
    error: Floats,
    shape: tuple[int, int],
    *,
    order: int,
    n_sigma: float = 4.0,
    points_per_term: int = 5,
) -> PolynomialField:
    """Fit a polynomial field by weighted least squares with outlier rejection.

    The order falls while there are fewer than ``points_per_term`` points for each term. With no point at
    all the field is zero with infinite rms.
    """
    good = np.isfinite(value) & np.isfinite(error) & (error > 0)
    while order > 0 and good.sum() < points_per_term * (order + 1) * (order + 2) // 2:
        order -= 1
    n_terms = (order + 1) * (order + 2) // 2
    if good.sum() == 0:
        return PolynomialField(np.zeros(1), 0, shape, np.inf, 0)
    u, v = normalised(np.asarray(x, np.float64), np.asarray(y, np.float64), shape)
    terms = polynomial_terms(u, v, order).T
    coefficients: Floats = np.zeros(n_terms)
    coefficients[0] = np.median(value[good])
    rms = 0.0
    for _ in range(6):
        residual = value - terms @ coefficients
        rms = 1.4826 * float(np.median(np.abs(residual[good])))
        keep = good & (np.abs(residual) < n_sigma * np.maximum(rms, error))
        if keep.sum() < n_terms:
            break
        w = 1.0 / np.hypot(error[keep], 0.3 * rms)
        coefficients[:] = np.linalg.lstsq(terms[keep] * w[:, None], value[keep] * w, rcond=None)[0]
    residual = value - terms @ coefficients
    return PolynomialField(
        coefficients, order, shape, 1.4826 * float(np.median(np.abs(residual[good]))), int(good.sum())
    )


def background_mesh(difference: Float32Image, usable: Bools, *, box: int) -> Float32Image:
    """Return the smooth residual background of an unmatched difference (science minus scaled reference).

    Clipped medians in boxes of about ``box`` usable pixels, filled where a box has too few, smoothed by a
    3 x 3 median. Stars cancel to first order, so their wings do not pull it as on one image.
    """
    ny, nx = difference.shape
    n_y, n_x = max(1, round(ny / box)), max(1, round(nx / box))
    edges_y, edges_x = (np.linspace(0, size, n + 1).astype(int) for size, n in ((ny, n_y), (nx, n_x)))
    mesh = np.full((n_y, n_x), np.nan)
    for j in range(n_y):
        for i in range(n_x):
            part = np.s_[edges_y[j] : edges_y[j + 1] : 2, edges_x[i] : edges_x[i + 1] : 2]
            values = difference[part][usable[part]]
            if values.size > 0.1 * usable[part].size and values.size >= 16:
                mesh[j, i] = _clipped_median(values)
    if not np.isfinite(mesh).any():
        return np.zeros((1, 1), np.float32)
    mesh = np.where(np.isfinite(mesh), mesh, np.nanmedian(mesh))
    return np.asarray(median_filter(mesh, size=3, mode="nearest"), dtype=np.float32)


def interpolate_mesh(mesh: NDArray[np.floating], shape: tuple[int, int]) -> Float32Image:
    """Return bilinear interpolation of values in equal boxes, at every pixel, constant beyond the outer centres."""
    rows, across = mesh_rows(mesh, shape)
    return np.asarray(rows @ across)


def mesh_rows(mesh: NDArray[np.floating], shape: tuple[int, int]) -> tuple[Float32Image, Float32Image]:
    """Return ``[ny, n]`` and ``[n, nx]`` whose product is what `interpolate_mesh` returns: for who takes row by row."""
    matrices = []
    for n, size in zip(mesh.shape, shape, strict=True):
        centres = (np.arange(n) + 0.5) * size / n - 0.5
        matrices.append(np.stack([np.interp(np.arange(size), centres, row) for row in np.eye(n)], axis=1))
    return (matrices[0] @ mesh).astype(np.float32), np.ascontiguousarray(matrices[1].T, np.float32)


def _clipped_median(values: Float32Image) -> float:
    for _ in range(2):
        distance = np.abs(values - np.float32(median_of(values)))
        kept = values[distance <= 3 * 1.4826 * median_of(distance)]
        if kept.size < 8:
            break
        values = kept
    return median_of(values)
