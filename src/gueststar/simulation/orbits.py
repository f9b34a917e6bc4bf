"""Orbits that bring simulated bodies where they are wanted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.moving.orbits import (
    GAUSS,
    LIGHT_DAYS_PER_AU,
    OBLIQUITY_DEG,
    Apparent,
    Elements,
    heliocentric,
    seen_from,
    solve_kepler,
)
from gueststar.model.camera import Site
from gueststar.simulation import ephemeris

Floats = NDArray[np.float64]


def apparent_places(elements: Elements, *, site: Site, mjd_tai: float) -> Apparent:
    """Return astrometric topocentric places, degrees ICRS; the elements' epochs are MJD TAI here."""
    observer, sun = ephemeris.observer_position(site, mjd_tai), ephemeris.sun_position(mjd_tai)
    return seen_from(elements, observer=observer, sun=sun, mjd=mjd_tai)


def turned_to(
    elements: Elements, *, ra: Floats, dec: Floats, site: Site, mjd_tai: float, is_rising: NDArray[np.bool_]
) -> Elements:
    """Return the orbits turned about the Sun so that each body stands at (ra, dec) at a time.

    Size, shape and mean anomaly stay; node and argument of perihelion change, and the inclination where it is
    too small to reach the place. ``is_rising`` (booleans) picks the ascending or descending passage. Bodies
    must be farther from the Sun than the Earth at the time, else their places are NaN.
    """
    observer = ephemeris.observer_position(site, mjd_tai) - ephemeris.sun_position(mjd_tai)
    sight = ephemeris.unit_vector(ra, dec)
    distance = np.ones_like(elements.a)
    for _ in range(4):
        mjd = mjd_tai - LIGHT_DAYS_PER_AU * distance
        r = np.sqrt((heliocentric(elements, mjd) ** 2).sum(axis=0))
        along = (sight * observer[:, None]).sum(axis=0)
        distance = -along + np.sqrt(along**2 + r**2 - (observer**2).sum())
    place = _ecliptic(observer[:, None] + distance * sight)
    latitude, longitude = np.arcsin(place[2] / r), np.arctan2(place[1], place[0])
    inclination = np.maximum(np.radians(elements.inclination), 1.02 * np.abs(latitude) + 0.002)
    along_orbit = np.arcsin(np.sin(latitude) / np.sin(inclination))
    along_orbit = np.where(is_rising, along_orbit, np.pi - along_orbit)
    node = longitude - np.arctan2(np.cos(inclination) * np.sin(along_orbit), np.cos(along_orbit))
    motion = GAUSS / elements.a**1.5
    mean = np.radians(elements.mean_anomaly) + motion * (mjd - elements.epoch_mjd)
    eccentric = solve_kepler(mean % (2 * np.pi), elements.e)
    true = 2 * np.arctan2(
        np.sqrt(1 + elements.e) * np.sin(eccentric / 2), np.sqrt(1 - elements.e) * np.cos(eccentric / 2)
    )
    return elements._replace(
        inclination=np.degrees(inclination), node=np.degrees(node) % 360.0,
        perihelion=np.degrees(along_orbit - true) % 360.0,
    )  # fmt: skip


def _ecliptic(vector: Floats) -> Floats:
    c, s = np.cos(np.radians(OBLIQUITY_DEG)), np.sin(np.radians(OBLIQUITY_DEG))
    return np.array([vector[0], c * vector[1] + s * vector[2], c * vector[2] - s * vector[1]])
