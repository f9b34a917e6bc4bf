"""How one calibration master differs from the one before."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.stats.robust import clipped_mean, median_and_sigma


class MasterChange(NamedTuple):
    """Difference (bias, dark) or ratio less one (flat) of a new master and an old one."""

    level: float
    """Median of the change."""
    structure: float
    """Scatter of the change between blocks, after the median is taken out: what changed on large scales."""
    pixel: float
    """Scatter of the change between pixels, beyond what the variances of the two explain."""


def compare_masters(
    new: NDArray[np.float32],
    old: NDArray[np.float32],
    *,
    new_variance: NDArray[np.float32],
    old_variance: NDArray[np.float32],
    is_masked: NDArray[np.bool_],
    is_ratio: bool,
    block: int = 64,
) -> MasterChange:
    """Measure the change between two masters of equal shape over the pixels good in both.

    All values are NaN when fewer than a hundred pixels are good.
    """
    is_good = ~is_masked & np.isfinite(new) & np.isfinite(old)
    if is_ratio:
        is_good &= (new > 0) & (old > 0)
    if is_good.sum() < 100:
        return MasterChange(math.nan, math.nan, math.nan)
    safe_old = np.where(is_good, old, 1.0)
    change = np.where(is_good, new / safe_old - 1.0 if is_ratio else new - old, np.nan)
    expected = new_variance + old_variance
    if is_ratio:
        expected = expected / safe_old**2
    level = float(np.nanmedian(change))
    medians = []
    for y in range(0, new.shape[0], block):
        for x in range(0, new.shape[1], block):
            part = change[y : y + block, x : x + block]
            if np.isfinite(part).sum() >= max(part.size // 4, 16):
                medians.append(np.nanmedian(part))
    structure = median_and_sigma(medians)[1] if len(medians) > 1 else 0.0
    noise = float(np.sqrt(np.median(expected[is_good])))
    scatter = clipped_mean(change[is_good], n_sigma=4.0).sigma
    return MasterChange(level, structure, math.sqrt(max(scatter**2 - noise**2, 0.0)))
