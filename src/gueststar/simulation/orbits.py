"""Orbits that bring simulated bodies where they are wanted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.moving.observer import AU_KM
from gueststar.algorithms.moving.orbits import (
    GAUSS,
    LIGHT_DAYS_PER_AU,
    Apparent,
    Elements,
    elements_of_motion,
    heliocentric,
    seen_from,
    solve_kepler,
    to_ecliptic,
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
    place = to_ecliptic(observer[:, None] + distance * sight)
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


def passing_by(
    *, ra: Floats, dec: Floats, rate: Floats, position_angle: Floats, speed_km_s: Floats, site: Site, mjd_tai: float
) -> Elements:
    """Return orbits of bodies that stand at places at a time and move by ``rate`` arcsec/min towards position angles.

    ``speed_km_s`` is that across the line of sight against the observer; the faster the rate, the nearer the body.
    Along the line of sight it stands still. Absolute magnitudes are 20. Orbits that are no ellipses have ``e`` of 1 or
    more.
    """
    step = 1e-3
    before, here, after = (
        ephemeris.observer_position(site, t) - ephemeris.sun_position(t)
        for t in (mjd_tai - step, mjd_tai, mjd_tai + step)
    )
    sight = ephemeris.unit_vector(ra, dec)
    east = np.array([-np.sin(np.radians(ra)), np.cos(np.radians(ra)), np.zeros_like(ra)])
    north = np.cross(sight, east, axis=0)
    towards = np.sin(np.radians(position_angle)) * east + np.cos(np.radians(position_angle)) * north
    speed = speed_km_s * 86400.0 / AU_KM
    distance = speed / np.radians(rate / 3600.0 * 1440.0)
    position = here[:, None] + distance * sight
    velocity = ((after - before) / (2.0 * step))[:, None] + speed * towards
    found = elements_of_motion(position, velocity, epoch_mjd=mjd_tai, absolute_magnitude=np.full_like(distance, 20.0))
    return found._replace(epoch_mjd=mjd_tai - LIGHT_DAYS_PER_AU * distance)
