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


class Subtracted(NamedTuple):
    """What has been subtracted from an image that is filtered: its own noise counts too."""

    original: Float32Image
    """The image before models were subtracted."""
    slope: float
    """Variance per unit of the models' signal."""
    model_error: float
    """Error of the models, as a fraction of them at each pixel."""


def matched_filter(
    image: Float32Image,
    variance: Float32Image,
    is_masked: NDArray[np.bool_],
    kernels: NDArray[np.float32],
    *,
    subtracted: Subtracted | None = None,
) -> FilteredImage:
    """Return ``sum(d p / v) / sqrt(sum(p**2 / v))`` at every pixel, d the data and p the PSF centred there.

    Masked pixels (and those whose variance is not a positive number) have no weight. ``kernels`` is one PSF
    stamp ``[k, k]`` (odd side, sum one), or ``[rows, columns, k, k]``: a grid of stamps for as many equal tiles of
    the image. Each is cut to its leading separable terms, which keeps the score's variance at one exactly. With
    ``subtracted``, the noise of the models that have been subtracted from ``image`` is added to ``variance``.
    """
    information = np.empty(image.shape, np.float32)
    return FilteredImage(_filtered(image, variance, is_masked, kernels, subtracted, information), information)


def matched_score(
    image: Float32Image,
    variance: Float32Image,
    is_masked: NDArray[np.bool_],
    kernels: NDArray[np.float32],
    *,
    subtracted: Subtracted | None = None,
) -> Float32Image:
    """Return the score of `matched_filter` alone, for those who ask for no flux."""
    return _filtered(image, variance, is_masked, kernels, subtracted, np.empty((0, 0), np.float32))


def _filtered(
    image: Float32Image,
    variance: Float32Image,
    is_masked: NDArray[np.bool_],
    kernels: NDArray[np.float32],
    subtracted: Subtracted | None,
    information: Float32Image,
) -> Float32Image:
    """Return the score and fill ``information``, unless that is of size 0."""
    grid = kernels[None, None] if kernels.ndim == 2 else kernels
    (ny, nx), score = image.shape, np.empty(image.shape, np.float32)
    edges_y = np.linspace(0, ny, grid.shape[0] + 1).astype(int)
    edges_x = np.linspace(0, nx, grid.shape[1] + 1).astype(int)
    original, slope, error = subtracted or (np.zeros((0, 0), np.float32), 0.0, 0.0)
    for j in range(grid.shape[0]):
        for i in range(grid.shape[1]):
            tile = (edges_y[j], edges_y[j + 1], edges_x[i], edges_x[i + 1])
            pairs = _pairs_of_terms(separable_terms(grid[j, i]))
            _filter_tile(
                image, variance, is_masked, original, np.float32(slope), np.float32(error),
                *pairs, tile, score, information,
            )  # fmt: skip
    return score


