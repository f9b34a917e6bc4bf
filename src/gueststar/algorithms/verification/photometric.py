"""How well the brightness of stars repeats: PA1, PF1 and PA2 of LSST's science requirements.

LPM-17 section 3.3.1: PA1 is the width of the distribution of a star's magnitudes about its mean, the median for many
bright isolated stars; no more than PF1 per cent of the measurements deviate by more than PA2. As in Rubin's own
verification, the width of PA1 is taken from the differences of two measurements of each star drawn at random, over the
square root of two, by their interquartile range: a variable star counts as one star, whatever its amplitude.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from gueststar.algorithms.verification.estimate import Estimate, measured, nothing
from gueststar.algorithms.verification.stars import Detections, mean_magnitudes, seen_often

Floats = NDArray[np.float64]

LEAST_STARS = 20
"""With fewer stars nothing is said."""

DRAWS = 50
"""Drawings of a pair for each star."""

IQR_TO_SIGMA = 1.0 / (2.0 * float(ndtri(0.75)))
"""Standard deviation of a Gaussian over its interquartile range."""

_IQR_ERROR = 1.166
"""Error of a standard deviation from the interquartile range of n values, times sqrt(n), in units of itself."""


def repeatability(rows: Detections, *, rng: np.random.Generator) -> Estimate:
    """Return PA1 in mmag: the scatter of one measurement of a bright star. ``n`` are stars seen at least twice."""
    often = seen_often(rows, at_least=2)
    if often.n_stars < LEAST_STARS:
        return nothing(often.n_stars, f"{often.n_stars} stars were seen twice, {LEAST_STARS} are needed")
    mag = often.mag[np.argsort(often.star, kind="stable")]
    count = np.bincount(often.star)
    start = np.cumsum(count) - count
    widths = [_width(_pair_differences(mag, start, count, rng)) for _ in range(DRAWS)]
    value = 1000.0 * float(np.mean(widths))
    # Pairs of one star share its measurements: it brings one difference less than it has measurements.
    n_free = min(int((count - 1).sum()), DRAWS * count.size)
    return measured(value, _IQR_ERROR * value / np.sqrt(n_free), often.n_stars)


def outlier_fraction(rows: Detections, *, limit_mmag: float) -> Estimate:
    """Return PF1: per cent of measurements further than PA2 from their star's mean. ``n`` are measurements."""
    away = departures_mmag(rows)
    if away.size < LEAST_STARS:
        return nothing(int(away.size), f"{away.size} measurements of stars seen twice, {LEAST_STARS} are needed")
    share = float(np.mean(np.abs(away) > limit_mmag))
    return measured(100.0 * share, 100.0 * _binomial_error(share, away.size), int(away.size))


def outlier_limit(rows: Detections, *, percent: float) -> Estimate:
    """Return PA2 in mmag: the departure that ``percent`` of the measurements exceed. ``n`` are measurements."""
    away = np.abs(departures_mmag(rows))
    if away.size < LEAST_STARS:
        return nothing(int(away.size), f"{away.size} measurements of stars seen twice, {LEAST_STARS} are needed")
    return measured(*quantile(away, 1.0 - percent / 100.0), int(away.size))


def departures_mmag(rows: Detections) -> Floats:
    """Return how far each measurement of stars seen at least twice is from its star's mean, mmag.

    Widened by sqrt(n / (n - 1)): the mean of n follows its own measurements.
    """
    often = seen_often(rows, at_least=2)
    count = np.bincount(often.star, minlength=often.n_stars)[often.star]
    away = often.mag - mean_magnitudes(often)[often.star] if often.star.size else np.zeros(0)
    return np.asarray(1000.0 * away * np.sqrt(count / np.maximum(count - 1, 1)))


def quantile(values: Floats, share: float) -> tuple[float, float]:
    """Return a quantile of values and its error, from the spread of the order statistics about it."""
    ordered = np.sort(values)
    spread = _binomial_error(share, ordered.size)
    low, value, high = np.quantile(ordered, [max(share - spread, 0.0), share, min(share + spread, 1.0)])
    return float(value), float(0.5 * (high - low))


def _binomial_error(share: float, n: int) -> float:
    return float(np.sqrt(max(share * (1.0 - share), 0.25 / n) / n))


def _pair_differences(mag: Floats, start: NDArray, count: NDArray, rng: np.random.Generator) -> Floats:
    """Return the difference of two different measurements of each star, drawn at random."""
    first = (rng.random(count.size) * count).astype(np.intp)
    second = (first + 1 + (rng.random(count.size) * (count - 1)).astype(np.intp)) % count
    return mag[start + first] - mag[start + second]


def _width(differences: Floats) -> float:
    low, high = np.percentile(differences, [25.0, 75.0])
    return float(IQR_TO_SIGMA * (high - low) / np.sqrt(2.0))
