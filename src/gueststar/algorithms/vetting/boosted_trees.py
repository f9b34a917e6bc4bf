"""Gradient-boosted trees for yes-or-no questions, NaN allowed.

Newton boosting of the logistic loss (Friedman 2001; the gains are those of Chen & Guestrin 2016, eq. 7) on
histograms of binned features; each split sends NaN to the side where it does better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]


@dataclass(frozen=True)
class BoostingConfig:
    """How trees are grown."""

    n_trees: int = 300
    depth: int = 5
    learning_rate: float = 0.06
    n_bins: int = 64
    """Bins of each feature, of equal counts."""
    min_hessian: float = 3.0
    """Least sum of p (1 - p) in a leaf: keeps leaves of few rows away."""
    l2: float = 1.0
    """Ridge on leaf values."""
    row_fraction: float = 0.7
    """Part of the rows that each tree is grown on."""
    seed: int = 1


class Trees(NamedTuple):
    """Complete binary trees of one depth; node k has the children 2 k + 1 and 2 k + 2.

    A row goes left where its feature is below the threshold, or is NaN and ``nan_left`` is set.
    """

    feature: Integers
    """``[n_trees, 2**depth - 1]``."""
    threshold: Floats
    """``[n_trees, 2**depth - 1]``; +inf: everything goes left."""
    nan_left: NDArray[np.bool_]
    """``[n_trees, 2**depth - 1]``."""
    value: Floats
    """``[n_trees, 2**depth]``: what each leaf adds to the log odds."""
    bias: float
    """Log odds before the first tree."""


def log_odds(trees: Trees, features: Floats) -> Floats:
    """Return the log odds of rows ``[n, n_features]``."""
    out = _log_odds(
        np.ascontiguousarray(trees.feature, dtype=np.int64), np.ascontiguousarray(trees.threshold, dtype=np.float64),
        np.ascontiguousarray(trees.nan_left, dtype=np.bool_), np.ascontiguousarray(trees.value, dtype=np.float64),
        float(trees.bias), np.ascontiguousarray(features, dtype=np.float64),
    )  # fmt: skip
    return np.asarray(out)


@njit(cache=True)
def _log_odds(feature, threshold, nan_left, value, bias, features):  # type: ignore[no-untyped-def]
    n_trees, n_inner = feature.shape
    out = np.empty(features.shape[0])
    for row in range(features.shape[0]):
        total = bias
        for tree in range(n_trees):
            node = 0
            while node < n_inner:
                x = features[row, feature[tree, node]]
                goes_left = nan_left[tree, node] if np.isnan(x) else x < threshold[tree, node]
                node = 2 * node + (1 if goes_left else 2)
            total += value[tree, node - n_inner]
        out[row] = total
    return out


def mean_of_trees(one: Trees, other: Trees) -> Trees:
    """Return trees whose log odds are the mean of two forests'; they must be of one depth."""
    if one.feature.shape[1] != other.feature.shape[1]:
        raise ValueError("forests of different depths have no mean")
    arrays = [np.concatenate(pair) for pair in zip(one[:3], other[:3], strict=True)]
    value = 0.5 * np.concatenate([one.value, other.value])
    return Trees(arrays[0], arrays[1], arrays[2], value, 0.5 * (one.bias + other.bias))


def fit_trees(features: Floats, labels: NDArray[np.bool_], *, config: BoostingConfig = BoostingConfig()) -> Trees:
    """Fit trees to rows ``[n, n_features]`` and their labels; the same input gives the same trees."""
    rng = np.random.default_rng(config.seed)
    binned = _bin(features, config.n_bins)
    target = labels.astype(np.float64)
    share = np.clip(target.mean(), 1e-6, 1 - 1e-6)
    bias = float(np.log(share / (1 - share)))
    margin = np.full(len(target), bias)
    grown = []
    for _ in range(config.n_trees):
        probability = 1.0 / (1.0 + np.exp(-margin))
        gradient, hessian = probability - target, probability * (1.0 - probability)
        chosen = rng.random(len(target)) < config.row_fraction
        tree, leaf = _grow(binned, gradient, hessian, chosen, config)
        margin += tree[3][leaf]
        grown.append(tree)
    feature, threshold, nan_left, value = (np.stack(arrays) for arrays in zip(*grown, strict=True))
    return Trees(feature, threshold, nan_left, value, bias)


