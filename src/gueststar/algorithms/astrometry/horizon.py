"""Altitude and airmass of a place in the sky, without tables from the network.

UT1 is taken as UTC, which moves a star by less than 15 arcsec; refraction is left out.
"""

from __future__ import annotations

import math

import erfa  # type: ignore[import-untyped]


def altitude_deg(
    *, ra: float, dec: float, mjd_utc: float, latitude_deg: float, longitude_deg: float, height_m: float = 0.0
) -> float:
    """Return the true altitude, degrees, of an ICRS position (degrees) seen from a site (east-positive)."""
    observed = erfa.atco13(
        math.radians(ra), math.radians(dec), 0.0, 0.0, 0.0, 0.0, 2400000.5, mjd_utc, 0.0,
        math.radians(longitude_deg), math.radians(latitude_deg), height_m, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5,
    )  # fmt: skip
    return 90.0 - math.degrees(float(observed[1]))


def sun_position(mjd_utc: float) -> tuple[float, float]:
    """Return (ra, dec), degrees ICRS, of the Sun, good to 30 arcsec."""
    earth, _ = erfa.epv00(2400000.5, mjd_utc)
    position = [-float(value) for value in earth["p"]]
    longitude, latitude = erfa.c2s(position)
    return math.degrees(float(longitude)) % 360.0, math.degrees(float(latitude))


def airmass_at(altitude_deg: float) -> float:
    """Return the airmass at a true altitude above the horizon (Young 1994, Applied Optics 33, 1108).

    Raises ValueError below the horizon.
    """
    if altitude_deg < 0.0:
        raise ValueError(f"altitude {altitude_deg} is below the horizon")
    c = math.sin(math.radians(altitude_deg))
    return (1.002432 * c**2 + 0.148386 * c + 0.0096467) / (c**3 + 0.149864 * c**2 + 0.0102963 * c + 0.000303978)
