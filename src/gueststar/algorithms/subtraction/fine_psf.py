"""PSF stamps resampled finely, so that a model at any sub-pixel place costs a few multiplications."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import fft

FACTOR = 4
"""Fine samples per pixel: cubic interpolation is then good to 0.1 % of the peak at FWHM 1.7 pixels."""


class FinePsf(NamedTuple):
    """Finely sampled PSF stamps on a grid of cells that tile the image."""

    stamps: NDArray[np.float32]
    """``[n_cells_y, n_cells_x, m, m]``: values of the pixel-integrated PSF every 1 / FACTOR pixel, centred."""
    cell: tuple[float, float]
    """(height, width) of a cell, pixels."""
    half: int
    """Largest half-side of a rendered stamp, pixels."""


def cell_centres(shape: tuple[int, int], n_cells: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (x, y) of the centres of a grid of cells, row after row."""
    height, width = shape[0] / n_cells[0], shape[1] / n_cells[1]
    x, y = np.meshgrid((np.arange(n_cells[1]) + 0.5) * width - 0.5, (np.arange(n_cells[0]) + 0.5) * height - 0.5)
    return x.ravel(), y.ravel()


def make_fine_psf(stamps: NDArray[np.float32], shape: tuple[int, int], n_cells: tuple[int, int]) -> FinePsf:
    """Return finely sampled versions of ``stamps`` ``[n, k, k]``, given at `cell_centres`."""
    k = stamps.shape[1]
    half = k // 2
    size = fft.next_fast_len(k + 4, real=True)
    size += 1 - size % 2
    margin = (size - k) // 2
    padded = np.pad(stamps.astype(np.float32), ((0, 0), (margin, size - k - margin), (margin, size - k - margin)))
    fine = _upsample(padded)
    # Sample s of the fine stamp lies at s / FACTOR pixels from the padded stamp's first pixel.
    middle = (margin + half) * FACTOR
    reach = min((half + 1) * FACTOR + 2, middle, fine.shape[1] - 1 - middle)
    fine = fine[:, middle - reach : middle + reach + 1, middle - reach : middle + reach + 1]
    cells = fine.reshape(n_cells[0], n_cells[1], *fine.shape[1:])
    return FinePsf(
        np.ascontiguousarray(cells, dtype=np.float32), (shape[0] / n_cells[0], shape[1] / n_cells[1]), half - 1
    )


def fine_psf_from_phases(stamps: NDArray[np.float32], shape: tuple[int, int], n_cells: tuple[int, int]) -> FinePsf:
    """Return finely sampled stamps from those of a star at every phase, ``[FACTOR, FACTOR, n, k, k]``.

    ``stamps[b, a]`` are image samples of a star centred (a, b) / FACTOR pixels from the middle. Nothing is assumed of
    the sampling: where pixels are too coarse for the seeing, samples at one phase do not tell those at another.
    """
    fine = interleaved(stamps)
    cells = fine.reshape(n_cells[0], n_cells[1], *fine.shape[1:])
    return FinePsf(
        np.ascontiguousarray(cells, dtype=np.float32),
        (shape[0] / n_cells[0], shape[1] / n_cells[1]), stamps.shape[-1] // 2 - 1,
    )  # fmt: skip


