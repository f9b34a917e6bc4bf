"""The matched filter: how significant a point source would be at each pixel."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Float32Image = NDArray[np.float32]

ENERGY_KEPT = 0.995
"""Share of the kernel's energy that its sum of separable terms must hold (the rest costs 0.25 % of S/N)."""


class FilteredImage(NamedTuple):
    """A score of unit variance in blank sky, and what turns it into flux."""

    score: Float32Image
    """Signal to noise of the best-fitting PSF flux, ``[y, x]``; 0 where all weight is masked."""
    information: Float32Image
    """``sum(p**2 / v)``, the inverse variance of that flux; the flux is ``score / sqrt(information)``."""


def matched_filter(
    image: Float32Image,
    variance: Float32Image,
    is_masked: NDArray[np.bool_],
    kernels: NDArray[np.float32],
) -> FilteredImage:
    """Return ``sum(d p / v) / sqrt(sum(p**2 / v))`` at every pixel, d the data and p the PSF centred there.

    Masked pixels (and those whose variance is not a positive number) have no weight. ``kernels`` is one PSF
    stamp ``[k, k]`` (odd side, sum one), or ``[rows, columns, k, k]``: a grid of stamps for as many equal tiles of
    the image. Each is cut to its leading separable terms, which keeps the score's variance at one exactly.
    """
    grid = kernels[None, None] if kernels.ndim == 2 else kernels
    ny, nx = image.shape
    if grid.shape[:2] == (1, 1):
        return FilteredImage(*_filter_tile(image, variance, is_masked, separable_terms(grid[0, 0])))
    score, information = np.zeros_like(image), np.zeros_like(image)
    edges_y = np.linspace(0, ny, grid.shape[0] + 1).astype(int)
    edges_x = np.linspace(0, nx, grid.shape[1] + 1).astype(int)
    half = grid.shape[2] // 2
    for j in range(grid.shape[0]):
        for i in range(grid.shape[1]):
            y0, y1, x0, x1 = edges_y[j], edges_y[j + 1], edges_x[i], edges_x[i + 1]
            ya, xa = max(y0 - half, 0), max(x0 - half, 0)
            halo = (slice(ya, min(y1 + half, ny)), slice(xa, min(x1 + half, nx)))
            terms = separable_terms(grid[j, i])
            s, w = _filter_tile(image[halo], variance[halo], is_masked[halo], terms)
            inner = (slice(y0 - ya, y1 - ya), slice(x0 - xa, x1 - xa))
            score[y0:y1, x0:x1], information[y0:y1, x0:x1] = s[inner], w[inner]
    return FilteredImage(score, information)


def separable_terms(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``[rank, 2, k]``: column and row factors whose outer products sum to (nearly all of) the kernel."""
    u, s, vt = np.linalg.svd(kernel.astype(np.float64))
    energy = np.cumsum(s**2) / np.sum(s**2)
    rank = int(np.searchsorted(energy, ENERGY_KEPT)) + 1
    root = np.sqrt(s[:rank])
    return np.asarray(np.stack([u[:, :rank].T * root[:, None], vt[:rank] * root[:, None]], axis=1), dtype=np.float32)


def _filter_tile(
    image: Float32Image, variance: Float32Image, is_masked: NDArray[np.bool_], terms: NDArray[np.float32]
) -> tuple[Float32Image, Float32Image]:
    weighted, weight = _weighted(image, variance, is_masked)
    numerator = np.zeros(image.shape, dtype=np.float32)
    rows = np.empty(image.shape, dtype=np.float32)
    for column, row in terms:
        _correlate_rows(weighted, row, rows)
        _add_correlated_columns(rows, column, numerator)
    information = np.zeros(image.shape, dtype=np.float32)
    for a, (column_a, row_a) in enumerate(terms):
        for b, (column_b, row_b) in enumerate(terms[: a + 1]):
            twice = np.float32(1.0 if a == b else 2.0)
            _correlate_rows(weight, row_a * row_b, rows)
            _add_correlated_columns(rows, twice * column_a * column_b, information)
    return _normalised(numerator, information), information


@njit(cache=True, error_model="numpy")
def _weighted(
    image: Float32Image, variance: Float32Image, is_masked: NDArray[np.bool_]
) -> tuple[Float32Image, Float32Image]:
    weighted, weight = np.zeros(image.shape, np.float32), np.zeros(image.shape, np.float32)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            v, d = variance[y, x], image[y, x]
            if not is_masked[y, x] and v > 0 and np.isfinite(v) and np.isfinite(d):
                weight[y, x] = 1 / v
                weighted[y, x] = d / v
    return weighted, weight


@njit(cache=True, error_model="numpy")
def _correlate_rows(source: Float32Image, taps: NDArray[np.float32], out: Float32Image) -> None:
    ny, nx = source.shape
    half = taps.size // 2
    padded = np.zeros(nx + 2 * half, np.float32)
    for y in range(ny):
        padded[half : half + nx] = source[y]
        row = out[y]
        row[:] = 0
        for k in range(taps.size):
            w, line = taps[k], padded[k : k + nx]
            for x in range(nx):
                row[x] += w * line[x]


@njit(cache=True, error_model="numpy")
def _add_correlated_columns(source: Float32Image, taps: NDArray[np.float32], out: Float32Image) -> None:
    ny, nx = source.shape
    half = taps.size // 2
    for y in range(ny):
        row = out[y]
        for k in range(max(0, half - y), min(taps.size, ny + half - y)):
            w, line = taps[k], source[y + k - half]
            for x in range(nx):
                row[x] += w * line[x]


@njit(cache=True, error_model="numpy")
def _normalised(numerator: Float32Image, information: Float32Image) -> Float32Image:
    score = np.zeros(numerator.shape, np.float32)
    for y in range(numerator.shape[0]):
        for x in range(numerator.shape[1]):
            w = information[y, x]
            if w > 0:
                score[y, x] = numerator[y, x] / np.sqrt(w)
            else:
                information[y, x] = 0
    return score
