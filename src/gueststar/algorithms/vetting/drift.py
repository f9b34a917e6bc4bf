"""How far the distributions of a night's features have moved from those of others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.vetting.boosted_trees import equal_count_edges

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

N_BINS = 10


def bin_edges(values: Floats, *, n_bins: int = N_BINS) -> list[Floats]:
    """Return the inner edges of bins of about equal counts of every column of ``[n, n_columns]``, NaN left out."""
    return [equal_count_edges(column[np.isfinite(column)], n_bins) for column in values.T]


def bin_counts(values: Floats, edges: list[Floats]) -> list[Counts]:
    """Return how many values of every column fall into its bins; the last number counts NaN."""
    counts = []
    for column, inner in zip(values.T, edges, strict=True):
        is_known = np.isfinite(column)
        index = np.where(
            is_known, np.searchsorted(inner, np.where(is_known, column, 0.0), side="right"), len(inner) + 1
        )
        counts.append(np.bincount(index, minlength=len(inner) + 2).astype(np.int64))
    return counts


def population_stability(observed: Counts | Floats, expected: Counts | Floats) -> float:
    """Return the population stability index of binned counts: sum of (p - q) ln(p / q).

    By custom, below 0.1 is called stable and above 0.25 shifted (Siddiqi 2006, Credit Risk Scorecards). Half a row is
    added to each bin of either side, so that an empty bin weighs as much as its expectation allows; NaN without rows.
    """
    if observed.sum() == 0 or expected.sum() == 0:
        return float("nan")
    p, q = ((counts + 0.5) / (counts.sum() + 0.5 * counts.size) for counts in (observed, expected))
    return float(np.sum((p - q) * np.log(p / q)))


def kolmogorov_smirnov(observed: Counts | Floats, expected: Counts | Floats) -> float:
    """Return the largest distance of the cumulative distributions at the edges of the bins, NaN counts left out."""
    known = [counts[:-1] for counts in (observed, expected)]
    if any(counts.sum() == 0 for counts in known):
        return float("nan")
    first, second = (np.cumsum(counts) / counts.sum() for counts in known)
    return float(np.abs(first - second).max())


def chance_of_distance(distance: float, n_observed: int, n_expected: int) -> float:
    """Return how often two samples of one distribution differ by more (Kolmogorov's limit of many rows)."""
    from scipy.special import kolmogorov

    if not np.isfinite(distance) or min(n_observed, n_expected) == 0:
        return float("nan")
    return float(kolmogorov(distance * np.sqrt(n_observed * n_expected / (n_observed + n_expected))))
