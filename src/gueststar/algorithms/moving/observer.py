"""Where an observer on Earth and the Sun are, from built-in series: no network and no tables.

UT1 is taken as UTC (0.9 s at most: 0.4 km at the equator). The Earth's place is good to 5e-8 au (erfa's ``epv00``).
"""

from __future__ import annotations

import erfa  # type: ignore[import-untyped]
import numpy as np
from astropy.coordinates import get_body_barycentric
from astropy.time import Time
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

AU_KM = 149597870.7
"""Astronomical unit, km."""


def barycentric(body: str, mjd_tai: ArrayLike) -> Floats:
    """Return a body's barycentric ICRS position ``[3, ...]``, au (names of astropy's built-in ephemeris)."""
    time = Time(np.asarray(mjd_tai, dtype=np.float64), format="mjd", scale="tai")
    return np.asarray(get_body_barycentric(body, time, ephemeris="builtin").xyz.to_value("au"))


def observer_position(mjd_tai: ArrayLike, *, longitude_deg: float, latitude_deg: float, height_m: float) -> Floats:
    """Return the barycentric ICRS position ``[3, ...]`` of a place on Earth (longitude east-positive), au."""
    time = Time(np.asarray(mjd_tai, dtype=np.float64), format="mjd", scale="tai")
    rotation = erfa.era00(time.utc.jd1, time.utc.jd2)
    place = erfa.pvtob(np.radians(longitude_deg), np.radians(latitude_deg), height_m, 0.0, 0.0, 0.0, rotation)["p"]
    celestial = erfa.c2i06a(time.tt.jd1, time.tt.jd2)
    in_gcrs = np.einsum("...ji,...j->...i", celestial, place) / (AU_KM * 1000.0)
    return barycentric("earth", mjd_tai) + np.moveaxis(in_gcrs, -1, 0)
