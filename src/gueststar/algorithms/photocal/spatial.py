"""How the zero point changes over the detector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def spatial_terms(*, x: Floats, y: Floats, shape: tuple[int, int], order: int) -> Floats:
    """Return ``[n, k]`` products of Legendre polynomials over the detector, of total order 1 to ``order``.

    Each has zero mean over the detector, so the zero point stays the detector's mean.
    """
    u, v = 2.0 * (x + 0.5) / shape[1] - 1.0, 2.0 * (y + 0.5) / shape[0] - 1.0
    in_x = [legendre.legval(u, np.eye(order + 1)[i]) for i in range(order + 1)]
    in_y = [legendre.legval(v, np.eye(order + 1)[j]) for j in range(order + 1)]
    terms = [in_x[total - j] * in_y[j] for total in range(1, order + 1) for j in range(total + 1)]
    return np.stack(terms, axis=-1) if terms else np.zeros((*np.shape(x), 0))


@dataclass(frozen=True, eq=False)
class ZeroPointMap:
    """Change of the zero point over the detector, mag, with zero mean."""

    coefficients: Floats
    """Of `spatial_terms`."""
    shape: tuple[int, int]
    order: int
    covariance: Floats | None = None
    """Of the coefficients; None: not known."""

    def __call__(self, *, x: ArrayLike, y: ArrayLike) -> Floats:
        """Return what to add to the zero point at pixel positions, mag."""
        at_x, at_y = np.broadcast_arrays(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))
        return np.asarray(spatial_terms(x=at_x, y=at_y, shape=self.shape, order=self.order) @ self.coefficients)

    def error(self, *, x: ArrayLike, y: ArrayLike) -> Floats:
        """Return the error of the map at pixel positions, mag; that of the zero point itself is not in it."""
        at_x, at_y = np.broadcast_arrays(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))
        if self.covariance is None:
            return np.zeros(at_x.shape)
        terms = spatial_terms(x=at_x, y=at_y, shape=self.shape, order=self.order)
        variance = np.einsum("...i,ij,...j->...", terms, self.covariance, terms)
        return np.sqrt(np.maximum(variance, 0.0))

    def factor(self, *, x: ArrayLike, y: ArrayLike) -> Floats:
        """Return by what a flux measured at a place is to be multiplied for the detector's one zero point to hold."""
        return np.asarray(10.0 ** (-0.4 * self(x=x, y=y)))

    def factor_image(self) -> NDArray[np.float32]:
        """Return `factor` at every pixel."""
        ny, nx = self.shape
        matrix = np.zeros((self.order + 1, self.order + 1))
        pairs = [(total - j, j) for total in range(1, self.order + 1) for j in range(total + 1)]
        for value, (i, j) in zip(self.coefficients, pairs, strict=True):
            matrix[j, i] = value
        u, v = (2.0 * (np.arange(n) + 0.5) / n - 1.0 for n in (nx, ny))
        in_x, in_y = legendre.legvander(u, self.order), legendre.legvander(v, self.order)
        magnitudes = (in_y @ matrix).astype(np.float32) @ in_x.T.astype(np.float32)
        return np.exp(np.float32(-0.4 * np.log(10.0)) * magnitudes)

    @property
    def rms(self) -> float:
        """Root mean square over the detector, mag."""
        return self._rms_of(self)

    @property
    def rms_error(self) -> float:
        """Root mean square of its error over the detector, mag."""
        return self._rms_of(self.error)

    def _rms_of(self, field: Callable[..., Floats]) -> float:
        ny, nx = self.shape
        y, x = np.mgrid[0 : ny - 1 : 25j, 0 : nx - 1 : 25j]
        return float(np.sqrt(np.mean(field(x=x, y=y) ** 2)))


def cell_structure(
    *, x: Floats, y: Floats, residuals: Floats, variance: Floats, shape: tuple[int, int], n: int = 4
) -> float:
    """Return the rms (mag) of the mean residual from cell to cell, n x n, beyond what noise explains.

    0 if fewer than 4 cells hold 5 stars or the noise explains it all.
    """
    column = np.clip((x + 0.5) / shape[1] * n, 0, n - 1).astype(np.int64)
    row = np.clip((y + 0.5) / shape[0] * n, 0, n - 1).astype(np.int64)
    cell = row * n + column
    weight = 1.0 / variance
    total = np.bincount(cell, weights=weight, minlength=n * n)
    full = np.bincount(cell, minlength=n * n) >= 5
    if full.sum() < 4:
        return 0.0
    mean = np.bincount(cell, weights=weight * residuals, minlength=n * n)[full] / total[full]
    excess = float(np.var(mean, ddof=1) - np.mean(1.0 / total[full]))
    return float(np.sqrt(max(excess, 0.0)))
