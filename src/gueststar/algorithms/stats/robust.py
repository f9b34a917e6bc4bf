"""Location and scatter that a few outliers do not move."""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from gueststar.algorithms.stats.select import median_of

MAD_TO_SIGMA = 1.4826022185056018
"""Ratio of the standard deviation to the median absolute deviation of a Gaussian."""


class ClippedMean(NamedTuple):
    """Mean and standard deviation of the values that survived clipping."""

    mean: float
    sigma: float
    """Standard deviation of one value (not of the mean), corrected for the tails that clipping cut."""
    n: int
    """Number of values kept."""


class WeightedMean(NamedTuple):
    """Inverse-variance weighted mean of the values that survived clipping."""

    mean: float
    error: float
    """Standard error of the mean, as the given variances imply."""
    chi2_per_dof: float
    """Scatter of the kept values in units of their variances; NaN for fewer than two."""
    n: int
    """Number of values kept."""


def median_and_sigma(values: ArrayLike) -> tuple[float, float]:
    """Return the median and 1.4826 times the median absolute deviation, ignoring non-finite values.

    Both are NaN when no finite value is left.
    """
    finite = _finite(values)
    if finite.size == 0:
        return math.nan, math.nan
    middle = median_of if finite.dtype == np.float32 else np.median
    median = float(middle(finite))
    return median, MAD_TO_SIGMA * float(middle(np.abs(finite - median)))


def clipped_mean(values: ArrayLike, n_sigma: float = 3.0, iterations: int = 5) -> ClippedMean:
    """Return mean and scatter of the values within ``n_sigma`` of the mean, iterated from the median.

    Non-finite values are ignored. With no value left, mean and sigma are NaN and n is 0.
    """
    finite = _finite(values)
    if finite.size == 0:
        return ClippedMean(math.nan, math.nan, 0)
    centre, sigma = median_and_sigma(finite)
    if sigma == 0.0:  # more than half of the values are equal, as with coarse digits
        sigma = float(np.std(finite))
    widening = _truncation_correction(n_sigma)
    n_before = -1
    n = finite.size
    for _ in range(iterations):
        n, centre, sigma = _moments_within(finite, centre, n_sigma * sigma)
        sigma *= widening
        if n == n_before:
            break
        n_before = n
    return ClippedMean(centre, sigma, n)


def weighted_clipped_mean(
    values: ArrayLike, variances: ArrayLike, n_sigma: float = 3.0, iterations: int = 5
) -> WeightedMean:
    """Return the inverse-variance weighted mean, leaving out values more than ``n_sigma`` of their error away.

    Where the scatter exceeds the given variances, the limit widens with it, so that underestimated
    errors do not throw away most of the sample. Values that are not finite, or whose variance is not
    positive, are ignored.
    """
    data = np.asarray(values, dtype=np.float64).ravel()
    variance = np.asarray(variances, dtype=np.float64).ravel()
    is_good = np.isfinite(data) & np.isfinite(variance) & (variance > 0)
    data, variance = data[is_good], variance[is_good]
    if data.size == 0:
        return WeightedMean(math.nan, math.nan, math.nan, 0)
    centre = float(np.median(data))
    is_kept = np.ones(data.size, dtype=bool)
    for _ in range(iterations):
        pull = np.abs(data - centre) / np.sqrt(variance)
        excess = max(1.0, MAD_TO_SIGMA * float(np.median(pull)))
        is_now_kept = pull <= n_sigma * excess
        if not is_now_kept.any():
            break
        weight = is_now_kept / variance
        centre = float(np.sum(weight * data) / np.sum(weight))
        if np.array_equal(is_now_kept, is_kept):
            break
        is_kept = is_now_kept
    n = int(is_kept.sum())
    weight = is_kept / variance
    centre = float(np.sum(weight * data) / np.sum(weight))
    chi2 = float(np.sum(weight * (data - centre) ** 2) / (n - 1)) if n > 1 else math.nan
    return WeightedMean(centre, float(1.0 / np.sqrt(np.sum(weight))), chi2, n)


def _finite(values: ArrayLike) -> NDArray[np.floating]:
    """Return the finite values, flattened, as float32 if they were and as float64 otherwise."""
    array = np.asarray(values)
    if array.dtype != np.float32:
        array = array.astype(np.float64)
    array = array.ravel()
    is_finite = np.isfinite(array)
    return array if is_finite.all() else array[is_finite]


def _truncation_correction(n_sigma: float) -> float:
    """Return by how much cutting a Gaussian at ``n_sigma`` understates its standard deviation."""
    density = math.exp(-0.5 * n_sigma**2) / math.sqrt(2.0 * math.pi)
    inside = math.erf(n_sigma / math.sqrt(2.0))
    return 1.0 / math.sqrt(1.0 - 2.0 * n_sigma * density / inside)


@numba.njit(cache=True)
def _moments_within(values, centre, half_width):  # type: ignore[no-untyped-def]
    """Return number, mean and standard deviation of the values at most ``half_width`` from ``centre``."""
    n = 0
    total = 0.0
    total_square = 0.0
    for value in values:
        offset = float(value) - centre
        if abs(offset) <= half_width:
            n += 1
            total += offset
            total_square += offset * offset
    if n == 0:
        return 0, centre, 0.0
    mean = total / n
    variance = max(total_square - n * mean * mean, 0.0) / max(n - 1, 1)
    return n, centre + mean, math.sqrt(variance)
