"""From a rough pointing to the final map: match, fit, match closer, with growing order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.algorithms.astrometry.config import AstrometryConfig
from gueststar.algorithms.astrometry.matching import Pairs, match_one_to_one
from gueststar.algorithms.astrometry.plane_fit import PlaneFit, allowed_order, choose_order, fit_held, fit_order
from gueststar.algorithms.astrometry.polynomial import PlaneMap
from gueststar.algorithms.astrometry.tangent import tangent_deproject, tangent_project
from gueststar.algorithms.stats.robust import median_and_sigma

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Sky = tuple[float, float]

_GROWTH = (1, 1, 2, 3, 3)
"""Order of the correction, round by round, before the data choose it."""
_ENOUGH = 1500
"""Brightest points with which those rounds are done."""
_CHANCE = 0.2
"""Points that may have a star nearby by chance, in those rounds."""
_ORDER_TO_DOUBT = 3
"""From matches that allow this order a prior can be found to be wrong."""
_MUCH_WORSE = 1.5
"""A prior is wrong if the scatter about the fit it holds is larger by this factor than about a free one."""
_SIGMAS_TO_MATCH = 6.0
"""Matching radius in units of the scatter per axis."""


@dataclass(frozen=True, eq=False)
class MeasuredPoints:
    """Sources on the detector: positions and errors in pixels, instrumental magnitudes."""

    x: Floats
    y: Floats
    x_err: Floats
    y_err: Floats
    magnitude: Floats

    def select(self, index: NDArray[np.intp]) -> MeasuredPoints:
        """Return the points that an index array picks."""
        return MeasuredPoints(*(getattr(self, name)[index] for name in ("x", "y", "x_err", "y_err", "magnitude")))


@dataclass(frozen=True, eq=False)
class CatalogStars:
    """Stars in a tangent plane, arcsec."""

    plane: Floats
    """``[n, 2]``."""
    variance: Floats
    """``[n, 2]``, arcsec squared."""
    magnitude: Floats

    def select(self, index: NDArray[np.intp]) -> CatalogStars:
        """Return the stars that an index array picks."""
        return CatalogStars(self.plane[index], self.variance[index], self.magnitude[index])


class Refined(NamedTuple):
    """The final fit and the pairs it was made of."""

    fit: PlaneFit
    pairs: Pairs
    """Indices into the points and stars that were given."""
    variance: Floats
    """``[n_pairs, 2]`` given errors of the pairs, arcsec squared."""
    radius: float
    """Last matching radius, arcsec."""


def move_centre(plane_map: PlaneMap, old: Sky, new: Sky) -> PlaneMap:
    """Return the map in the tangent plane about ``new`` of a map about ``old`` ((ra, dec), degrees).

    The linear part follows the planes' directions at the new centre; the distortion stays that of the pixels.
    """
    step = 1.0 / 3600.0
    centre = np.array(tangent_project(np.array([new[0]]), np.array([new[1]]), ra0=old[0], dec0=old[1]))[:, 0]
    around = centre[:, None] + step * np.array([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]])
    ra, dec = tangent_deproject(around[0], around[1], ra0=old[0], dec0=old[1])
    there = np.array(tangent_project(ra, dec, ra0=new[0], dec0=new[1]))
    matrix = np.stack([there[:, 0] - there[:, 1], there[:, 2] - there[:, 3]], axis=1) / (2.0 * step)
    moved = plane_map.transformed(np.eye(2), -3600.0 * centre)
    return moved.transformed(matrix, np.zeros(2))


class Refiner:
    """Matches points and stars and fits the map between them, round by round.

    With ``precision`` (see `fit_held`) the correction to ``start`` is held by a prior, at all orders; otherwise the
    data choose its order (Bayesian information criterion), and what is beyond stays as ``start`` has it.
    """

    def __init__(
        self, start: PlaneMap, stars: CatalogStars, shape: tuple[int, int], config: AstrometryConfig,
        precision: Floats | None = None,
    ) -> None:  # fmt: skip
        self.start, self.stars, self.shape, self.config, self.precision = start, stars, shape, config, precision
        self.tree = cKDTree(stars.plane)
        self.pixel = float(np.sqrt(abs(np.linalg.det(start.matrix))))
        self.floor = config.systematic_pixel * self.pixel

    def run(self, points: MeasuredPoints, *, radius: float) -> Refined | None:
        """Return the best map from points (brightest first) to stars, or None if fewer than 3 pairs are left.

        ``radius`` (arcsec) is how far ``start`` may be wrong.
        """
        few = points.select(np.arange(min(points.x.size, _ENOUGH)))
        plane_map = self.start
        for order in _GROWTH:
            state = self._step(few, plane_map, radius, order=order, rows=self._thinned(few.x.size, radius))
            if state is None:
                return None
            plane_map, radius = state.fit.plane_map, state.radius
        chosen = self._step(points, plane_map, radius, order=None)
        if chosen is None:
            return None
        if self.precision is not None and chosen.fit.precision is None:  # the data refuse the prior
            self.precision = None
        return self._step(points, chosen.fit.plane_map, chosen.radius, order=chosen.fit.order)

    def again(self, refined: Refined, points: MeasuredPoints, stars: CatalogStars) -> Refined:
        """Return the fit of the same pairs to stars whose places were corrected a little."""
        fit = self._fit(points, stars, refined.pairs, refined.variance, order=refined.fit.order)
        return refined._replace(fit=fit)

    def _thinned(self, n_points: int, radius: float) -> NDArray[np.intp] | None:
        """Return the brightest stars, so many that few points have one within the radius by chance; None: all."""
        area = self.shape[0] * self.shape[1] * self.pixel**2
        n = max(int(_CHANCE * area / (np.pi * radius**2)), 2 * n_points)
        if n >= self.stars.magnitude.size:
            return None
        rank = np.where(np.isfinite(self.stars.magnitude), self.stars.magnitude, np.inf)
        return np.argpartition(rank, n)[:n]

    def _step(
        self, points: MeasuredPoints, plane_map: PlaneMap, radius: float, *, order: int | None,
        rows: NDArray[np.intp] | None = None,
    ) -> Refined | None:  # fmt: skip
        """Match under a map (to the stars ``rows``) and fit; ``order`` None lets the data choose up to the highest."""
        pairs = self.pair(points, plane_map, radius, rows=rows)
        if pairs.point.size < 3:
            return None
        variance = plane_variance(plane_map, points.select(pairs.point)) + self.stars.variance[pairs.star]
        fit = self._fit(points, self.stars, pairs, variance, order=order)
        scatter = float(np.sqrt(fit.floor**2 + np.median(variance)))
        return Refined(fit, pairs, variance, min(radius, max(_SIGMAS_TO_MATCH * scatter, self.pixel)))

    def _fit(
        self, points: MeasuredPoints, stars: CatalogStars, pairs: Pairs, variance: Floats, *, order: int | None
    ) -> PlaneFit:
        matched, plane = points.select(pairs.point), stars.plane[pairs.star]
        data = (self.start, matched.x, matched.y, plane, variance)
        options: dict[str, Any] = {"minimum_floor": self.floor, "clip_sigma": self.config.clip_sigma}
        highest = allowed_order(matched.x, matched.y, self.shape, self.config)
        held = None if self.precision is None else fit_held(*data, precision=self.precision, **options)
        if held is not None and (order is not None or highest < _ORDER_TO_DOUBT):
            return held
        fitter = choose_order if order is None else fit_order
        free = fitter(*data, order=highest if order is None else min(order, highest), **options)
        return held if held is not None and not _is_refuted(held, free, variance) else free

    def pair(
        self, points: MeasuredPoints, plane_map: PlaneMap, radius: float, *, rows: NDArray[np.intp] | None = None
    ) -> Pairs:
        """Match within the radius (to the stars ``rows``) and drop the pairs whose brightness disagrees."""
        tree = self.tree if rows is None else cKDTree(self.stars.plane[rows])
        pairs = match_one_to_one(plane_map(points.x, points.y), tree, radius=radius)
        if rows is not None:
            pairs = pairs._replace(star=rows[pairs.star])
        keep = agrees_in_brightness(points.magnitude[pairs.point], self.stars.magnitude[pairs.star])
        return Pairs(pairs.point[keep], pairs.star[keep], pairs.distance[keep])


def _is_refuted(held: PlaneFit, free: PlaneFit, variance: Floats) -> bool:
    typical = float(np.median(variance))
    return bool(held.floor**2 + typical > _MUCH_WORSE**2 * (free.floor**2 + typical))


def plane_variance(plane_map: PlaneMap, points: MeasuredPoints) -> Floats:
    """Return ``[n, 2]`` variances (arcsec squared) of the points' places in the plane."""
    jacobian = plane_map.matrix
    pixels = np.stack([points.x_err**2, points.y_err**2], axis=1)
    return np.asarray(pixels @ (jacobian**2).T)


def agrees_in_brightness(instrumental: Floats, catalog: Floats, *, tolerance: float = 1.5) -> Bools:
    """Return which pairs' magnitude differences lie near the median (4 robust sigma, at least ``tolerance`` mag).

    Unknown magnitudes agree; so do all when fewer than 20 are known.
    """
    difference = catalog - instrumental
    known = np.isfinite(difference)
    if known.sum() < 20:
        return np.ones(difference.size, dtype=bool)
    middle, spread = median_and_sigma(difference[known])
    return np.asarray(~known | (np.abs(difference - middle) < max(tolerance, 4.0 * spread)))
