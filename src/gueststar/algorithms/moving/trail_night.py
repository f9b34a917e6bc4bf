"""A night's trails and point detections, sorted by exposure for the search for links."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.algorithms.association.sky_index import separation_arcsec, unit_vectors
from gueststar.algorithms.moving.tracklets import MovingSources
from gueststar.algorithms.moving.trails import Path, TrailedSources

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]

SAME_EXPOSURE_DAYS = 1.0 / 86400.0
"""Middles of exposures nearer than this are one exposure."""


@dataclass(frozen=True)
class TrailLinkConfig:
    """When a trail and something of another exposure are one body."""

    max_hours: float = 2.0
    """How long before and after a trail others are looked for."""
    rate_tolerance: float = 0.1
    """By which fraction rates of two trails may differ, besides errors."""
    angle_tolerance_deg: float = 2.0
    """By how much their directions may differ, besides errors."""
    bending_per_min: float = 3e-4
    """Change of a velocity in a minute that may be, as a fraction of it: parallax of a near body seen from a place
    that turns with the Earth."""
    error_floor_arcsec: float = 0.1
    """Added to position errors in quadrature: astrometric solution."""
    n_sigma: float = 4.0
    """How far from its prediction the next one is looked for."""
    min_probability: float = 1e-3
    """Of the chi-square of a straight and even motion."""
    max_mag_scatter: float = 1.0
    """How far a magnitude may lie from the first trail's in the same filter, beyond three sigma."""
    max_false_probability: float = 0.03
    """Of a link as good or better among unrelated trails and detections."""
    max_candidates: int = 20
    """Nearest to the prediction of a trail that are followed up in an exposure."""


@dataclass(frozen=True, eq=False)
class Exposure:
    """What one exposure shows, of all its detectors."""

    mjd: float
    trails: Integers
    points: Integers
    tree: cKDTree | None
    centre: Floats
    radius_arcsec: float

    def density(self, n: int) -> float:
        """Return how many of ``n`` are in a square arcsec, at least as if there were one."""
        return max(n, 1) / (np.pi * self.radius_arcsec**2)


@dataclass(frozen=True, eq=False)
class TrailNight:
    """Trails and points of one night, ready for the search."""

    trails: TrailedSources
    points: MovingSources
    first: Floats
    second: Floats
    middle: Floats
    at: Floats
    """Unit vectors of the points."""
    point_error: Floats
    rates: Floats
    """Of the trails, arcsec per minute, as their errors."""
    rate_errors: Floats
    turns: Floats
    """Unit vectors from the first end of a trail to the second."""
    angle_errors: Floats
    """Of directions of trails, degrees."""
    exposures: list[Exposure]
    mjd: Floats
    """Of the exposures, as their centres and radii (arcsec)."""
    centres: Floats
    radii: Floats
    config: TrailLinkConfig

    @classmethod
    def of(cls, trails: TrailedSources, points: MovingSources, config: TrailLinkConfig) -> TrailNight:
        """Sort trails and points by exposure."""
        first, second = trails.ends
        at = unit_vectors(points.ra, points.dec)
        error = np.hypot(np.fmax(points.error_ra, points.error_dec), config.error_floor_arcsec)
        middle = trails.middles
        exposures = _exposures_of(trails.mjd, middle, points.mjd, at)
        mjd, radii = (np.array([getattr(e, name) for e in exposures]) for name in ("mjd", "radius_arcsec"))
        centres = np.array([e.centre for e in exposures]).reshape(-1, 3)
        turns = (second - first) / np.maximum(np.linalg.norm(second - first, axis=1, keepdims=True), 1e-15)
        length = np.maximum(separation_arcsec(first, second), 1e-3)
        angle_errors = np.degrees(np.sqrt(2.0) * trails.across_err / length)
        return cls(
            trails, points, first, second, middle, at, error, trails.rates, trails.rate_errors, turns, angle_errors,
            exposures, mjd, centres, radii, config,
        )  # fmt: skip

    def path(self, row: int, *, is_forward: bool) -> Path:
        """Return the path along one trail."""
        ends = (self.first[row], self.second[row])
        along, across = self.errors(row)
        return Path(
            *(ends if is_forward else ends[::-1]), float(self.trails.mjd_begin[row]), float(self.trails.mjd_end[row]),
            (along, along), (across, across), self.config.bending_per_min,
        )  # fmt: skip

    def errors(self, row: int) -> tuple[float, float]:
        """Return errors of a trail's end along and across it, arcsec: those of the solution shift both ends alike."""
        return float(self.trails.along_err[row]), float(self.trails.across_err[row])


def _exposures_of(trail_mjd: Floats, middle: Floats, point_mjd: Floats, at: Floats) -> list[Exposure]:
    found: list[Exposure] = []
    mjds = np.sort(np.concatenate([trail_mjd, point_mjd]))
    starts = mjds[np.concatenate([[True], np.diff(mjds) > SAME_EXPOSURE_DAYS])] if mjds.size else mjds
    for mjd in starts:
        trails, points = (np.flatnonzero((t >= mjd) & (t - mjd <= SAME_EXPOSURE_DAYS)) for t in (trail_mjd, point_mjd))
        all_here = np.concatenate([middle[trails], at[points]])
        centre = all_here.mean(axis=0)
        centre = centre / np.linalg.norm(centre)
        radius = max(float(separation_arcsec(all_here, centre).max()), 300.0)
        tree = cKDTree(at[points]) if points.size else None
        found.append(Exposure(float(mjd), trails, points, tree, centre, radius))
    return found
