"""Catalog positions at another epoch."""

from __future__ import annotations

import erfa  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_MAS = np.pi / 180.0 / 3.6e6


def propagate_positions(
    *,
    ra: ArrayLike,
    dec: ArrayLike,
    pm_ra: ArrayLike,
    pm_dec: ArrayLike,
    years: ArrayLike,
    parallax: ArrayLike = 0.0,
    earth_au: Floats | None = None,
) -> tuple[Floats, Floats]:
    """Return (ra, dec) in degrees after ``years`` of proper motion along a great circle.

    ``pm_ra`` (cos dec included) and ``pm_dec`` in mas/yr, ``parallax`` in mas; NaN counts as 0. With ``earth_au`` (see
    `earth_position`) the place is the one seen from there, else from the barycentre of the Solar System. Right at the
    poles too (rigorous in direction; radial velocity is left out).
    """
    a, d = np.radians(np.asarray(ra, dtype=np.float64)), np.radians(np.asarray(dec, dtype=np.float64))
    t = np.asarray(years, dtype=np.float64)
    east = np.nan_to_num(np.asarray(pm_ra, dtype=np.float64)) * t * _MAS
    north = np.nan_to_num(np.asarray(pm_dec, dtype=np.float64)) * t * _MAS
    sin_a, cos_a, sin_d, cos_d = np.sin(a), np.cos(a), np.sin(d), np.cos(d)
    x = cos_d * cos_a - sin_a * east - sin_d * cos_a * north
    y = cos_d * sin_a + cos_a * east - sin_d * sin_a * north
    z = sin_d + cos_d * north
    if earth_au is not None:
        angle = np.nan_to_num(np.asarray(parallax, dtype=np.float64)) * _MAS
        x, y, z = x - angle * earth_au[0], y - angle * earth_au[1], z - angle * earth_au[2]
    return np.degrees(np.arctan2(y, x)) % 360.0, np.degrees(np.arctan2(z, np.hypot(x, y)))


def earth_position(epoch_year: float) -> Floats:
    """Return the Earth's place from the barycentre of the Solar System at a Julian year, au, ICRS axes."""
    _, barycentric = erfa.epv00(2451545.0, 365.25 * (epoch_year - 2000.0))
    return np.array([float(value) for value in barycentric["p"]])
