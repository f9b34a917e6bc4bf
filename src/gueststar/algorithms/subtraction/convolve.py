"""Convolve with small kernels, directly: as a sum of a few products of a column and a row.

Squares of matched filters and Gaussians are nearly such products, or are such, and reach a few pixels only: to add
these up costs a third of a Fourier transform there and back, whose rounding would scatter what the brightest stars have
over all pixels.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Float32Image = NDArray[np.float32]

_AT_ONCE = 6
"""Taps that are added in one go; kernels are filled with zeros to a multiple of it."""


class SeparableKernel(NamedTuple):
    """A kernel as a sum of products; taps are in the order in which they meet the image (mirrored)."""

    columns: Float32Image
    """``[rank, m]``, the last few of ``m`` zero."""
    rows: Float32Image
    """``[rank, m]``."""
    half: int
    """Pixels from the middle to the last tap that is not zero."""

    @property
    def total(self) -> float:
        """Sum of the kernel."""
        return float(np.sum(self.columns.sum(axis=1) * self.rows.sum(axis=1)))


def separated(kernel: Float32Image, *, tolerance: float = 1e-3, outside: float = 1e-4) -> SeparableKernel:
    """Return an odd-sided kernel as a sum of products that is right to ``tolerance`` of its peak, with its very sum.

    The kernel is cut to the square about its middle that leaves the part ``outside`` of its sum beyond.
    """
    c = kernel.shape[0] // 2
    full = kernel.astype(np.float64)
    off = np.abs(np.arange(-c, c + 1))
    far = np.maximum.outer(off, off)
    within = np.cumsum(np.bincount(far.ravel(), np.abs(full).ravel()))
    half = int(np.argmax(within >= (1.0 - outside) * within[-1]))
    cut = full[c - half : c + half + 1, c - half : c + half + 1]
    columns, weights, rows = np.linalg.svd(cut)
    columns = columns.T * weights[:, None]
    rest, rank = cut, 0
    while rank < len(cut) and np.abs(rest).max() > tolerance * np.abs(cut).max():
        rest = rest - np.outer(columns[rank], rows[rank])
        rank += 1
    columns, rows = columns[: max(rank, 1)], rows[: max(rank, 1)]
    columns *= full.sum() / np.sum(columns.sum(axis=1) * rows.sum(axis=1))
    return SeparableKernel(_taps(columns), _taps(rows), half)


@lru_cache(maxsize=32)
def gaussian(sigma: float, power: float, longest: int) -> SeparableKernel:
    """Return a Gaussian of the sum ``power``, four ``sigma`` (pixels) or ``longest`` pixels to each side."""
    half = min(int(np.ceil(4.0 * sigma)), longest)
    g = np.arange(-half, half + 1)
    profile = np.exp(-0.5 * (g / sigma) ** 2) if sigma > 0 else np.ones(1)
    profile /= profile.sum()
    return SeparableKernel(_taps(power * profile[None]), _taps(profile[None]), half)


def add_convolved_in_place(
    out: Float32Image, image: Float32Image, kernel: SeparableKernel, corner: tuple[int, int]
) -> None:
    """Add to ``out`` the part of the convolved image that begins at ``corner`` (y, x).

    The image must reach ``kernel.half`` pixels beyond that part on all sides.
    """
    n_taps, reach = kernel.columns.shape[1], 2 * kernel.half + 1
    # Taps in excess of the kernel are zero: above the line they meet its last row again, behind it zeros.
    line, below = np.zeros(out.shape[1] + n_taps, np.float32), np.minimum(np.arange(n_taps), reach - 1)
    _add_convolved(out, image, kernel.columns, kernel.rows, kernel.half, *corner, line, below)


def _taps(values: NDArray[np.float64]) -> Float32Image:
    rank, n = values.shape
    taps = np.zeros((rank, n + -n % _AT_ONCE), np.float32)
    taps[:, :n] = values[:, ::-1]
    return taps


@njit(cache=True, error_model="numpy", _nrt=False)
def _add_convolved(out, image, columns, rows, half, y0, x0, line, below):  # type: ignore[no-untyped-def]
    """Add up products, one row of ``out`` after the other; compiled without reference counts, see `psf.newton`."""
    width = out.shape[1]
    inner = line[: width + 2 * half]
    left, right = x0 - half, x0 + half + width
    for y in range(out.shape[0]):
        top = y0 - half + y
        for m in range(columns.shape[0]):
            inner[:] = 0
            for k in range(0, below.size, _AT_ONCE):
                j = below[k : k + _AT_ONCE]
                _add_six(
                    inner, columns[m, k : k + _AT_ONCE],
                    image[top + j[0], left:right], image[top + j[1], left:right], image[top + j[2], left:right],
                    image[top + j[3], left:right], image[top + j[4], left:right], image[top + j[5], left:right],
                )  # fmt: skip
            for k in range(0, below.size, _AT_ONCE):
                end = k + width
                _add_six(
                    out[y], rows[m, k : k + _AT_ONCE],
                    line[k:end], line[k + 1 : end + 1], line[k + 2 : end + 2],
                    line[k + 3 : end + 3], line[k + 4 : end + 4], line[k + 5 : end + 5],
                )  # fmt: skip


@njit(cache=True, fastmath={"contract"}, error_model="numpy", _nrt=False)
def _add_six(out, weights, a, b, c, d, e, f):  # type: ignore[no-untyped-def]
    w0, w1, w2, w3, w4, w5 = weights[0], weights[1], weights[2], weights[3], weights[4], weights[5]
    for x in range(out.size):
        out[x] += ((w0 * a[x] + w1 * b[x]) + (w2 * c[x] + w3 * d[x])) + (w4 * e[x] + w5 * f[x])
