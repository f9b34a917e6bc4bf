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
    out = np.array(image, dtype=np.float32, order="C")
    fill_masked_in_place(out, bad)
    return out


def fill_masked_in_place(out: Float32Image, bad: Bools) -> None:
    """Fill the ``bad`` pixels of an image as `fill_masked` does."""
    if not bad.any():
        return
    levels = [_halve(out, bad)]
    while min(levels[-1][0].shape) > 1 and levels[-1][1].any():
        levels.append(_halve(*levels[-1]))
    for (fine, holes), (coarse, _) in zip(levels[-2::-1], levels[:0:-1], strict=True):
        _pull(fine, holes, coarse)
    _pull(out, bad, levels[0][0])


@njit(cache=True)
def _halve(value: Float32Image, bad: Bools) -> tuple[Float32Image, Bools]:
    """Return means of the good pixels of 2 x 2 blocks, and the blocks that have none."""
    height, width = value.shape
    ny, nx = (height + 1) // 2, (width + 1) // 2
    out, empty = np.zeros((ny, nx), np.float32), np.zeros((ny, nx), np.bool_)
    for j in range(ny):
        for i in range(nx):
            b, a = 2 * j, 2 * i
            b1, a1 = min(b + 1, height - 1), min(a + 1, width - 1)
            if not (bad[b, a] or bad[b, a1] or bad[b1, a] or bad[b1, a1]):
                out[j, i] = np.float32(0.25) * (value[b, a] + value[b, a1] + value[b1, a] + value[b1, a1])
                continue
            total, n = np.float32(0), 0
            for y, x in ((b, a), (b, a1), (b1, a), (b1, a1)):
                if not bad[y, x]:
                    total += value[y, x]
                    n += 1
            if n:
                out[j, i] = total / n
            empty[j, i] = n == 0
    return out, empty


@njit(cache=True)
def _pull(value: Float32Image, bad: Bools, coarse: Float32Image) -> None:
    """Write bilinear interpolation of the coarser level into the bad pixels of ``value``."""
    ny, nx = value.shape
    cy, cx = coarse.shape
    for j in range(ny):
        for i in range(nx):
            if not bad[j, i]:
                continue
            y, x = min(max(0.5 * j - 0.25, 0.0), cy - 1.0), min(max(0.5 * i - 0.25, 0.0), cx - 1.0)
            b, a = int(y), int(x)
            ty, tx = np.float32(y - b), np.float32(x - a)
            b1, a1 = min(b + 1, cy - 1), min(a + 1, cx - 1)
            low = (1 - tx) * coarse[b, a] + tx * coarse[b, a1]
            high = (1 - tx) * coarse[b1, a] + tx * coarse[b1, a1]
            value[j, i] = (1 - ty) * low + ty * high
