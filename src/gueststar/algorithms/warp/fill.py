"""Fill masked pixels from what lies about them."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Float32Image = NDArray[np.float32]
Bools = NDArray[np.bool_]


def fill_masked(image: Float32Image, bad: Bools) -> Float32Image:
    """Return a copy of ``image`` whose ``bad`` pixels are filled smoothly from their surroundings.

    Push-pull (Gortler et al. 1996, SIGGRAPH): means over ever larger blocks of good pixels, brought back
    down by bilinear interpolation, so that a hole of any size costs the same. Zero if nothing is good.
    """
    levels: list[tuple[Float32Image, Float32Image]] = []
    value = np.where(bad, np.float32(0), image).astype(np.float32)
    weight = (~bad).astype(np.float32)
    if weight.all():
        return value
    while min(value.shape) > 1 and not _is_filled(weight):
        levels.append((value, weight))
        value, weight = _halve(value, weight)
    for fine, fine_weight in reversed(levels):
        value = _pull(fine, fine_weight, value)
    return value


def _is_filled(weight: Float32Image) -> bool:
    return bool(weight.min() >= 1.0)


@njit(cache=True)
def _halve(value: Float32Image, weight: Float32Image) -> tuple[Float32Image, Float32Image]:
    ny, nx = (value.shape[0] + 1) // 2, (value.shape[1] + 1) // 2
    out, out_weight = np.zeros((ny, nx), np.float32), np.zeros((ny, nx), np.float32)
    for j in range(ny):
        for i in range(nx):
            total = np.float32(0)
            n = np.float32(0)
            for b in range(2 * j, min(2 * j + 2, value.shape[0])):
                for a in range(2 * i, min(2 * i + 2, value.shape[1])):
                    total += weight[b, a] * value[b, a]
                    n += weight[b, a]
            if n > 0:
                out[j, i] = total / n
                out_weight[j, i] = min(np.float32(1), n)
    return out, out_weight


@njit(cache=True)
def _pull(value: Float32Image, weight: Float32Image, coarse: Float32Image) -> Float32Image:
    ny, nx = value.shape
    cy, cx = coarse.shape
    out = value.copy()
    for j in range(ny):
        for i in range(nx):
            w = weight[j, i]
            if w >= 1:
                continue
            y, x = 0.5 * j - 0.25, 0.5 * i - 0.25
            y, x = min(max(y, 0.0), cy - 1.0), min(max(x, 0.0), cx - 1.0)
            b, a = min(int(y), max(cy - 2, 0)), min(int(x), max(cx - 2, 0))
            ty, tx = np.float32(y - b), np.float32(x - a)
            b1, a1 = min(b + 1, cy - 1), min(a + 1, cx - 1)
            low = (1 - tx) * coarse[b, a] + tx * coarse[b, a1]
            high = (1 - tx) * coarse[b1, a] + tx * coarse[b1, a1]
            out[j, i] = w * value[j, i] + (1 - w) * ((1 - ty) * low + ty * high)
    return out
