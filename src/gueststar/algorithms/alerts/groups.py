"""Sums, extremes and last members of groups, for items that name their group by number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Groups = NDArray[np.intp]
"""The group of each item, from 0."""


def counts(group: Groups, n_groups: int) -> Floats:
    """Return how many items each group has."""
    return np.bincount(group, minlength=n_groups).astype(np.float64)


def sums(group: Groups, values: Floats, n_groups: int) -> Floats:
    """Return the sum of each group; 0 for one without items."""
    return np.bincount(group, weights=values, minlength=n_groups).astype(np.float64)  # without items: of integers


def smallest(group: Groups, values: Floats, n_groups: int) -> Floats:
    """Return the least value of each group; NaN for one without items."""
    least = np.full(n_groups, np.inf)
    np.minimum.at(least, group, values)
    return np.where(np.isfinite(least), least, np.nan)


def largest(group: Groups, values: Floats, n_groups: int) -> Floats:
    """Return the greatest value of each group; NaN for one without items."""
    return -smallest(group, -values, n_groups)


def means(group: Groups, values: Floats, n_groups: int) -> Floats:
    """Return the mean of each group; NaN for one without items."""
    return quotient(sums(group, values, n_groups), counts(group, n_groups))


def last_items(group: Groups, order: Floats, n_groups: int) -> Groups:
    """Return the index of each group's item of greatest ``order``; -1 for a group without items.

    Of items that are equal the one that comes last counts.
    """
    by_group = np.lexsort((order, group))
    found = np.full(n_groups, -1, dtype=np.intp)
    found[group[by_group]] = by_group  # later ones overwrite
    return found


def taken(values: Floats, items: Groups) -> Floats:
    """Return the values of items; NaN where an item is -1."""
    return np.append(values, np.nan)[items]


def quotient(numerator: Floats, denominator: Floats) -> Floats:
    """Return a quotient; NaN where the denominator is not positive."""
    is_known = denominator > 0
    return np.where(is_known, numerator / np.where(is_known, denominator, 1.0), np.nan)
