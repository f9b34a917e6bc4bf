"""The whole solution of one detector: find the pointing, refine it, match everything."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.algorithms.astrometry.config import AstrometryConfig
from gueststar.algorithms.astrometry.displacement import Displacement, measure_displacement
from gueststar.algorithms.astrometry.distortion import Distortion
from gueststar.algorithms.astrometry.matching import Pairs, match_one_to_one
from gueststar.algorithms.astrometry.pattern import Pointing, Tolerances, field_radius, find_pointing
from gueststar.algorithms.astrometry.plane_fit import fit_plane_map
from gueststar.algorithms.astrometry.polynomial import PlaneMap
from gueststar.algorithms.astrometry.refinement import (
    CatalogStars,
    MeasuredPoints,
    Refined,
    Refiner,
    Sky,
    agrees_in_brightness,
    move_centre,
)
from gueststar.algorithms.astrometry.refraction import Air, refract, towards_zenith, unrefract
from gueststar.algorithms.astrometry.tangent import tangent_deproject, tangent_project
from gueststar.core.errors import DataError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_MIN_POINT_LIKE = 30
"""With so many stars on the detector, extended objects are not fitted."""
_MIN_POINTS = 30
"""With so many points beside a star that are not bad, bad ones are not fitted."""
_MIN_COLOURS = 3
"""Fewer stars of known colour tell nothing of its effect."""
_WANTED_POINTS = 400
"""With so many good points beside a star, poor ones are not fitted."""


@dataclass(frozen=True, eq=False)
class SkyCatalog:
    """Reference stars at the epoch of the exposure."""

    ra: Floats
    dec: Floats
    variance: Floats
    """``[n, 2]`` along right ascension and declination, arcsec squared."""
    magnitude: Floats
    is_extended: Bools
    colour: Floats
    """Catalog colour, mag; NaN where it is not known."""

    def in_plane(self, centre: Sky) -> CatalogStars:
        """Return the stars on the tangent plane about ``centre``; those on the far side are NaN."""
        xi, eta = tangent_project(self.ra, self.dec, ra0=centre[0], dec0=centre[1])
        return CatalogStars(3600.0 * np.stack([xi, eta], axis=1), self.variance, self.magnitude)


class ChromaticShift(NamedTuple):
    """Where stars are seen by their colour, through the air."""

    arcsec: float
    """Towards the zenith for 1 mag bluer, where tan z = 1."""
    error_arcsec: float
    reference_colour: float | None
    """Stars of this colour are where the map has them; None: no shift is applied."""
    towards: Floats
    """Direction to the zenith (east, north), of length tan z."""

    def of(self, colour: Floats) -> Floats:
        """Return ``[n, 2]``, arcsec: shifts from the true to the apparent places; 0 for unknown colours."""
        if self.reference_colour is None:
            return np.zeros((colour.size, 2))
        return np.asarray(self.arcsec * np.nan_to_num(self.reference_colour - colour)[:, None] * self.towards)


NO_SHIFT = ChromaticShift(0.0, 0.0, None, np.zeros(2))


@dataclass(frozen=True, eq=False)
class PlaneSolution:
    """A map from pixels to the tangent plane about ``centre``, with what it rests on."""

    plane_map: PlaneMap
    centre: Sky
    """(ra, dec), degrees."""
    start_centre: Sky
    """Where the start had the detector's centre."""
    pointing: Pointing
    refined: Refined
    paired: NDArray[np.intp]
    """Rows of the points of ``refined.pairs``."""
    matches: Pairs
    """Rows of all points and of the catalog."""
    n_on_detector: int
    """Catalog stars on the detector."""
    chromatic: ChromaticShift
    """Of the stars by their colours."""
    displacement: Displacement | None
    """By the air, beyond the map; None: none was found."""


