"""Gain and read noise from pairs of flats and pairs of biases (Janesick 2007, Photon Transfer)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.stats.robust import clipped_mean, weighted_clipped_mean


class Gain(NamedTuple):
    """Electrons per count, with its standard error."""

    gain: float
    error: float
    level: float
    """Mean level at which it was measured, counts; charge repulsion raises the apparent gain with it."""


def measure_read_noise(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Return the noise of one pixel, in the unit of the frames, from the difference of two frames without light.

    Fixed patterns cancel; outliers are clipped; a difference of level does not matter.
    """
    difference = (second - first)[np.isfinite(second) & np.isfinite(first)]
    return clipped_mean(difference, n_sigma=4.0).sigma / math.sqrt(2.0)


def measure_gain(
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    *,
    read_noise: float,
    is_masked: NDArray[np.bool_] | None = None,
    block: int = 32,
) -> Gain:
    """Measure the gain from two flat exposures, counts with the zero level removed.

    In blocks small enough for the light to be even, each frame is divided by its mean level m; the variance
    of the difference of the two is then sum(1/m) / gain + read_noise^2 sum(1/m^2), so the levels need
    not be equal. Fixed patterns cancel, stars are clipped, and blocks are averaged robustly.
    NaN gain if no block has light.
    """
    if is_masked is None:
        is_masked = np.zeros(first.shape, bool)
    inverse_gains, sizes, levels = [], [], []
    for y in range(0, first.shape[0] - block // 2, block):
        for x in range(0, first.shape[1] - block // 2, block):
            part = (slice(y, y + block), slice(x, x + block))
            is_good = ~is_masked[part]
            if is_good.sum() < block * block // 2:
                continue
            a, b = first[part][is_good], second[part][is_good]
            level_a, level_b = clipped_mean(a).mean, clipped_mean(b).mean
            if min(level_a, level_b) < 3.0 * read_noise or min(level_a, level_b) <= 0:
                continue
            scatter = clipped_mean(a / level_a - b / level_b, n_sigma=4.0)
            photons = 1.0 / level_a + 1.0 / level_b
            inverse = (scatter.sigma**2 - read_noise**2 * (level_a**-2 + level_b**-2)) / photons
            inverse_gains.append(inverse)
            sizes.append(scatter.n)
            levels.append(0.5 * (level_a + level_b))
    if not inverse_gains:
        return Gain(math.nan, math.nan, math.nan)
    # The error follows from the number of pixels alone: with the measured scatter in it, quiet blocks would win.
    errors = float(np.median(inverse_gains)) * np.sqrt(2.0 / np.array(sizes))
    inverse_gain = weighted_clipped_mean(inverse_gains, np.square(errors))
    if not inverse_gain.mean > 0:
        return Gain(math.nan, math.nan, math.nan)
    widening = math.sqrt(max(1.0, inverse_gain.chi2_per_dof)) if inverse_gain.n > 1 else 1.0
    gain = 1.0 / inverse_gain.mean
    return Gain(gain, widening * inverse_gain.error * gain**2, float(np.mean(levels)))
