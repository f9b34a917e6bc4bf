"""Kernels that give an image another PSF."""

from __future__ import annotations

import numpy as np
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
