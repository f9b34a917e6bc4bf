"""Which points lie inside which image footprints, on the sphere."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.association.sky_index import separation_arcsec, sky_positions, unit_vectors

Floats = NDArray[np.float64]


class Circle(NamedTuple):
    """A circle on the sky: degrees, radius in arcsec."""

    ra: float
    dec: float
    radius_arcsec: float


def enclosing_circle(corner_ra: Floats, corner_dec: Floats) -> Circle:
    """Return a circle about a polygon's corners (their mean direction, the farthest one's distance)."""
    vectors = unit_vectors(corner_ra, corner_dec)
    middle = vectors.mean(axis=0)
    middle = middle / np.linalg.norm(middle)
    ra, dec = sky_positions(middle)
    return Circle(float(ra), float(dec), float(separation_arcsec(vectors, middle).max()))


def enlarged(corner_ra: Floats, corner_dec: Floats, margin_arcsec: float) -> tuple[Floats, Floats]:
    """Return the corners of a polygon moved away from their middle, by ``margin_arcsec`` for the farthest one."""
    circle = enclosing_circle(corner_ra, corner_dec)
    middle = unit_vectors(circle.ra, circle.dec)
    factor = 1.0 + margin_arcsec / max(circle.radius_arcsec, 1e-9)
    return sky_positions(middle + factor * (unit_vectors(corner_ra, corner_dec) - middle))


def is_inside(corner_ra: Floats, corner_dec: Floats, ra: Floats, dec: Floats) -> NDArray[np.bool_]:
    """Return ``[n_polygons, n_points]``: which points lie in which convex polygons (edges included).

    Corners are ``[n_polygons, 4]`` degrees, in order around, either way; edges are great circles. Polygons
    must be smaller than a hemisphere.
    """
    corners, points = unit_vectors(corner_ra, corner_dec), unit_vectors(ra, dec)
    inside = np.ones((corners.shape[0], points.shape[0]), dtype=bool)
    middle = corners.sum(axis=1)
    for k in range(corners.shape[1]):
        normal = np.cross(corners[:, k], corners[:, (k + 1) % corners.shape[1]])
        normal = normal * np.sign(np.einsum("ij,ij->i", normal, middle))[:, None]
        inside &= normal @ points.T >= -1e-12
    return inside & (middle @ points.T > 0)


def overlaps(corner_ra: Floats, corner_dec: Floats, other_ra: Floats, other_dec: Floats) -> NDArray[np.bool_]:
    """Return which of ``[n, 4]`` convex polygons share area with one other polygon of four corners.

    Two convex spherical polygons are apart if some edge of either has the whole other one outside.
    """
    many, one = unit_vectors(corner_ra, corner_dec), unit_vectors(other_ra, other_dec)
    apart = np.zeros(many.shape[0], dtype=bool)
    for k in range(4):
        normal = np.cross(many[:, k], many[:, (k + 1) % 4])
        normal = normal * np.sign(np.einsum("ij,ij->i", normal, many.sum(axis=1)))[:, None]
        apart |= np.all(normal @ one.T <= 1e-12, axis=1)
        edge = np.cross(one[k], one[(k + 1) % 4])
        edge = edge * np.sign(edge @ one.sum(axis=0))
        apart |= np.all(many @ edge <= 1e-12, axis=1)
    return np.asarray(~apart)


def places_within(corner_ra: Floats, corner_dec: Floats, ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
    """Return where positions lie within images, as fractions of their sides: ``[n_images, n_points]`` each.

    ``corner_*`` are ``[n_images, 4]`` degrees, in order around: the image's lower left, lower right, upper right and
    upper left (`Wcs.corners`), at fractions (0, 0), (1, 0), (1, 1) and (0, 1). The mapping is projective, exact for a
    tangent plane without distortion; otherwise as wrong as the distortion is not. NaN in the other half of the sky.
    """
    corners, points = unit_vectors(corner_ra, corner_dec), unit_vectors(ra, dec)
    # Four vectors in space: the fourth is a sum of the others, whose weights make the frame projective.
    weights = np.linalg.solve(np.moveaxis(corners[:, [0, 1, 3]], 1, 2), corners[:, 2][..., None])[..., 0]
    frame = np.moveaxis(corners[:, [0, 1, 3]] * weights[..., None], 1, 2)
    parts = np.linalg.solve(frame, np.broadcast_to(points.T, (len(frame), *points.T.shape)))
    # On the unit square, corner 2 is c1 + c3 - c0 in homogeneous coordinates.
    total = -parts[:, 0] + parts[:, 1] + parts[:, 2]
    is_here = np.einsum("ik,jk->ij", corners.sum(axis=1), points) > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(is_here, parts[:, 1] / total, np.nan), np.where(is_here, parts[:, 2] / total, np.nan)
