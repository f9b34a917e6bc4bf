"""Where a flat is evenly lit, and its mean level there."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.stats.robust import clipped_mean

Image = NDArray[np.float32]


class BlockLevels(NamedTuple):
    """Mean levels of blocks of pixels."""

    mean: NDArray[np.float64]
    """``[y, x]``; NaN where too few pixels are finite."""
    n: NDArray[np.int64]
    """Pixels in each mean."""


def block_levels(image: Image, *, block: int = 32) -> BlockLevels:
    """Return the clipped means of blocks; NaN where more than a fiftieth of the pixels is not finite (saturated)."""
    ny, nx = max(1, image.shape[0] // block), max(1, image.shape[1] // block)
    mean, n = np.full((ny, nx), math.nan), np.zeros((ny, nx), np.int64)
    for j in range(ny):
        for i in range(nx):
            part = image[j * block : (j + 1) * block, i * block : (i + 1) * block]
            if np.isfinite(part).mean() > 0.98:
                found = clipped_mean(part, n_sigma=5.0)
                mean[j, i], n[j, i] = found.mean, found.n
    return BlockLevels(mean, n)


def even_blocks(image: Image, *, block: int = 32, tolerance: float = 0.1) -> NDArray[np.bool_]:
    """Return the blocks whose level is within a fraction ``tolerance`` of the median block's; all if none is lit."""
    mean = block_levels(image, block=block).mean
    if not np.isfinite(mean).any():
        return np.ones(mean.shape, bool)
    typical = float(np.nanmedian(mean))
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(mean - typical) <= tolerance * abs(typical))


def spread_blocks(blocks: NDArray[np.bool_], shape: tuple[int, ...], *, block: int = 32) -> NDArray[np.bool_]:
    """Return the pixels of an image of ``shape`` that lie in the chosen blocks; a remainder at the end does not."""
    pixels = np.zeros(shape, bool)
    grown = np.repeat(np.repeat(blocks, block, axis=0), block, axis=1)[: shape[0], : shape[1]]
    pixels[: grown.shape[0], : grown.shape[1]] = grown
    return pixels


def level_in(image: Image, blocks: NDArray[np.bool_], *, block: int = 32) -> tuple[float, int]:
    """Return the mean level over the chosen blocks and the number of pixels; NaN where a fifth of them is unusable."""
    found = block_levels(image, block=block)
    is_used = blocks & np.isfinite(found.mean)
    if not is_used.any() or is_used.sum() < 0.8 * blocks.sum():
        return math.nan, 0
    weight = found.n[is_used]
    # Blocks that are missing in one flat must not shift its level against the others': only few may be.
    return float(np.sum(weight * found.mean[is_used]) / weight.sum()), int(weight.sum())
