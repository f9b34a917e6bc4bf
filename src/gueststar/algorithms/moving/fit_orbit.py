"""Fit a two-body orbit to places of one body, each with its errors along a direction and across it.

Least squares over place and motion on the sky, distance and radial velocity at the middle of the arc, from several
distances: the range of distances that a short arc allows is wide (admissible regions: Milani et al. 2004, CMDA 90, 59).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.stats import chi2 as chi2_distribution

from gueststar.algorithms.association.sky_index import separation_arcsec
from gueststar.algorithms.moving.orbits import LIGHT_DAYS_PER_AU, Elements, elements_of_motion, heliocentric

Floats = NDArray[np.float64]

_ARCSEC = np.pi / 180.0 / 3600.0
_STARTS_AU = (0.01, 0.03, 0.1, 0.3, 1.0, 2.0)
_RADIAL_SPREAD = 0.008
"""Spread of radial velocities of bodies about ours, au per day: what a short arc leaves open is near it."""
_NO_ELLIPSE = 1e4
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
        fits.append(least_squares(problem.residuals, start, method="lm", max_nfev=600))
    best = min(fits, key=lambda fit: float(fit.cost))
    found = problem.elements(best.x)
    if not _is_ellipse(found):
        return None
    residuals = problem.residuals(best.x)[:-1]
    chi2, n_dof = float(np.sum(residuals**2)), residuals.size - 5  # the radial velocity is half told by its spread
    rms = float(np.sqrt(np.mean(separation_arcsec(problem.predicted(found), places.vectors) ** 2)))
    distance = float(np.exp(best.x[4] * _UNIT[4]))
    return OrbitFit(found, chi2, n_dof, float(chi2_distribution.sf(chi2, max(n_dof, 1))), distance, rms)


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

    def elements(self, scaled: Floats) -> Elements:
        """Return the orbit of scaled parameters."""
        dx, dy, vx, vy, log_distance, radial = scaled * _UNIT
        distance = float(np.exp(np.clip(log_distance, -9.0, 4.0)))
        east, north = self.axes
        sight = self.sight + (dx * east + dy * north) * _ARCSEC
        sight = sight / np.linalg.norm(sight)
        turn = ((vx + self.motion[0]) * east + (vy + self.motion[1]) * north) * _ARCSEC
        position = self.observer + distance * sight
        velocity = self.velocity + radial * sight + distance * turn
        epoch = self.mjd - LIGHT_DAYS_PER_AU * distance
        return elements_of_motion(position[:, None], velocity[:, None], epoch_mjd=epoch, absolute_magnitude=np.zeros(1))

    def predicted(self, elements: Elements) -> Floats:
        """Return unit vectors ``[n, 3]`` of where the body was seen."""
        n = self.places.mjd.size
        many = Elements(*(np.repeat(values, n) for values in elements))
        light = np.zeros(n)
        for _ in range(3):
            towards = heliocentric(many, self.places.mjd - light) - self.places.observer
            distance = np.sqrt((towards**2).sum(axis=0))
            light = LIGHT_DAYS_PER_AU * distance
        return np.asarray((towards / distance).T)

    def residuals(self, scaled: Floats) -> Floats:
        """Return offsets along and across over their errors, and the radial velocity over its spread."""
        found = self.elements(scaled)
        prior = scaled[5] * _UNIT[5] / _RADIAL_SPREAD
        if not _is_ellipse(found):
            return np.append(np.full(2 * self.places.mjd.size, _NO_ELLIPSE), prior)
        away = (self.places.vectors - self.predicted(found)) / _ARCSEC
        along = (away * self.along).sum(axis=1) / self.places.error_along
        across = (away * self.across).sum(axis=1) / self.places.error_across
        return np.concatenate([along, across, [prior]])


def _is_ellipse(elements: Elements) -> bool:
    return bool(elements.a[0] > 0 and elements.e[0] < 0.99)


def _axes(vectors: Floats) -> tuple[Floats, Floats]:
    """Return east and north at unit vectors ``[n, 3]``."""
    flat = np.maximum(np.hypot(vectors[:, 0], vectors[:, 1]), 1e-12)
    east = np.stack([-vectors[:, 1] / flat, vectors[:, 0] / flat, np.zeros_like(flat)], axis=1)
    return east, np.cross(vectors, east)
