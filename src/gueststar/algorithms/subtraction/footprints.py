"""The pixels of detections on a score image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


def detected_regions(score: NDArray[np.float32], *, x: Floats, y: Floats, threshold: float, reach: float) -> Bools:
    """Return where ``score`` is at least ``threshold``, in the connected regions that belong to detections.

    A region (8-connected) belongs to a detection if one of its pixels lies within ``reach`` pixels of one of the
    positions (x, y) along both axes. For negative detections pass the negative score.
    """
    above = score >= np.float32(threshold)
    labels, n = ndimage.label(above, structure=np.ones((3, 3)))
    is_kept = np.zeros(n + 1, dtype=bool)
    ny, nx = score.shape
    known = np.isfinite(x) & np.isfinite(y)
    for px, py in zip(x[known], y[known], strict=True):
        rows = slice(max(0, int(np.floor(py - reach))), min(ny, int(np.ceil(py + reach)) + 1))
        columns = slice(max(0, int(np.floor(px - reach))), min(nx, int(np.ceil(px + reach)) + 1))
        is_kept[np.unique(labels[rows, columns])] = True
    is_kept[0] = False
    return np.asarray(is_kept[labels])
