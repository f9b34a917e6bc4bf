"""Trails of bodies that moved while the shutter was open: two places and two times each, the order unknown."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.association.sky_index import separation_arcsec, unit_vectors
from gueststar.algorithms.moving.motion import extrapolate

Floats = NDArray[np.float64]

ARCSEC = np.pi / 180.0 / 3600.0
MINUTES = 1440.0


class TrailedSources(NamedTuple):
    """Trails whose both ends are seen, one row each."""

    mjd_begin: Floats
    """Shutter opens: one of the ends was passed then, the other one when it closed."""
    mjd_end: Floats
    ra_1: Floats
    dec_1: Floats
    ra_2: Floats
    dec_2: Floats
    along_err: Floats
    """Error of an end along the trail, arcsec."""
    across_err: Floats
    """Error of an end across it, arcsec."""
    mag: Floats
    mag_err: Floats
    band: NDArray[np.int64]

    @property
    def mjd(self) -> Floats:
        """Middle of the exposure."""
        return np.asarray(0.5 * (self.mjd_begin + self.mjd_end))

    @property
    def ends(self) -> tuple[Floats, Floats]:
        """Unit vectors ``[n, 3]`` of both ends."""
        return unit_vectors(self.ra_1, self.dec_1), unit_vectors(self.ra_2, self.dec_2)

    @property
    def middles(self) -> Floats:
        """Unit vectors ``[n, 3]`` of where the bodies were in the middle of the exposure."""
        first, second = self.ends
        return np.asarray((first + second) / np.linalg.norm(first + second, axis=1, keepdims=True))

    @property
    def rates(self) -> Floats:
        """Speed, arcsec per minute."""
        return np.asarray(separation_arcsec(*self.ends) / ((self.mjd_end - self.mjd_begin) * MINUTES))

    @property
    def rate_errors(self) -> Floats:
        """Error of the speed, arcsec per minute."""
        return np.asarray(np.sqrt(2.0) * self.along_err / ((self.mjd_end - self.mjd_begin) * MINUTES))


class Predicted(NamedTuple):
    """Where something is expected at a time, or at several (then every field has another leading axis)."""

    place: Floats
    """Unit vector."""
    along: Floats
    """Unit vector of the direction of motion there."""
    across: Floats
    along_err: Floats
    """arcsec."""
    across_err: Floats

    def at(self, k: int) -> Predicted:
        """Return what is expected at the k-th time."""
        return Predicted(*(values[k] for values in self))

    def offsets(self, vectors: Floats) -> tuple[Floats, Floats]:
        """Return how far unit vectors ``[n, 3]`` lie ahead and aside, arcsec."""
        away = vectors - self.place
        return away @ self.along / ARCSEC, away @ self.across / ARCSEC


class Path(NamedTuple):
    """Even motion along a great circle through two places."""

    first: Floats
    second: Floats
    mjd_first: float
    mjd_second: float
    along_err: tuple[float, float]
    """Of either place, arcsec."""
    across_err: tuple[float, float]
    bending: float
    """Change of the velocity in a minute that may be, as a fraction of it."""

    @property
    def rate(self) -> float:
        """arcsec per minute."""
        return float(separation_arcsec(self.first, self.second)) / ((self.mjd_second - self.mjd_first) * MINUTES)

    def at(self, mjd: Floats) -> Predicted:
        """Return where the body is expected, with errors that grow by those of both places and by what may bend it."""
        fraction = (mjd - self.mjd_first) / (self.mjd_second - self.mjd_first)
        place = extrapolate(self.first, self.second, fraction)
        pole = np.cross(self.first, self.second)
        pole = pole / max(float(np.linalg.norm(pole)), 1e-30)
        minutes = np.maximum(np.maximum(self.mjd_first - mjd, mjd - self.mjd_second), 0.0) * MINUTES
        bend = 0.5 * self.bending * self.rate * minutes**2
        along, across = (
            np.sqrt(((1.0 - fraction) * errors[0]) ** 2 + (fraction * errors[1]) ** 2 + bend**2)
            for errors in (self.along_err, self.across_err)
        )
        return Predicted(place, np.cross(pole, place), np.broadcast_to(pole, place.shape), along, across)


def is_on_trail(vectors: Floats, first: Floats, second: Floats, *, width_arcsec: float) -> NDArray[np.bool_]:
    """Return which unit vectors ``[n, 3]`` lie within a distance of the arc between two others."""
    chord = second - first
    length = max(float(np.linalg.norm(chord)), 1e-15)
    share = np.clip((vectors - first) @ chord / length**2, 0.0, 1.0)
    away = np.linalg.norm(vectors - first - share[:, None] * chord, axis=1)
    return np.asarray(away <= width_arcsec * ARCSEC)
