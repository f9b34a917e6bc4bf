"""Noise, gain and covariances from pairs of equal frames (Janesick 2007, Photon Transfer)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.stats.robust import clipped_mean, weighted_clipped_mean


class PairCovariance(NamedTuple):
    """Noise of one flat exposure of an amplifier, from two of nearly equal level."""

    level: float
    """Harmonic mean of the two mean levels, ADU."""
    covariance: NDArray[np.float64]
    """ADU squared, ``[lag_y, lag_x]`` from zero: the variance, then covariances averaged over the sign of the lag."""
    error: NDArray[np.float64]
    """Standard errors of the covariances."""
    n_pixels: int


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


def measure_pair_covariance(
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    *,
    is_masked: NDArray[np.bool_] | None = None,
    max_lag: int = 8,
    n_sigma: float = 5.0,
) -> PairCovariance:
    """Measure variance and covariances of the pixels of a flat exposure from the difference of two.

    ``first`` and ``second`` are one amplifier's counts (ADU, zero level removed). Each is scaled to the harmonic mean
    of the two levels, so that photon noise adds as at that level and fixed patterns cancel; a quadratic surface takes
    out a change of the light's shape. Pixels that are masked, not finite or further than ``n_sigma`` from the others
    (cosmic rays) are left out. NaN where fewer than a thousand pixels are left.
    """
    is_good = np.isfinite(first) & np.isfinite(second)
    if is_masked is not None:
        is_good &= ~is_masked
    shape = (max_lag + 1, max_lag + 1)
    if is_good.sum() < 1000:
        return PairCovariance(math.nan, np.full(shape, np.nan), np.full(shape, np.nan), 0)
    levels = [clipped_mean(frame[is_good], n_sigma=n_sigma).mean for frame in (first, second)]
    if min(levels) <= 0:
        return PairCovariance(math.nan, np.full(shape, np.nan), np.full(shape, np.nan), 0)
    level = 2.0 * levels[0] * levels[1] / (levels[0] + levels[1])
    difference = first * np.float32(level / levels[0]) - second * np.float32(level / levels[1])
    difference -= _quadratic_surface(difference, is_good)
    scatter = clipped_mean(difference[is_good], n_sigma=n_sigma)
    is_good &= np.abs(difference - np.float32(scatter.mean)) <= n_sigma * scatter.sigma
    difference = np.where(is_good, difference - np.float32(scatter.mean), np.float32(0.0))
    products, counts = _lagged_products(difference, is_good, max_lag)
    covariance = 0.5 * products / np.maximum(counts, 1)
    covariance[counts == 0] = np.nan
    error = covariance[0, 0] / np.sqrt(np.maximum(counts, 1))
    error[0, 0] *= math.sqrt(2.0)
    return PairCovariance(level, covariance, error, int(is_good.sum()))


def _quadratic_surface(image: NDArray[np.float32], is_good: NDArray[np.bool_], block: int = 32) -> NDArray[np.float32]:
    """Return the quadratic surface through the means of blocks, clipped of what stands out."""
    ny, nx = image.shape
    terms, values = [], []
    for y in range(0, ny, block):
        for x in range(0, nx, block):
            part = (slice(y, min(y + block, ny)), slice(x, min(x + block, nx)))
            inside = image[part][is_good[part]]
            if inside.size >= block * block // 4:
                terms.append(_quadratic_terms((y + 0.5 * block) / ny, (x + 0.5 * block) / nx))
                values.append(clipped_mean(inside, n_sigma=4.0).mean)
    if len(values) < 12:
        return np.zeros(image.shape, np.float32)
    coefficients = np.linalg.lstsq(np.array(terms), np.array(values), rcond=None)[0]
    v, u = np.arange(ny)[:, None] / ny, np.arange(nx)[None, :] / nx
    return np.asarray(sum(c * t for c, t in zip(coefficients, _quadratic_terms(v, u), strict=True)), np.float32)


def _quadratic_terms(v: Any, u: Any) -> tuple[Any, ...]:
    return (1.0 + 0.0 * u * v, u + 0.0 * v, v + 0.0 * u, u * v, u * u + 0.0 * v, v * v + 0.0 * u)


@numba.njit(cache=True, fastmath=True)
def _lagged_products(values, is_good, max_lag):  # type: ignore[no-untyped-def]
    """Return sums of products of pixels (dy, dx) and (dy, -dx) apart, and the numbers of pairs of good pixels."""
    ny, nx = values.shape
    total = np.zeros((max_lag + 1, max_lag + 1))
    count = np.zeros((max_lag + 1, max_lag + 1))
    for dy in range(max_lag + 1):
        for dx in range(max_lag + 1):
            for sign in (1, -1):
                if sign == -1 and (dx == 0 or dy == 0):
                    continue
                first = 0 if sign == 1 else dx
                last = nx - dx if sign == 1 else nx
                shift = sign * dx
                for y in range(ny - dy):
                    row, other = values[y], values[y + dy]
                    good, also = is_good[y], is_good[y + dy]
                    product = np.float32(0.0)
                    pairs = 0
                    for x in range(first, last):
                        product += row[x] * other[x + shift]
                        pairs += good[x] & also[x + shift]
                    total[dy, dx] += product
                    count[dy, dx] += pairs
    return total, count
