"""Kernels that give an image another PSF."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.linalg import solve

Floats = NDArray[np.float64]
Stamps = NDArray[np.float32]


def matching_kernels(own: Stamps, wanted: Stamps, *, half: int, regularisation: float = 1e-4) -> Stamps:
    """Return ``[n, 2 half + 1, 2 half + 1]`` kernels that turn the PSFs ``own`` into the PSFs ``wanted``.

    Stamps are ``[n, k, k]``, centred, of unit sum; kernels are applied as correlations:
    ``out[y, x] = sum(kernel[half + j, half + i] * image[y + j, x + i])``. Each is the least-squares solution over the
    stamp with one free number a pixel (the delta basis of Bramich 2008, MNRAS 386, L77), with a ridge of
    ``regularisation`` times the own PSF's power towards the kernel that changes nothing, and unit sum.
    """
    side = 2 * half + 1
    identity = np.zeros(side * side)
    identity[side * side // 2] = 1.0
    kernels = np.empty((own.shape[0], side, side), np.float32)
    for n, (first, second) in enumerate(zip(own.astype(np.float64), wanted.astype(np.float64), strict=True)):
        design = _shifted(first, half)
        normal = design @ design.T
        normal[np.diag_indices_from(normal)] += regularisation * float((first**2).sum())
        wish = design @ (second - first).ravel()
        change = solve(normal, wish, assume_a="pos")
        kernel = identity + change
        kernels[n] = (kernel / kernel.sum()).reshape(side, side)
    return kernels


def apply_kernels(
    image: Stamps, kernels: NDArray[np.float32], *, cell: tuple[float, float], first_row: int = 0
) -> Stamps:
    """Return ``image`` correlated with kernels ``[ny, nx, k, k]`` at the centres of cells of (height, width) pixels.

    Kernels are interpolated between the centres. Beyond the image its edge goes on. ``first_row`` is the row of the
    grid of cells that is the image's first row.
    """
    half = kernels.shape[2] // 2
    padded = np.pad(image, half, mode="edge")
    out = np.empty(image.shape, np.float32)
    _apply_kernels(padded, kernels, (float(cell[0]), float(cell[1])), first_row, out)
    return out


def autocorrelation(kernel: Floats, reach: int) -> Floats:
    """Return the sums of a kernel's products with itself at lags up to ``reach``, ``[2 reach + 1, 2 reach + 1]``."""
    padded = np.pad(kernel, reach)
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape)
    return np.asarray(np.tensordot(windows, kernel, axes=2))


_BLOCK = 16
"""Pixels over which one interpolated kernel is used."""


@njit(cache=True, fastmath={"reassoc", "contract", "nsz"})
def _apply_kernels(padded, kernels, cell, first, out):  # type: ignore[no-untyped-def]
    ny, nx = out.shape
    n_y, n_x, side, _ = kernels.shape
    for top in range(0, ny, _BLOCK):
        v = min(max((first + top + 0.5 * _BLOCK) / cell[0] - 0.5, 0.0), n_y - 1.0)
        j0 = min(int(v), n_y - 1)
        j1, dv = min(j0 + 1, n_y - 1), np.float32(v - j0)
        for left in range(0, nx, _BLOCK):
            u = min(max((left + 0.5 * _BLOCK) / cell[1] - 0.5, 0.0), n_x - 1.0)
            i0 = min(int(u), n_x - 1)
            i1, du = min(i0 + 1, n_x - 1), np.float32(u - i0)
            one = np.float32(1.0)
            kernel = (one - dv) * ((one - du) * kernels[j0, i0] + du * kernels[j0, i1]) + dv * (
                (one - du) * kernels[j1, i0] + du * kernels[j1, i1]
            )
            right = min(left + _BLOCK, nx)
            for y in range(top, min(top + _BLOCK, ny)):
                for x in range(left, right):
                    out[y, x] = np.float32(0)
                for j in range(side):
                    row = padded[y + j]
                    for i in range(side):
                        weight = kernel[j, i]
                        for x in range(left, right):
                            out[y, x] += weight * row[x + i]


def mismatch_of(kernels: Stamps) -> Floats:
    """Return ``[n]`` by how much kernels differ from the one that changes nothing: the sum of absolute differences."""
    half = kernels.shape[-1] // 2
    change = np.abs(kernels.astype(np.float64))
    change[..., half, half] = np.abs(kernels[..., half, half] - 1.0)
    return np.asarray(change.sum(axis=(-2, -1)))


def nyquist_transform(stamps: Stamps) -> float:
    """Return the mean absolute Fourier transform of centred stamps ``[n, k, k]`` at an axis' Nyquist frequency."""
    sign = (-1.0) ** np.arange(stamps.shape[-1])
    along = [np.abs(stamps.sum(axis=axis) @ sign) for axis in (1, 2)]
    return float(np.mean(along))


def _shifted(stamp: Floats, half: int) -> Floats:
    """Return ``[(2 half + 1)**2, k * k]``: the stamp as each pixel of a kernel would place it."""
    k = stamp.shape[0]
    padded = np.pad(stamp, half)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k))
    return windows.reshape((2 * half + 1) ** 2, k * k)
