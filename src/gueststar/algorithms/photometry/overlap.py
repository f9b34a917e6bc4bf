"""Exact overlap of circles with pixels."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats64 = NDArray[np.float64]


@njit(cache=True, error_model="numpy", _nrt=False)
def disc_half(radius: float) -> int:
    """Return the half side of a box of pixels that holds a disc whose centre is in the middle pixel."""
    return int(np.ceil(radius + 0.5))


@njit(cache=True, error_model="numpy", _nrt=False)
def fill_disc_weights(dx: float, dy: float, radius: float, weights: Floats64, corners: Floats64) -> None:
    """Write the area of each pixel that lies in a disc about (dx, dy) from the middle of ``weights``.

    The area of the disc within the rectangle from its centre to a corner is known in closed form; a pixel's
    share is the alternating sum over its corners. The arcs depend on the column or the row alone. ``corners`` is a work
    array ``[4, n + 1]`` or larger, where n is the side of ``weights``.
    """
    n = weights.shape[0]
    half = n // 2
    x, arc_x, below, above = corners[0, : n + 1], corners[1, : n + 1], corners[2, : n + 1], corners[3, : n + 1]
    for i in range(n + 1):
        x[i] = i - half - 0.5 - dx
        arc_x[i] = _under_arc(min(abs(x[i]), radius), radius)
    _fill_corner_areas(x, arc_x, -half - 0.5 - dy, radius, below)
    for j in range(n):
        _fill_corner_areas(x, arc_x, j - half + 0.5 - dy, radius, above)
        for i in range(n):
            weights[j, i] = above[i + 1] - above[i] - below[i + 1] + below[i]
        below, above = above, below


@njit(cache=True, error_model="numpy", _nrt=False)
def _fill_corner_areas(x: Floats64, arc_x: Floats64, y: float, radius: float, area: Floats64) -> None:
    """Write the signed area of the disc within the rectangle from its centre to each (x, y)."""
    height = min(abs(y), radius)
    reach = np.sqrt((radius - height) * (radius + height))  # never below zero, however it is compiled
    arc_reach = _under_arc(reach, radius)
    sign_y = -1.0 if y < 0.0 else 1.0
    for i in range(x.size):
        width = abs(x[i])
        if width <= reach:
            quadrant = width * height
        else:
            quadrant = reach * height + arc_x[i] - arc_reach
        area[i] = sign_y * quadrant if x[i] >= 0.0 else -sign_y * quadrant


@njit(cache=True, error_model="numpy", _nrt=False)
def _under_arc(t: float, radius: float) -> float:
    return 0.5 * (t * np.sqrt(max(radius * radius - t * t, 0.0)) + radius * radius * np.arcsin(min(t / radius, 1.0)))
