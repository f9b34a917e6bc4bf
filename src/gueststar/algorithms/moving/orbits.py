"""Two-body motion of small bodies about the Sun, and how an observer sees them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

GAUSS = 0.01720209895
"""Gaussian gravitational constant, au**1.5 per day."""
LIGHT_DAYS_PER_AU = 0.0057755183
OBLIQUITY_DEG = 23.43928
"""Of the ecliptic of J2000."""
SLOPE = 0.15
"""G of the H, G system where nothing better is known."""


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
    """H in V."""

    def select(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> Elements:
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


def seen_from(
    elements: Elements, *, observer: Floats, sun: Floats, mjd: float, slope: Floats | float = SLOPE
) -> Apparent:
    """Return astrometric places, degrees ICRS: two-body motion about the Sun, light time included.

    ``observer`` and ``sun`` are barycentric ``[3]``, au, at ``mjd`` in the time scale of the elements' epochs.
    """
    light_time = np.zeros_like(elements.a)
    for _ in range(3):
        helio = heliocentric(elements, mjd - light_time)
        towards = helio + (sun - observer)[:, None]
        distance = np.sqrt((towards**2).sum(axis=0))
        light_time = LIGHT_DAYS_PER_AU * distance
    r = np.sqrt((helio**2).sum(axis=0))
    cosine = np.clip((helio * towards).sum(axis=0) / (r * distance), -1, 1)
    ra = np.degrees(np.arctan2(towards[1], towards[0])) % 360.0
    dec = np.degrees(np.arcsin(towards[2] / distance))
    phase = np.degrees(np.arccos(cosine))
    mag = apparent_magnitude(elements.absolute_magnitude, r, distance, phase, slope=slope)
    return Apparent(ra, dec, mag, distance, r, phase)


def apparent_magnitude(
    absolute: Floats, sun_distance: Floats, distance: Floats, phase_deg: Floats, *, slope: Floats | float = SLOPE
) -> Floats:
    """Return V by the H, G system (Bowell et al. 1989)."""
    tangent = np.tan(np.radians(np.clip(phase_deg, 0.0, 150.0)) / 2)
    dimming = (1.0 - slope) * np.exp(-3.33 * tangent**0.63) + slope * np.exp(-1.87 * tangent**1.22)
    return np.asarray(absolute + 5.0 * np.log10(sun_distance * distance) - 2.5 * np.log10(dimming))


def heliocentric(elements: Elements, mjd: Floats | float) -> Floats:
    """Return heliocentric equatorial positions ``[3, n]``, au."""
    motion = np.degrees(GAUSS) / elements.a**1.5
    mean = np.radians((elements.mean_anomaly + motion * (mjd - elements.epoch_mjd)) % 360.0)
    eccentric = solve_kepler(mean, elements.e)
    x = elements.a * (np.cos(eccentric) - elements.e)
    y = elements.a * np.sqrt(1.0 - elements.e**2) * np.sin(eccentric)
    return _to_equatorial(x, y, elements)


def elements_of_motion(position: Floats, velocity: Floats, *, epoch_mjd: float, absolute_magnitude: Floats) -> Elements:
    """Return the orbits of heliocentric equatorial positions and velocities ``[3, n]``, au and au per day.

    Only ellipses have one: elsewhere ``a`` is negative or ``e`` at least 1.
    """
    r, v = to_ecliptic(position), to_ecliptic(velocity)
    distance, gravity = np.sqrt((r**2).sum(axis=0)), GAUSS**2
    radial = (r * v).sum(axis=0)
    speed2 = (v**2).sum(axis=0)
    pole = np.cross(r, v, axis=0)
    towards = _perihelion_vector(r, v)
    a = 1.0 / (2.0 / distance - speed2 / gravity)
    e = np.sqrt((towards**2).sum(axis=0))
    node = np.arctan2(pole[0], -pole[1])
    inclination = np.arctan2(np.hypot(pole[0], pole[1]), pole[2])
    in_plane = np.array([np.cos(node), np.sin(node), np.zeros_like(node)])
    aside = np.cross(pole, in_plane, axis=0) / np.sqrt((pole**2).sum(axis=0))
    perihelion = np.arctan2((towards * aside).sum(axis=0), (towards * in_plane).sum(axis=0))
    with np.errstate(invalid="ignore"):
        eccentric = np.arctan2(radial / np.sqrt(gravity * a), 1.0 - distance / a)
    mean = eccentric - e * np.sin(eccentric)
    return Elements(
        a, e, np.degrees(inclination), np.degrees(node) % 360.0, np.degrees(perihelion) % 360.0,
        np.degrees(mean) % 360.0, np.full_like(a, epoch_mjd), absolute_magnitude,
    )  # fmt: skip


def eccentricity_of_motion(position: Floats, velocity: Floats) -> Floats:
    """Return the eccentricity alone of what `elements_of_motion` returns, in a fifth of its time."""
    return np.asarray(np.sqrt((_perihelion_vector(to_ecliptic(position), to_ecliptic(velocity)) ** 2).sum(axis=0)))


def _perihelion_vector(r: Floats, v: Floats) -> Floats:
    """Return vectors ``[3, n]`` to the perihelion, as long as the eccentricity."""
    distance, gravity = np.sqrt((r**2).sum(axis=0)), GAUSS**2
    return np.asarray((((v**2).sum(axis=0) - gravity / distance) * r - (r * v).sum(axis=0) * v) / gravity)


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


def to_ecliptic(vectors: Floats) -> Floats:
    """Return equatorial vectors ``[3, n]`` in axes of the ecliptic of J2000."""
    c, s = np.cos(np.radians(OBLIQUITY_DEG)), np.sin(np.radians(OBLIQUITY_DEG))
    return np.array([vectors[0], c * vectors[1] + s * vectors[2], c * vectors[2] - s * vectors[1]])
