"""Catalog positions at another epoch."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_MAS = np.pi / 180.0 / 3.6e6


def propagate_positions(
    *, ra: ArrayLike, dec: ArrayLike, pm_ra: ArrayLike, pm_dec: ArrayLike, years: ArrayLike
) -> tuple[Floats, Floats]:
    """Return (ra, dec) in degrees after ``years`` of proper motion along a great circle.

    ``pm_ra`` (cos dec included) and ``pm_dec`` in mas/yr; NaN counts as 0. Right at the poles too
    (rigorous in direction; parallax and radial velocity are left out).
    """
    a, d = np.radians(np.asarray(ra, dtype=np.float64)), np.radians(np.asarray(dec, dtype=np.float64))
    t = np.asarray(years, dtype=np.float64)
    east = np.nan_to_num(np.asarray(pm_ra, dtype=np.float64)) * t * _MAS
    north = np.nan_to_num(np.asarray(pm_dec, dtype=np.float64)) * t * _MAS
    sin_a, cos_a, sin_d, cos_d = np.sin(a), np.cos(a), np.sin(d), np.cos(d)
    x = cos_d * cos_a - sin_a * east - sin_d * cos_a * north
    y = cos_d * sin_a + cos_a * east - sin_d * sin_a * north
    z = sin_d + cos_d * north
    return np.degrees(np.arctan2(y, x)) % 360.0, np.degrees(np.arctan2(z, np.hypot(x, y)))
