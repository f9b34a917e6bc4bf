"""Where things stand in the sky of a site: altitude, airmass, Sun, Moon and the observer himself.

No network and no Earth-orientation tables: UT1 is taken as UTC (0.9 s, or 14 arcsec of hour angle, at most).
"""

from __future__ import annotations

from typing import NamedTuple

import erfa  # type: ignore[import-untyped]
import numpy as np
from astropy.time import Time
from numpy.typing import ArrayLike, NDArray

from gueststar.algorithms.moving import observer
from gueststar.model.camera import Site

Floats = NDArray[np.float64]


class Place(NamedTuple):
    """Topocentric place without refraction; degrees."""

    azimuth: Floats
    """From north through east."""
    altitude: Floats
    airmass: Floats
    """Kasten & Young (1989); NaN below the horizon."""
    parallactic: Floats
    """Position angle of the zenith, from north through east."""


class MoonState(NamedTuple):
    """The Moon as a site sees it."""

    ra: Floats
    dec: Floats
    altitude: Floats
    phase_angle: Floats
    """Sun-Moon-Earth angle: 0 full, 180 new, degrees."""


def topocentric_place(site: Site, *, ra: ArrayLike, dec: ArrayLike, mjd_tai: ArrayLike) -> Place:
    """Return where ICRS positions stand over ``site``."""
    time = Time(np.asarray(mjd_tai, dtype=np.float64), format="mjd", scale="tai").utc
    azimuth, zenith, hour_angle, declination, *_ = erfa.atco13(
        np.radians(ra), np.radians(dec), 0.0, 0.0, 0.0, 0.0, time.jd1, time.jd2, 0.0,
        np.radians(site.longitude_deg), np.radians(site.latitude_deg), site.height_m,
        0.0, 0.0, 0.0, 0.0, 0.0, 0.6,
    )  # fmt: skip
    latitude = np.radians(site.latitude_deg)
    parallactic = np.arctan2(
        np.sin(hour_angle), np.tan(latitude) * np.cos(declination) - np.sin(declination) * np.cos(hour_angle)
    )
    altitude = 90.0 - np.degrees(zenith)
    return Place(np.degrees(azimuth), altitude, airmass_of(altitude), np.degrees(parallactic))


def airmass_of(altitude_deg: ArrayLike) -> Floats:
    """Return the airmass (Kasten & Young 1989); NaN below the horizon."""
    altitude = np.asarray(altitude_deg, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        value = 1.0 / (np.sin(np.radians(altitude)) + 0.50572 * (altitude + 6.07995) ** -1.6364)
    return np.where(altitude > 0, value, np.nan)


def sun_altitude(site: Site, mjd_tai: ArrayLike) -> Floats:
    """Return the altitude of the Sun's centre, degrees."""
    ra, dec = _direction(observer.barycentric("sun", mjd_tai) - observer_position(site, mjd_tai))
    return topocentric_place(site, ra=ra, dec=dec, mjd_tai=mjd_tai).altitude


def moon_state(site: Site, mjd_tai: ArrayLike) -> MoonState:
    """Return the Moon's place and phase."""
    here = observer_position(site, mjd_tai)
    moon, sun = observer.barycentric("moon", mjd_tai), observer.barycentric("sun", mjd_tai)
    ra, dec = _direction(moon - here)
    to_sun, to_observer = sun - moon, here - moon
    cosine = np.sum(to_sun * to_observer, axis=0) / (_norm(to_sun) * _norm(to_observer))
    place = topocentric_place(site, ra=ra, dec=dec, mjd_tai=mjd_tai)
    return MoonState(ra, dec, place.altitude, np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def zenith_direction(site: Site, mjd_tai: float) -> Floats:
    """Return the unit vector ``[3]`` (ICRS axes) to the zenith; aberration (20 arcsec) is left out."""
    time = Time(mjd_tai, format="mjd", scale="tai")
    sidereal = erfa.era00(time.utc.jd1, time.utc.jd2) + np.radians(site.longitude_deg)
    latitude = np.radians(site.latitude_deg)
    up = np.array([np.cos(latitude) * np.cos(sidereal), np.cos(latitude) * np.sin(sidereal), np.sin(latitude)])
    return np.asarray(erfa.c2i06a(time.tt.jd1, time.tt.jd2).T @ up)


def observer_position(site: Site, mjd_tai: ArrayLike) -> Floats:
    """Return the observer's barycentric ICRS position ``[3, ...]``, au."""
    return observer.observer_position(
        mjd_tai, longitude_deg=site.longitude_deg, latitude_deg=site.latitude_deg, height_m=site.height_m
    )


def sun_position(mjd_tai: ArrayLike) -> Floats:
    """Return the Sun's barycentric ICRS position ``[3, ...]``, au."""
    return observer.barycentric("sun", mjd_tai)


def separation_deg(ra1: ArrayLike, dec1: ArrayLike, ra2: ArrayLike, dec2: ArrayLike) -> Floats:
    """Return the angle between two directions, degrees."""
    return np.degrees(erfa.seps(np.radians(ra1), np.radians(dec1), np.radians(ra2), np.radians(dec2)))


def unit_vector(ra: ArrayLike, dec: ArrayLike) -> Floats:
    """Return unit vectors ``[3, ...]`` of directions in degrees."""
    a, d = np.radians(ra), np.radians(dec)
    return np.array([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])


def _direction(vector: Floats) -> tuple[Floats, Floats]:
    ra = np.degrees(np.arctan2(vector[1], vector[0])) % 360.0
    return ra, np.degrees(np.arcsin(vector[2] / _norm(vector)))


def _norm(vector: Floats) -> Floats:
    return np.asarray(np.sqrt(np.sum(vector**2, axis=0)))
