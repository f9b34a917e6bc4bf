"""From a rough pointing to the final map: match, fit, match closer, with growing order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.algorithms.astrometry.config import AstrometryConfig
from gueststar.algorithms.astrometry.matching import Pairs, match_one_to_one
from gueststar.algorithms.astrometry.plane_fit import PlaneFit, allowed_order, choose_order, fit_correction, fit_similar
from gueststar.algorithms.astrometry.polynomial import PlaneMap
from gueststar.algorithms.astrometry.tangent import tangent_deproject, tangent_project

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Sky = tuple[float, float]


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


def refine(
    start: PlaneMap, points: MeasuredPoints, stars: CatalogStars, *, shape: tuple[int, int], radius: float,
    config: AstrometryConfig,
) -> Refined | None:  # fmt: skip
    """Return the best map from points to stars, or None if fewer than 3 pairs are left on the way.

    ``radius`` (arcsec) is how far ``start`` may be wrong. The order of the distortion grows while
    the matches allow; in the end the data choose it (Bayesian information criterion).
    """
    tree = cKDTree(stars.plane)
    pixel = float(np.sqrt(abs(np.linalg.det(start.matrix))))
    floor = config.systematic_pixel * pixel
    current = start
    for step in range(2 * config.max_order):
        pairs, variance = _pair(current, points, stars, tree, radius)
        if pairs.point.size < 3:
            return None
        x, y = points.x[pairs.point], points.y[pairs.point]
        highest = allowed_order(x, y, shape, config)
        order = min(1 + step // 2, highest)
        fit = _fit(start, x, y, stars.plane[pairs.star], variance, order, floor, config)
        current = fit.plane_map
        radius = min(radius, _radius_for(fit, variance, pixel))
        if 1 + step // 2 >= highest and step % 2:
            break
    for is_last in (False, True):
        pairs, variance = _pair(current, points, stars, tree, radius)
        if pairs.point.size < 3:
            return None
        x, y = points.x[pairs.point], points.y[pairs.point]
        if not is_last:
            highest = allowed_order(x, y, shape, config)
            fit = choose_order(
                start, x, y, stars.plane[pairs.star], variance,
                highest=highest, minimum_floor=floor, clip_sigma=config.clip_sigma,
            )  # fmt: skip
        else:
            fit = _fit(start, x, y, stars.plane[pairs.star], variance, fit.order, floor, config)
        current = fit.plane_map
        radius = min(radius, _radius_for(fit, variance, pixel))
    return Refined(fit, pairs, variance, radius)


def _fit(
    start: PlaneMap, x: Floats, y: Floats, plane: Floats, variance: Floats, order: int, floor: float,
    config: AstrometryConfig,
) -> PlaneFit:  # fmt: skip
    if order == 0:
        return fit_similar(start, x, y, plane, variance, minimum_floor=floor, clip_sigma=config.clip_sigma)
    return fit_correction(start, x, y, plane, variance, order=order, minimum_floor=floor, clip_sigma=config.clip_sigma)


def _radius_for(fit: PlaneFit, variance: Floats, pixel: float) -> float:
    """Return the matching radius that a fit's scatter asks for: 6 sigma, at least a pixel."""
    return max(6.0 * float(np.sqrt(fit.floor**2 + np.median(variance))), pixel)


def _pair(
    plane_map: PlaneMap, points: MeasuredPoints, stars: CatalogStars, tree: cKDTree, radius: float
) -> tuple[Pairs, Floats]:
    """Match within the radius, drop pairs whose brightness disagrees, and return the pairs with their variances."""
    pairs = match_one_to_one(plane_map(points.x, points.y), tree, radius=radius)
    keep = agrees_in_brightness(points.magnitude[pairs.point], stars.magnitude[pairs.star])
    pairs = Pairs(pairs.point[keep], pairs.star[keep], pairs.distance[keep])
    return pairs, plane_variance(plane_map, points.select(pairs.point)) + stars.variance[pairs.star]


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
    middle = np.median(difference[known])
    spread = 1.4826 * np.median(np.abs(difference[known] - middle))
    return np.asarray(~known | (np.abs(difference - middle) < max(tolerance, 4.0 * spread)))