def interleaved(stamps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``[n, m, m]`` samples every 1 / f pixel from image samples ``[f, f, n, k, k]`` at f x f phases.

    ``stamps[b, a]`` are of a star centred (a, b) / f pixels from the middle; k is odd, and m = f (k - 1) + 1.
    """
    f, _, n, k, _ = stamps.shape
    side = f * (k - 1) + 1
    out = np.zeros((n, side, side), np.float32)
    for b in range(f):
        for a in range(f):
            first_y, first_x = int(b > 0), int(a > 0)  # the first sample of a shifted star lies outside
            out[:, f * first_y - b :: f, f * first_x - a :: f] = stamps[b, a][:, first_y:, first_x:]
    return out


def stamp_of(psf: FinePsf, *, x: float, y: float) -> NDArray[np.float32]:
    """Return the fine stamp of the cell that holds (x, y), a view.

    Outside of compiled code this one is for: numba cannot always hand out the array of a function that was loaded
    from its cache as a part of other functions before.
    """
    return np.asarray(stamp_at.py_func(psf.stamps, psf.cell[0], psf.cell[1], x, y))


def _upsample(stamps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return band-limited interpolation by FACTOR of odd-sided periodic stamps."""
    k = stamps.shape[1]
    spectrum = fft.fftshift(fft.fft2(stamps), axes=(1, 2))
    # The zero frequency must stay at index size // 2.
    before = FACTOR * k // 2 - k // 2
    after = FACTOR * k - k - before
    wide = np.pad(spectrum, ((0, 0), (before, after), (before, after)))
    return np.asarray(fft.ifft2(fft.ifftshift(wide, axes=(1, 2))).real * FACTOR**2, dtype=np.float32)


@njit(cache=True)
def stamp_at(stamps, cell_y, cell_x, x, y):  # type: ignore[no-untyped-def]
    """Return the fine stamp of the cell that holds (x, y)."""
    j = min(max(int((y + 0.5) / cell_y), 0), stamps.shape[0] - 1)
    i = min(max(int((x + 0.5) / cell_x), 0), stamps.shape[1] - 1)
    return stamps[j, i]


@njit(cache=True)
def _weights(t, w, d):  # type: ignore[no-untyped-def]
    """Cubic Lagrange weights (and their derivatives) of samples at -1, 0, 1, 2 for the place t."""
    w[0], w[1] = -t * (t - 1) * (t - 2) / 6, (t + 1) * (t - 1) * (t - 2) / 2
    w[2], w[3] = -(t + 1) * t * (t - 2) / 2, (t + 1) * t * (t - 1) / 6
    d[0], d[1] = -(3 * t * t - 6 * t + 2) / 6, (3 * t * t - 4 * t - 1) / 2
    d[2], d[3] = -(3 * t * t - 2 * t - 2) / 2, (3 * t * t - 1) / 6


@njit(cache=True)
def render(fine, dx, dy, half, value, grad_x, grad_y):  # type: ignore[no-untyped-def]
    """Fill ``[2 half + 1] * 2`` arrays with the PSF centred (dx, dy) from the middle, and its derivatives.

    The derivatives are with respect to dx and dy. Outside of the fine stamp all are zero.
    """
    wx, wy, ddx, ddy = np.empty(4), np.empty(4), np.empty(4), np.empty(4)
    middle, m = fine.shape[0] // 2, fine.shape[0]
    px, py = middle - dx * FACTOR, middle - dy * FACTOR
    ix, iy = int(np.floor(px)), int(np.floor(py))
    _weights(px - ix, wx, ddx)
    _weights(py - iy, wy, ddy)
    for j in range(2 * half + 1):
        b0 = iy + (j - half) * FACTOR - 1
        for i in range(2 * half + 1):
            a0 = ix + (i - half) * FACTOR - 1
            v = gx = gy = 0.0
            if b0 >= 0 and a0 >= 0 and b0 + 3 < m and a0 + 3 < m:
                for b in range(4):
                    row = rowd = 0.0
                    for a in range(4):
                        row += wx[a] * fine[b0 + b, a0 + a]
                        rowd += ddx[a] * fine[b0 + b, a0 + a]
                    v += wy[b] * row
                    gx += wy[b] * rowd
                    gy += ddy[b] * row
            value[j, i], grad_x[j, i], grad_y[j, i] = v, -gx * FACTOR, -gy * FACTOR


@njit(cache=True)
def render_value(fine, dx, dy, half, value):  # type: ignore[no-untyped-def]
    """Fill a ``[2 half + 1] * 2`` array with the PSF centred (dx, dy) from the middle; zero outside of the stamp."""
    value[:] = 0.0
    add_value(fine, dx, dy, half, 2 * half + 1, 1.0, value)


@njit(cache=True)
def add_value(fine, dx, dy, half, reach, factor, value):  # type: ignore[no-untyped-def]
    """Add ``factor`` times the PSF centred (dx, dy) from the middle, within ``reach`` pixels of its centre."""
    wx, wy, d = np.empty(4), np.empty(4), np.empty(4)
    middle, m = fine.shape[0] // 2, fine.shape[0]
    px, py = middle - dx * FACTOR, middle - dy * FACTOR
    ix, iy = int(np.floor(px)), int(np.floor(py))
    _weights(px - ix, wx, d)
    _weights(py - iy, wy, d)
    x0, y0 = int(np.rint(dx)), int(np.rint(dy))
    for j in range(max(y0 - reach, -half), min(y0 + reach, half) + 1):
        b0 = iy + j * FACTOR - 1
        if b0 < 0 or b0 + 3 >= m:
            continue
        for i in range(max(x0 - reach, -half), min(x0 + reach, half) + 1):
            a0 = ix + i * FACTOR - 1
            if a0 < 0 or a0 + 3 >= m:
                continue
            v = 0.0
            for b in range(4):
                row = fine[b0 + b]
                v += wy[b] * (wx[0] * row[a0] + wx[1] * row[a0 + 1] + wx[2] * row[a0 + 2] + wx[3] * row[a0 + 3])
            value[j + half, i + half] += factor * v
