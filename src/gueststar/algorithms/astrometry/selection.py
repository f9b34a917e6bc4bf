"""Bright stars that are spread over the field."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SPARE = 20
"""So many times the wanted number are looked at, brightest first."""


def select_bright(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    magnitude: NDArray[np.float64],
    *,
    n: int,
    cell: float,
    min_distance: float,
) -> NDArray[np.intp]:
    """Return indices of the ``n`` brightest points, brightest first, with none too near a brighter one.

    At most three times the mean share is taken from any square of side ``cell``, so that a cluster or a
    bright star's debris does not take all; points within ``min_distance`` of a brighter selected point are left out
    (judged on a grid of that step). Magnitudes that are not finite come last.
    """
    rank = np.where(np.isfinite(magnitude), magnitude, np.inf)
    order = np.arange(x.size)
    if x.size > _SPARE * n:
        order = np.argpartition(rank, _SPARE * n)[: _SPARE * n]
    order = order[np.lexsort((order, rank[order]))]
    near = np.floor(np.stack([x[order], y[order]]) / max(min_distance, 1e-9)).astype(np.int64)
    _, first = np.unique(near, axis=1, return_index=True)
    order = order[np.sort(first)]
    _, box = np.unique(np.floor(np.stack([x[order], y[order]]) / cell).astype(np.int64), axis=1, return_inverse=True)
    box = box.ravel()
    quota = max(3, int(np.ceil(3.0 * n / max(box.max(initial=0) + 1, 1))))
    return np.asarray(order[_rank_within(box) < quota][:n])


def _rank_within(label: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return for each element how many earlier elements have its label."""
    by_label = np.argsort(label, kind="stable")
    sorted_labels = label[by_label]
    starts = np.flatnonzero(np.r_[True, sorted_labels[1:] != sorted_labels[:-1]])
    lengths = np.diff(np.r_[starts, label.size])
    rank = np.empty(label.size, dtype=np.intp)
    rank[by_label] = np.arange(label.size) - np.repeat(starts, lengths)
    return rank
