"""The pixels of detections on a score image."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


def detected_regions(
    score: NDArray[np.float32], *, x: Floats, y: Floats, threshold: float, reach: float, sign: int = 1
) -> Bools:
    """Return where ``score`` is at least ``threshold``, in the connected regions that belong to detections.

    A region (8-connected) belongs to a detection if one of its pixels lies within ``reach`` pixels of one of the
    positions (x, y) along both axes. For negative detections ``sign`` is -1: the score is then turned over. What is
    looked at are these regions alone, however large the image.
    """
    known = np.isfinite(x) & np.isfinite(y)
    where = np.zeros(score.shape, dtype=bool)
    _flood(
        score, np.float32(sign), np.float32(threshold), float(reach),
        np.asarray(x, np.float64)[known], np.asarray(y, np.float64)[known], where,
    )  # fmt: skip
    return where


@njit(cache=True)
def _flood(score, sign, threshold, reach, x, y, where):  # type: ignore[no-untyped-def]
    """Set ``where`` in all regions that hold a pixel near a position."""
    ny, nx = score.shape
    stack = np.empty(1024, np.int64)
    for k in range(x.size):
        for j in range(max(0, int(np.floor(y[k] - reach))), min(ny, int(np.ceil(y[k] + reach)) + 1)):
            for i in range(max(0, int(np.floor(x[k] - reach))), min(nx, int(np.ceil(x[k] + reach)) + 1)):
                if where[j, i] or not sign * score[j, i] >= threshold:
                    continue
                where[j, i] = True
                stack[0], n = j * nx + i, 1
                while n > 0:
                    n -= 1
                    b, a = stack[n] // nx, stack[n] % nx
                    if n + 8 > stack.size:
                        stack = np.concatenate((stack, np.empty(stack.size, np.int64)))
                    for v in range(max(b - 1, 0), min(b + 2, ny)):
                        for u in range(max(a - 1, 0), min(a + 2, nx)):
                            if not where[v, u] and sign * score[v, u] >= threshold:
                                where[v, u] = True
                                stack[n] = v * nx + u
                                n += 1
