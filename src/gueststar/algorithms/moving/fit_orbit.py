"""Fit a two-body orbit to places of one body, each with its errors along a direction and across it.

Least squares over place and motion on the sky, distance and radial velocity at the middle of the arc, from several
of them: the range of distances that a short arc allows is wide (admissible regions: Milani et al. 2004, CMDA 90, 59).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import chdtrc

from gueststar.algorithms.association.sky_index import separation_arcsec
from gueststar.algorithms.moving.orbits import (
    GAUSS,
    LIGHT_DAYS_PER_AU,
    Elements,
    eccentricity_of_motion,
    elements_of_motion,
)

Floats = NDArray[np.float64]

_ARCSEC = np.pi / 180.0 / 3600.0
_STARTS_AU = (1.0, 0.1, 2.2, 0.3, 0.03, 1.5, 0.01, 4.0)
"""In this order, until one leads to an orbit as good as the errors allow."""
_RADIAL_SPREAD = 0.008
"""Spread of radial velocities of bodies about ours, au per day: what a short arc leaves open is near it."""
_ECCENTRICITY = 0.5
"""Spread of eccentricities, for the same reason."""
_UNIT = np.array([1.0, 1.0, 100.0, 100.0, 0.1, 1e-3])
"""Of place (arcsec), motion (arcsec per day), logarithm of distance, radial velocity (au per day)."""


class OrbitPlaces(NamedTuple):
    """Places of one body, one row each."""

    mjd: Floats
    vectors: Floats
    """Unit vectors ``[n, 3]``: where it was in the middle of the exposure."""
    along_deg: Floats
    """Position angle of the first error."""
    error_along: Floats
    """arcsec."""
    error_across: Floats
    observer: Floats
    """Heliocentric equatorial places of the observer ``[3, n]``, au."""


class OrbitFit(NamedTuple):
    """An orbit through all places."""

    elements: Elements
    chi2: float
    n_dof: int
    probability: float
    """Of a chi-square as large or larger."""
    distance_au: float
    """From the observer at the middle of the arc."""
    rms_arcsec: float


def fit_orbit(places: OrbitPlaces, *, observer_velocity: Floats) -> OrbitFit | None:
    """Return the best elliptic orbit through four places or more; None where there is none.

    ``observer_velocity`` is heliocentric, au per day, at the mean time of the places.
    """
    problem = _Problem.of(places, observer_velocity)
    fits = []
    for distance in _STARTS_AU:
        start = np.array([0.0, 0.0, 0.0, 0.0, np.log(distance), 0.0]) / _UNIT
        fits.append(least_squares(problem.residuals, start, method="lm", max_nfev=250))
        if 2.0 * float(fits[-1].cost) <= 2.0 * places.mjd.size and _is_ellipse(problem.elements(fits[-1].x)):
            break
    best = min(fits, key=lambda fit: float(fit.cost))
    found = problem.elements(best.x)
    if not _is_ellipse(found):
        return None
    residuals = problem.residuals(best.x)[:-2]
    chi2, n_dof = float(np.sum(residuals**2)), residuals.size - 5  # what the arc leaves open is told by spreads
    rms = float(np.sqrt(np.mean(separation_arcsec(problem.predicted(best.x), places.vectors) ** 2)))
    distance = float(np.exp(best.x[4] * _UNIT[4]))
    return OrbitFit(found, chi2, n_dof, float(chdtrc(max(n_dof, 1), chi2)), distance, rms)


class _Problem(NamedTuple):
    places: OrbitPlaces
    mjd: float
    observer: Floats
    velocity: Floats
    sight: Floats
    axes: tuple[Floats, Floats]
    motion: Floats
    """Mean motion along the axes, arcsec per day."""
    along: Floats
    across: Floats

    @classmethod
    def of(cls, places: OrbitPlaces, velocity: Floats) -> _Problem:
        """Turn places into what the fit needs, about their mean time and place."""
        mjd = float(places.mjd.mean())
        sight = places.vectors.mean(axis=0)
        sight = sight / np.linalg.norm(sight)
        east, north = _axes(sight[None])
        dt = places.mjd - mjd
        slope = (dt @ (places.vectors - places.vectors.mean(axis=0))) / max(float(dt @ dt), 1e-12)
        nearest = places.observer[:, int(np.argmin(np.abs(dt)))]
        offset = mjd - float(places.mjd[int(np.argmin(np.abs(dt)))])
        easts, norths = _axes(places.vectors)
        sine, cosine = (f(np.radians(places.along_deg))[:, None] for f in (np.sin, np.cos))
        along, across = sine * easts + cosine * norths, sine * norths - cosine * easts
        motion = np.array([slope @ east[0], slope @ north[0]]) / _ARCSEC
        return cls(
            places, mjd, nearest + velocity * offset, velocity, sight, (east[0], north[0]), motion, along, across
        )

    def state(self, scaled: Floats) -> tuple[Floats, Floats, float]:
        """Return heliocentric place and velocity of scaled parameters, au and days, and the time when light left."""
        dx, dy, vx, vy, log_distance, radial = scaled * _UNIT
        distance = float(np.exp(np.clip(log_distance, -9.0, 4.0)))
        east, north = self.axes
        sight = self.sight + (dx * east + dy * north) * _ARCSEC
        sight = sight / np.linalg.norm(sight)
        turn = ((vx + self.motion[0]) * east + (vy + self.motion[1]) * north) * _ARCSEC
        velocity = self.velocity + radial * sight + distance * turn
        return self.observer + distance * sight, velocity, self.mjd - LIGHT_DAYS_PER_AU * distance

    def elements(self, scaled: Floats) -> Elements:
        """Return the orbit of scaled parameters."""
        position, velocity, epoch = self.state(scaled)
        return elements_of_motion(position[:, None], velocity[:, None], epoch_mjd=epoch, absolute_magnitude=np.zeros(1))

    def predicted(self, scaled: Floats) -> Floats:
        """Return unit vectors ``[n, 3]`` of where the body was seen."""
        return self._seen(*self.state(scaled))

    def _seen(self, position: Floats, velocity: Floats, epoch: float) -> Floats:
        light = np.zeros(self.places.mjd.size)
        for _ in range(3):
            towards = moved(position, velocity, self.places.mjd - light - epoch) - self.places.observer
            distance = np.sqrt((towards**2).sum(axis=0))
            light = LIGHT_DAYS_PER_AU * distance
        return np.asarray((towards / distance).T)

    def residuals(self, scaled: Floats) -> Floats:
        """Return offsets along and across over their errors, radial velocity and eccentricity over their spreads."""
        position, velocity, epoch = self.state(scaled)
        away = (self.places.vectors - self._seen(position, velocity, epoch)) / _ARCSEC
        along = (away * self.along).sum(axis=1) / self.places.error_along
        across = (away * self.across).sum(axis=1) / self.places.error_across
        eccentricity = float(eccentricity_of_motion(position[:, None], velocity[:, None])[0])
        spreads = [scaled[5] * _UNIT[5] / _RADIAL_SPREAD, eccentricity / _ECCENTRICITY]
        return np.concatenate([along, across, spreads])


def moved(position: Floats, velocity: Floats, days: Floats) -> Floats:
    """Return heliocentric places ``[3, n]`` after some days, on any conic (universal variables, e.g. Danby 1992)."""
    r0, v2 = float(np.linalg.norm(position)), float(velocity @ velocity)
    radial, alpha = float(position @ velocity) / GAUSS, 2.0 / r0 - v2 / GAUSS**2
    x = GAUSS * days / r0
    for _ in range(25):
        c, s = _stumpff(alpha * x**2)
        kepler = radial * x**2 * c + (1.0 - alpha * r0) * x**3 * s + r0 * x - GAUSS * days
        slope = radial * x * (1.0 - alpha * x**2 * s) + (1.0 - alpha * r0) * x**2 * c + r0
        step = kepler / np.maximum(slope, 1e-6)
        x = x - step
        if np.all(np.abs(step) < 1e-11):
            break
    c, s = _stumpff(alpha * x**2)
    return np.asarray((1.0 - x**2 / r0 * c) * position[:, None] + (days - x**3 / GAUSS * s) * velocity[:, None])


def _stumpff(z: Floats) -> tuple[Floats, Floats]:
    """Return Stumpff's functions C and S."""
    z = np.clip(z, -400.0, 400.0)
    is_small = np.abs(z) < 1e-2
    series_c = 0.5 - z / 24.0 * (1.0 - z / 30.0 * (1.0 - z / 56.0))
    series_s = 1.0 / 6.0 - z / 120.0 * (1.0 - z / 42.0 * (1.0 - z / 72.0))
    if is_small.all():  # days of motion far from the Sun: most arcs
        return series_c, series_s
    root = np.sqrt(np.maximum(np.abs(z), 1e-12))
    c = np.where(z > 0, 1.0 - np.cos(root), np.cosh(root) - 1.0) / root**2
    s = np.where(z > 0, root - np.sin(root), np.sinh(root) - root) / root**3
    return np.where(is_small, series_c, c), np.where(is_small, series_s, s)


def _is_ellipse(elements: Elements) -> bool:
    return bool(elements.a[0] > 0 and elements.e[0] < 0.99)


def _axes(vectors: Floats) -> tuple[Floats, Floats]:
    """Return east and north at unit vectors ``[n, 3]``."""
    flat = np.maximum(np.hypot(vectors[:, 0], vectors[:, 1]), 1e-12)
    east = np.stack([-vectors[:, 1] / flat, vectors[:, 0] / flat, np.zeros_like(flat)], axis=1)
    return east, np.cross(vectors, east)
