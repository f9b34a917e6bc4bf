"""Exact overlap of circles with pixels."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def quadrant_area(x: float, y: float, radius: float) -> float:
    """Return the area of the disc within the rectangle from the centre to (x, y), negative where x * y is.

    The overlap of the disc with the rectangle x0..x1, y0..y1 is the alternating sum over its corners.
    """
    sign = 1.0
    if x < 0.0:
        x, sign = -x, -sign
    if y < 0.0:
        y, sign = -y, -sign
    if x * x + y * y <= radius * radius:
        return sign * x * y
    x, y = min(x, radius), min(y, radius)
    a = np.sqrt(radius * radius - y * y)
    if x <= a:
        return sign * x * y
    return sign * (a * y + _under_arc(x, radius) - _under_arc(a, radius))


@njit(cache=True)
def _under_arc(t: float, radius: float) -> float:
    return 0.5 * (t * np.sqrt(max(radius * radius - t * t, 0.0)) + radius * radius * np.arcsin(min(t / radius, 1.0)))


@njit(cache=True)
def disc_pixel_overlap(x: float, y: float, radius: float) -> float:
    """Return the area of the unit pixel centred at (x, y) from the disc's centre that lies within the disc."""
    far = np.hypot(abs(x) + 0.5, abs(y) + 0.5)
    if far <= radius:
        return 1.0
    near = np.hypot(max(abs(x) - 0.5, 0.0), max(abs(y) - 0.5, 0.0))
    if near >= radius:
        return 0.0
    return (
        quadrant_area(x + 0.5, y + 0.5, radius)
        - quadrant_area(x - 0.5, y + 0.5, radius)
        - quadrant_area(x + 0.5, y - 0.5, radius)
        + quadrant_area(x - 0.5, y - 0.5, radius)
    )