def separable_terms(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``[rank, 2, k]``: column and row factors whose outer products sum to (nearly all of) the kernel."""
    u, s, vt = np.linalg.svd(kernel.astype(np.float64))
    energy = np.cumsum(s**2) / np.sum(s**2)
    rank = int(np.searchsorted(energy, ENERGY_KEPT)) + 1
    root = np.sqrt(s[:rank])
    return np.asarray(np.stack([u[:, :rank].T * root[:, None], vt[:rank] * root[:, None]], axis=1), dtype=np.float32)


def _pairs_of_terms(terms: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return separable terms of the kernel and of its square, each ``[n, 2, k]``."""
    square = [
        ((1.0 if a == b else 2.0) * terms[a, 0] * terms[b, 0], terms[a, 1] * terms[b, 1])
        for a in range(len(terms))
        for b in range(a + 1)
    ]
    return terms, np.asarray(square, dtype=np.float32)


@njit(cache=True, error_model="numpy")
def _filter_tile(
    image: Float32Image,
    variance: Float32Image,
    is_masked: NDArray[np.bool_],
    original: Float32Image,
    slope: float,
    model_error: float,
    terms: NDArray[np.float32],
    squares: NDArray[np.float32],
    tile: tuple[int, int, int, int],
    score: Float32Image,
    information: Float32Image,
) -> None:
    """Fill a tile of ``score`` and (unless it is of size 0) ``information``.

    Rows stream through a ring of as many rows as the kernel is high, so that all but the images stays in the cache.
    """
    y0, y1, x0, x1 = tile
    width, side, half = x1 - x0, terms.shape[2], terms.shape[2] // 2
    weighted, weight = np.zeros(width + 2 * half, np.float32), np.zeros(width + 2 * half, np.float32)
    ring = np.zeros((len(terms), side, width), np.float32)
    ring_of_squares = np.zeros((len(squares), side, width), np.float32)
    line = np.empty(width, np.float32)
    for y in range(y0 - half, y1 + half):
        slot = (y - y0 + half) % side
        if 0 <= y < image.shape[0]:
            a, b = max(x0 - half, 0), min(x1 + half, image.shape[1])
            into = slice(a - x0 + half, b - x0 + half)
            _variance_row(variance[y, a:b], original, image[y, a:b], y, a, slope, model_error, weight[into])
            _weigh_row(image[y, a:b], is_masked[y, a:b], weighted[into], weight[into])
        else:
            weighted[:], weight[:] = 0, 0
        for t in range(len(terms)):
            _correlate_row(weighted, terms[t, 1], ring[t, slot])
        for t in range(len(squares)):
            _correlate_row(weight, squares[t, 1], ring_of_squares[t, slot])
        if y >= y0 + half:
            out = y - half
            _correlate_columns(ring, terms, slot, score[out, x0:x1])
            known = information[out, x0:x1] if information.size > 0 else line
            _correlate_columns(ring_of_squares, squares, slot, known)
            _normalise_row(score[out, x0:x1], known)


@njit(cache=True, error_model="numpy")
def _variance_row(
    sky: NDArray[np.float32],
    original: Float32Image,
    residual: NDArray[np.float32],
    y: int,
    x: int,
    slope: float,
    model_error: float,
    out: NDArray[np.float32],
) -> None:
    """Write the variance, that of subtracted models included (``original`` of size 0: none were)."""
    if original.size == 0:
        out[:] = sky
        return
    before = original[y, x : x + sky.size]
    for k in range(sky.size):
        model = before[k] - residual[k]
        error = model_error * model
        out[k] = sky[k] + slope * max(model, np.float32(0)) + error * error


@njit(cache=True, error_model="numpy")
def _weigh_row(
    data: NDArray[np.float32],
    is_masked: NDArray[np.bool_],
    weighted: NDArray[np.float32],
    weight: NDArray[np.float32],
) -> None:
    """Turn a row of variances in ``weight`` into inverse variances, and write data over variance."""
    zero, infinite = np.float32(0), np.float32(np.inf)
    for x in range(data.size):
        v, d = weight[x], data[x]
        is_good = (not is_masked[x]) & (v > zero) & (v < infinite) & (abs(d) < infinite)
        w = np.float32(1) / (v if is_good else infinite)
        weight[x] = w
        weighted[x] = w * (d if is_good else zero)


@njit(cache=True, error_model="numpy")
def _correlate_row(padded: NDArray[np.float32], taps: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    n = out.size
    w, line = taps[0], padded[:n]
    for x in range(n):
        out[x] = w * line[x]
    for k in range(1, taps.size, 2):
        w, v, line, after = taps[k], taps[k + 1], padded[k : k + n], padded[k + 1 : k + 1 + n]
        for x in range(n):
            out[x] += w * line[x] + v * after[x]


@njit(cache=True, error_model="numpy")
def _correlate_columns(
    ring: NDArray[np.float32], terms: NDArray[np.float32], newest: int, out: NDArray[np.float32]
) -> None:
    """Sum the rows of the ring with the terms' column factors; the last tap belongs to the ``newest`` row."""
    out[:] = 0
    side = terms.shape[2]
    for t in range(len(terms)):
        taps = terms[t, 0]
        for k in range(0, side - 1, 2):
            w, v = taps[k], taps[k + 1]
            line, after = ring[t, (newest + 1 + k) % side], ring[t, (newest + 2 + k) % side]
            for x in range(out.size):
                out[x] += w * line[x] + v * after[x]
        w, line = taps[side - 1], ring[t, newest]
        for x in range(out.size):
            out[x] += w * line[x]


@njit(cache=True, error_model="numpy")
def _normalise_row(score: NDArray[np.float32], information: NDArray[np.float32]) -> None:
    zero = np.float32(0)
    for x in range(score.size):
        w = max(information[x], zero)
        information[x] = w
        score[x] = score[x] / np.sqrt(w) if w > zero else zero
