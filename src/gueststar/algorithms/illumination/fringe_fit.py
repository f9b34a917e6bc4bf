"""How much of known fringe patterns an image holds, and its removal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gueststar.algorithms.background.mesh import bin_pixels, grow_by_one
from gueststar.algorithms.stats.robust import median_and_sigma

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Float32Image = NDArray[np.float32]

_FEWEST_CELLS = 50
"""An image with fewer free cells tells nothing of fringes."""


_SETTLED = 2e-3
"""Clipping ends when it takes less than this fraction of the cells."""


@dataclass(frozen=True)
class FringeFitConfig:
    """How the amplitude of fringes in an image is measured, and when they are taken out."""

    cell: int = 4
    """Side of the cells that are averaged before the fit, pixels: finer than the fringes."""
    window: int = 256
    """Structure wider than this, pixels, is taken for sky and left alone."""
    clip_sigma: float = 3.0
    """Cells whose residual is further than this many sigma from zero are left out, with their neighbours (sources)."""
    iterations: int = 6
    """Most rounds of clipping."""
    min_significance: float = 5.0
    """Fringes are taken out only if their amplitude is so many times its error."""


class FringeFit(NamedTuple):
    """Amplitudes of fringe patterns in an image."""

    amplitudes: Floats
    """``[k]``, by what each pattern is to be multiplied, in the unit of the image."""
    covariance: Floats
    """``[k, k]`` of the amplitudes, from the scatter that is left."""
    significance: float
    """Of all patterns together: square root of the improvement of chi square."""
    rms_before: float
    """Scatter of the free cells before, robust, in the unit of the image."""
    rms_after: float
    """The same once the patterns are taken out."""
    n_cells: int
    """Cells in the fit."""

    @property
    def errors(self) -> Floats:
        """Standard error of each amplitude."""
        return np.asarray(np.sqrt(np.diag(self.covariance)), dtype=np.float64)


def fit_fringes(
    image: Float32Image,
    is_masked: Bools,
    patterns: NDArray[np.float32],
    *,
    config: FringeFitConfig = FringeFitConfig(),
) -> FringeFit:
    """Fit ``patterns [k, y, x]`` to an image by least squares on cells that hold no source.

    Cells are averages of unmasked pixels. From image and patterns alike the mean over a window is taken away, with
    the same weights, so that neither the sky's level nor its gradients tell on the amplitudes. Sources are
    clipped by their residual, both signs alike. Pixels that are not finite in image or pattern count as masked. With
    too few free cells amplitudes and significance are 0.
    """
    is_out = is_masked | ~np.isfinite(patterns).all(axis=0)
    values, variance, number = bin_pixels(image, is_out, config.cell)
    is_free = number >= 0.5 * config.cell**2
    cells = [bin_pixels(pattern, is_out, config.cell)[0] for pattern in patterns]
    size = max(3, config.window // config.cell)
    for _ in range(config.iterations):
        if is_free.sum() < max(_FEWEST_CELLS, 10 * len(cells)):
            return _nothing(len(cells), int(is_free.sum()))
        data = flattened(values, is_free, size)
        terms = np.stack([flattened(cell, is_free, size) for cell in cells])
        fit = _solve(data, terms, is_free, number)
        residual = np.abs(data - np.tensordot(fit.amplitudes, terms, axes=1))
        noise = np.maximum(fit.rms_after, np.sqrt(np.median(variance[is_free] / number[is_free])) * 1e-3)
        is_now_free = is_free & ~grow_by_one(is_free & (residual > config.clip_sigma * noise))
        n_now, n_before = int(is_now_free.sum()), int(is_free.sum())
        if n_now < 0.2 * n_before or n_now > (1.0 - _SETTLED) * n_before:
            break
        is_free = is_now_free
    return fit


def flattened(values: Float32Image, is_free: Bools, size: int) -> Floats:
    """Return values less their mean over ``size`` x ``size`` free cells around; 0 where a cell is not free.

    A parabola over the whole is taken away first, lest a slope tell at the rim, where the mean is one-sided. The mean
    is taken twice over half the size: one box alone would let waves of its own width through.
    """
    weight = is_free.astype(np.float32)
    level = (values - _parabola(values, is_free)).astype(np.float32)
    total = np.where(is_free, level, np.float32(0.0))
    for _ in range(2):
        weight = ndimage.uniform_filter(weight, max(3, size // 2), mode="constant")
        total = ndimage.uniform_filter(total, max(3, size // 2), mode="constant")
    mean = np.divide(total, weight, out=np.zeros_like(total), where=weight > 1e-4)
    return np.where(is_free, level - mean, 0.0).astype(np.float64)


def _parabola(values: Float32Image, is_free: Bools) -> Floats:
    """Return the second-order surface through the free cells (of a sample of them)."""
    ny, nx = values.shape
    step = max(1, int(np.sqrt(values.size / 20_000.0)))
    v, u = np.meshgrid(np.linspace(-1.0, 1.0, ny), np.linspace(-1.0, 1.0, nx), indexing="ij", sparse=True)
    rows, columns = np.nonzero(is_free[::step, ::step])
    a, b = u[0, columns * step], v[rows * step, 0]
    if a.size < 60:
        return np.zeros(values.shape)
    terms = np.stack([np.ones_like(a), a, b, a * a, a * b, b * b], axis=1)
    c = np.linalg.lstsq(terms, values[rows * step, columns * step].astype(np.float64), rcond=None)[0]
    return np.asarray(c[0] + c[1] * u + c[2] * v + c[3] * u * u + c[4] * u * v + c[5] * v * v)


def _solve(data: Floats, terms: Floats, is_free: Bools, number: NDArray[np.int32]) -> FringeFit:
    weight = number[is_free].astype(np.float64)
    weight /= weight.mean()
    x, y = terms[:, is_free], data[is_free]
    normal, right = (x * weight) @ x.T, (x * weight) @ y
    inverse: Floats = np.asarray(np.linalg.pinv(normal, rcond=1e-10, hermitian=True), dtype=np.float64)
    amplitudes: Floats = inverse @ right
    after = median_and_sigma(y - amplitudes @ x)[1]
    chi = float(amplitudes @ normal @ amplitudes) / after**2 if after > 0 else 0.0
    return FringeFit(
        amplitudes=amplitudes,
        covariance=inverse * np.float64(after**2),
        significance=float(np.sqrt(max(chi, 0.0))),
        rms_before=median_and_sigma(y)[1],
        rms_after=after,
        n_cells=int(is_free.sum()),
    )


def _nothing(n_patterns: int, n_cells: int) -> FringeFit:
    zero = np.zeros(n_patterns)
    return FringeFit(zero, np.zeros((n_patterns, n_patterns)), 0.0, float("nan"), float("nan"), n_cells)


@numba.njit(cache=True)
def subtract_patterns_in_place(image, patterns, amplitudes):  # type: ignore[no-untyped-def]
    """Subtract the patterns ``[k, y, x]`` times their amplitudes; pixels where a pattern is not finite stay."""
    for k in range(patterns.shape[0]):
        factor = np.float32(amplitudes[k])
        for y in range(image.shape[0]):
            for x in range(image.shape[1]):
                value = factor * patterns[k, y, x]
                if np.isfinite(value):
                    image[y, x] -= value
