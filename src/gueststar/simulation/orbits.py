"""Two-body motion of small bodies as an observer on Earth sees it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.model.camera import Site
from gueststar.simulation import ephemeris

Floats = NDArray[np.float64]

GAUSS = 0.01720209895
"""Gaussian gravitational constant, au**1.5 per day."""
LIGHT_DAYS_PER_AU = 0.0057755183
OBLIQUITY_DEG = 23.43928
"""Of the ecliptic of J2000."""


class Elements(NamedTuple):
    """Keplerian elements (ecliptic and equinox J2000), arrays of equal length; degrees, au, MJD."""

    a: Floats
    e: Floats
    inclination: Floats
    node: Floats
    """Longitude of the ascending node."""
    perihelion: Floats
    """Argument of perihelion."""
    mean_anomaly: Floats
    """At the epoch."""
    epoch_mjd: Floats
    absolute_magnitude: Floats
    """H in V, slope parameter 0.15."""

    def select(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Elements:
        """Return the bodies that an index picks."""
        return Elements(*(values[index] for values in self))


class Apparent(NamedTuple):
    """Where and how bright bodies appear."""

    ra: Floats
    dec: Floats
    mag_v: Floats
    distance_au: Floats
    sun_distance_au: Floats
    phase_angle: Floats


def apparent_places(elements: Elements, *, site: Site, mjd_tai: float) -> Apparent:
    """Return astrometric topocentric places, degrees ICRS: two-body motion about the Sun, light time included."""
    observer = ephemeris.observer_position(site, mjd_tai)
    sun = ephemeris.sun_position(mjd_tai)
    light_time = np.zeros_like(elements.a)
    for _ in range(3):
        helio = heliocentric(elements, mjd_tai - light_time)
        towards = helio + (sun - observer)[:, None]
        distance = np.sqrt((towards**2).sum(axis=0))
        light_time = LIGHT_DAYS_PER_AU * distance
    r = np.sqrt((helio**2).sum(axis=0))
    cosine = np.clip((helio * towards).sum(axis=0) / (r * distance), -1, 1)
    ra = np.degrees(np.arctan2(towards[1], towards[0])) % 360.0
    dec = np.degrees(np.arcsin(towards[2] / distance))
    phase = np.degrees(np.arccos(cosine))
    mag = apparent_magnitude(elements.absolute_magnitude, r, distance, phase)
    return Apparent(ra, dec, mag, distance, r, phase)


def apparent_magnitude(absolute: Floats, sun_distance: Floats, distance: Floats, phase_deg: Floats) -> Floats:
    """Return V by the H, G system with G = 0.15 (Bowell et al. 1989)."""
    tangent = np.tan(np.radians(np.clip(phase_deg, 0.0, 150.0)) / 2)
    dimming = 0.85 * np.exp(-3.33 * tangent**0.63) + 0.15 * np.exp(-1.87 * tangent**1.22)
    return np.asarray(absolute + 5.0 * np.log10(sun_distance * distance) - 2.5 * np.log10(dimming))


def heliocentric(elements: Elements, mjd: Floats | float) -> Floats:
    """Return heliocentric equatorial positions ``[3, n]``, au."""
    motion = np.degrees(GAUSS) / elements.a**1.5
    mean = np.radians((elements.mean_anomaly + motion * (mjd - elements.epoch_mjd)) % 360.0)
    eccentric = solve_kepler(mean, elements.e)
    x = elements.a * (np.cos(eccentric) - elements.e)
    y = elements.a * np.sqrt(1.0 - elements.e**2) * np.sin(eccentric)
    return _to_equatorial(x, y, elements)


def solve_kepler(mean: Floats, e: Floats) -> Floats:
    """Return the eccentric anomaly, radians, by Newton's method (e < 1)."""
    eccentric = mean + e * np.sin(mean)
    for _ in range(30):
        step = (eccentric - e * np.sin(eccentric) - mean) / (1.0 - e * np.cos(eccentric))
        eccentric = eccentric - np.clip(step, -0.5, 0.5)
        if np.all(np.abs(step) < 1e-13):
            break
    return np.asarray(eccentric)


def _to_equatorial(x: Floats, y: Floats, elements: Elements) -> Floats:
    w, n, i = (np.radians(v) for v in (elements.perihelion, elements.node, elements.inclination))
    u, v = x * np.cos(w) - y * np.sin(w), x * np.sin(w) + y * np.cos(w)
    ecliptic_x = u * np.cos(n) - v * np.cos(i) * np.sin(n)
    ecliptic_y = u * np.sin(n) + v * np.cos(i) * np.cos(n)
    ecliptic_z = v * np.sin(i)
    c, s = np.cos(np.radians(OBLIQUITY_DEG)), np.sin(np.radians(OBLIQUITY_DEG))
    return np.array([ecliptic_x, c * ecliptic_y - s * ecliptic_z, s * ecliptic_y + c * ecliptic_z])


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