def solve_plane(
    *, points: MeasuredPoints, quality: NDArray[np.int_], start: PlaneMap, centre: Sky, shape: tuple[int, int],
    catalog: SkyCatalog, tolerances: Tolerances, config: AstrometryConfig, air: Air | None = None,
    distortion: Distortion | None = None,
) -> PlaneSolution:  # fmt: skip
    """Return the map of one detector; raises DataError where no pointing can be believed.

    ``start`` maps pixels to the tangent plane about ``centre``; ``quality`` is 2 for good points, 1 for poor and 0 for
    bad ones: the better are fitted alone where there are enough. ``air`` tells what refraction ``start`` lacks;
    ``distortion`` is the one that ``start`` holds if it was learned, which then holds the correction.
    """
    stars = catalog.in_plane(centre)
    pointing = find_pointing(
        start=start, shape=shape, x=points.x, y=points.y, flux=10.0 ** (-0.4 * points.magnitude),
        stars=stars.plane, star_magnitude=stars.magnitude, tolerances=tolerances, config=config,
    )  # fmt: skip
    verdict = pointing.verdict
    if verdict is None or verdict.log10_false_probability > np.log10(config.max_false_probability):
        raise DataError(_no_pointing(pointing, points.x.size, tolerances))
    new_centre = sky_of(verdict.shift, centre)
    moved = move_centre(pointing.start.transformed(verdict.matrix, verdict.shift), centre, new_centre)
    if air is not None:
        moved = with_refraction(moved, air, new_centre, shape)
    precision = None if distortion is None else distortion.precision(moved)
    stars = catalog.in_plane(new_centre)
    rows = _rows_on_detector(stars, moved, shape)
    radius = max(2.0 * verdict.radius, 3.0 * float(np.sqrt(abs(np.linalg.det(moved.matrix)))))
    fit_rows = _rows_to_fit(rows, catalog.is_extended)
    is_near = _is_near_star(moved(points.x, points.y), stars.plane[fit_rows], radius)
    fit_points = _points_to_fit(points, np.where(is_near, quality, -1), config)
    refiner = Refiner(moved, stars.select(fit_rows), shape, config, precision)
    refined = refiner.run(points.select(fit_points), radius=radius)
    if refined is None:
        raise DataError(f"a pointing was found but too few of {points.x.size} sources match when it is refined")
    chromatic = chromatic_shift(refined, catalog.colour[fit_rows], air, new_centre)
    if chromatic.reference_colour is not None:
        stars = dataclasses.replace(stars, plane=stars.plane + chromatic.of(catalog.colour))
        refined = refiner.again(refined, points.select(fit_points), stars.select(fit_rows))
    displacement = _displacement(refined, points.select(fit_points), shape, config)
    plane_map = refined.fit.plane_map
    matches = _match_all(plane_map, points, stars, rows, refined.radius)
    paired = fit_points[refined.pairs.point]
    inside = is_on_detector(plane_map, stars.plane[rows], shape)
    return PlaneSolution(
        plane_map, new_centre, centre, pointing, refined, paired, matches, int(inside.sum()), chromatic, displacement
    )  # fmt: skip


def _displacement(
    refined: Refined, points: MeasuredPoints, shape: tuple[int, int], config: AstrometryConfig
) -> Displacement | None:
    used = refined.fit.is_used
    rows = refined.pairs.point[used]
    return measure_displacement(
        points.x[rows], points.y[rows], refined.fit.residuals[used], refined.variance[used], shape, config.displacement
    )


def with_refraction(plane_map: PlaneMap, air: Air, centre: Sky, shape: tuple[int, int]) -> PlaneMap:
    """Return the map to the plane about ``centre`` of a map that was made as if there were no air.

    The ideal map leads to where stars appear, relative to the centre; what they truly are follows from the air.
    """
    ny, nx = shape
    x, y = (g.ravel() for g in np.meshgrid(np.linspace(0, nx - 1, 15), np.linspace(0, ny - 1, 15)))
    seen = refract(air, np.array([centre[0]]), np.array([centre[1]]))
    plane = plane_map(x, y) / 3600.0
    ra, dec = tangent_deproject(plane[:, 0], plane[:, 1], ra0=float(seen[0][0]), dec0=float(seen[1][0]))
    there = np.stack(tangent_project(*unrefract(air, ra, dec), ra0=centre[0], dec0=centre[1]), axis=1)
    order = max(plane_map.order, 3)
    return fit_plane_map(x, y, 3600.0 * there, x0=plane_map.x0, y0=plane_map.y0, unit=plane_map.unit, order=order)