class _Binned(NamedTuple):
    bins: NDArray[np.int64]
    """``[n, n_features]``: 0 for NaN, else 1 + the number of edges not above the value."""
    edges: list[Floats]


def _bin(features: Floats, n_bins: int) -> _Binned:
    index = np.zeros(features.shape, dtype=np.int64)
    edges = []
    for column in range(features.shape[1]):
        x = features[:, column]
        steps = equal_count_edges(x[np.isfinite(x)], n_bins)
        index[:, column] = np.where(np.isfinite(x), 1 + np.searchsorted(steps, x, side="right"), 0)
        edges.append(steps)
    return _Binned(index, edges)


def equal_count_edges(known: Floats, n_bins: int) -> Floats:
    """Return edges of bins of about equal counts, each midway between two neighbouring values.

    So that rounding an edge, or a value, does not move a row to the other side.
    """
    if known.size == 0:
        return np.zeros(0)
    values = np.unique(known)
    wanted = np.quantile(known, np.linspace(0, 1, n_bins + 1)[1:-1], method="higher")
    above = np.unique(np.searchsorted(values, wanted))
    above = above[above > 0]
    return np.asarray((values[above - 1] + values[above]) / 2.0)


def _grow(
    binned: _Binned, gradient: Floats, hessian: Floats, chosen: NDArray[np.bool_], config: BoostingConfig
) -> tuple[tuple[Integers, Floats, NDArray[np.bool_], Floats], Integers]:
    """Return one tree's arrays and the leaf that each row falls into."""
    n_inner = 2**config.depth - 1
    feature, threshold = np.zeros(n_inner, dtype=np.intp), np.full(n_inner, np.inf)
    highest_left = np.full(n_inner, np.iinfo(np.int64).max)
    nan_left = np.ones(n_inner, dtype=bool)
    node, rows = np.zeros(len(gradient), dtype=np.intp), np.arange(len(gradient))
    for level in range(config.depth):
        for k in range(2**level - 1, 2 ** (level + 1) - 1):
            split = _best_split(binned, gradient, hessian, np.flatnonzero(chosen & (node == k)), config)
            if split is not None:
                feature[k], edge, nan_left[k] = split
                threshold[k], highest_left[k] = binned.edges[split[0]][edge], edge + 1
        index = binned.bins[rows, feature[node]]
        goes_left = np.where(index == 0, nan_left[node], index <= highest_left[node])
        node = 2 * node + np.where(goes_left, 1, 2)
    leaf = node - n_inner
    total_g = np.bincount(leaf[chosen], weights=gradient[chosen], minlength=n_inner + 1)
    total_h = np.bincount(leaf[chosen], weights=hessian[chosen], minlength=n_inner + 1)
    value = -config.learning_rate * total_g / (total_h + config.l2)
    return (feature, threshold, nan_left, value), leaf


def _best_split(
    binned: _Binned, gradient: Floats, hessian: Floats, rows: Integers, config: BoostingConfig
) -> tuple[int, int, bool] | None:
    """Return (feature, number of the edge, whether NaN goes left) of the best split; None if none gains."""
    g, h = gradient[rows], hessian[rows]
    total_g, total_h = g.sum(), h.sum()
    best, best_gain = None, 1e-9
    for column, edges in enumerate(binned.edges):
        if edges.size == 0:
            continue
        index = binned.bins[rows, column]
        sums_g = np.bincount(index, weights=g, minlength=edges.size + 2)
        sums_h = np.bincount(index, weights=h, minlength=edges.size + 2)
        below_g, below_h = np.cumsum(sums_g[1:-1]), np.cumsum(sums_h[1:-1])
        for is_nan_left in (True, False):
            left_g = below_g + (sums_g[0] if is_nan_left else 0.0)
            left_h = below_h + (sums_h[0] if is_nan_left else 0.0)
            gain = _gain(left_g, left_h, total_g, total_h, config)
            k = int(np.argmax(gain))
            if gain[k] > best_gain:
                best, best_gain = (column, k, is_nan_left), float(gain[k])
    return best


def _gain(left_g: Floats, left_h: Floats, total_g: float, total_h: float, config: BoostingConfig) -> Floats:
    right_g, right_h = total_g - left_g, total_h - left_h
    gain = left_g**2 / (left_h + config.l2) + right_g**2 / (right_h + config.l2) - total_g**2 / (total_h + config.l2)
    allowed = (left_h >= config.min_hessian) & (right_h >= config.min_hessian)
    return np.asarray(np.where(allowed, gain, -np.inf))