def chromatic_shift(refined: Refined, colour: Floats, air: Air | None, centre: Sky) -> ChromaticShift:
    """Return the shift by colour that the matches show, joined with what the air foretells.

    ``colour`` belongs to the stars that were fitted. Without air or without colours there is none.
    """
    if air is None:
        return NO_SHIFT
    used = refined.fit.is_used
    of_star = colour[refined.pairs.star[used]]
    known = np.isfinite(of_star)
    if known.sum() < _MIN_COLOURS:
        return NO_SHIFT
    towards = towards_zenith(air, centre)
    reference = float(np.median(of_star[known]))
    offset = (reference - of_star[known])[:, None] * towards
    residuals = refined.fit.residuals[used][known]
    weight = 1.0 / (refined.variance[used][known] + refined.fit.floor**2)
    prior = 1.0 / air.chromatic_err_arcsec**2
    # A bluer star is seen nearer to the zenith than the catalog has it: star minus map is negative there.
    precision = float((weight * offset**2).sum()) + prior
    amount = (float((weight * offset * -residuals).sum()) + prior * air.chromatic_arcsec) / precision
    return ChromaticShift(amount, precision**-0.5, reference, towards)


def sky_of(shift: Floats, centre: Sky) -> Sky:
    """Return (ra, dec) of a place (arcsec) on the tangent plane about ``centre``."""
    ra, dec = tangent_deproject(shift[:1] / 3600.0, shift[1:] / 3600.0, ra0=centre[0], dec0=centre[1])
    return float(ra[0]), float(dec[0])


def _rows_on_detector(stars: CatalogStars, plane_map: PlaneMap, shape: tuple[int, int]) -> NDArray[np.intp]:
    """Return the rows of stars within the detector and a tenth of its size about it."""
    reach = 1.1 * field_radius(plane_map, shape)
    near = np.flatnonzero(np.hypot(stars.plane[:, 0], stars.plane[:, 1]) < reach)
    return near[is_on_detector(plane_map, stars.plane[near], shape, margin=0.1)]


def is_on_detector(plane_map: PlaneMap, plane: Floats, shape: tuple[int, int], *, margin: float = 0.0) -> Bools:
    """Return which plane positions the linear part of a map puts on the detector (``margin``: fraction of its size)."""
    offset = (plane - plane_map.coefficients[:, 0]) @ np.linalg.inv(plane_map.matrix).T
    half = (0.5 + margin) * np.array([shape[1], shape[0]])
    return np.asarray(np.all(np.abs(offset) <= half, axis=1))


def _rows_to_fit(rows: NDArray[np.intp], is_extended: Bools) -> NDArray[np.intp]:
    point_like = rows[~is_extended[rows]]
    return point_like if point_like.size >= _MIN_POINT_LIKE else rows


def _is_near_star(plane: Floats, stars: Floats, radius: float) -> Bools:
    """Return which places have a catalog star within the radius: a deep image has few in a shallow catalog."""
    if stars.shape[0] == 0:
        return np.zeros(plane.shape[0], dtype=bool)
    return np.asarray(cKDTree(stars).query(plane, distance_upper_bound=radius)[0] < radius)


def _points_to_fit(points: MeasuredPoints, quality: NDArray[np.int_], config: AstrometryConfig) -> NDArray[np.intp]:
    """Return the brightest of the good points, of the poor too if good ones are few, of all if both are.

    Points of negative quality, which have no star nearby, are left out.
    """
    rows = np.flatnonzero(quality >= 0)
    for least, enough in ((2, _WANTED_POINTS), (1, _MIN_POINTS)):
        if (quality >= least).sum() >= enough:
            rows = np.flatnonzero(quality >= least)
            break
    return rows[np.argsort(points.magnitude[rows], kind="stable")][: config.max_fit_matches]


def _match_all(
    plane_map: PlaneMap, points: MeasuredPoints, stars: CatalogStars, rows: NDArray[np.intp], radius: float
) -> Pairs:
    pairs = match_one_to_one(plane_map(points.x, points.y), cKDTree(stars.plane[rows]), radius=radius)
    star = rows[pairs.star]
    keep = agrees_in_brightness(points.magnitude[pairs.point], stars.magnitude[star])
    return Pairs(pairs.point[keep], star[keep], pairs.distance[keep])


def _no_pointing(pointing: Pointing, n_points: int, tolerances: Tolerances) -> str:
    searched = (
        f"{tolerances.shift / 60:.1f} arcmin, {np.degrees(tolerances.rotation):.0f} deg "
        f"and {tolerances.scale:.0%} of scale"
    )
    if pointing.verdict is None:
        return f"no pointing within {searched}: {n_points} sources and {pointing.n_stars} catalog stars are too few"
    best = pointing.verdict
    return (
        f"no pointing within {searched} can be believed: at best {best.n_matched} of the {best.n_points} brightest "
        f"sources match within {best.radius:.1f} arcsec, false-match probability 1e{best.log10_false_probability:+.1f} "
        f"({n_points} sources, {pointing.n_stars} catalog stars)"
    )
