"""Unit vectors, separations, and HEALPix ranges for looking things up by place."""

from __future__ import annotations

import numpy as np
from astropy.units import Quantity
from astropy_healpix import lonlat_to_healpix, neighbours
from astropy_healpix.core import healpix_cone_search
from numpy.typing import ArrayLike, NDArray

INDEX_ORDER = 29
"""HEALPix order (nested) of the stored index, the HATS convention."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def unit_vectors(ra: ArrayLike, dec: ArrayLike) -> Floats:
    """Return ``[..., 3]`` unit vectors of positions in degrees."""
    a, d = np.radians(np.asarray(ra, dtype=np.float64)), np.radians(np.asarray(dec, dtype=np.float64))
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)


def sky_positions(vectors: Floats) -> tuple[Floats, Floats]:
    """Return (ra, dec) in degrees of ``[..., 3]`` vectors of any length."""
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    ra = np.degrees(np.arctan2(y, x)) % 360.0
    return np.where(ra >= 360.0, 0.0, ra), np.degrees(np.arctan2(z, np.hypot(x, y)))


def separation_arcsec(vectors_1: Floats, vectors_2: Floats) -> Floats:
    """Return angles between unit vectors (broadcast over leading axes), arcsec; exact for small angles."""
    chord = np.linalg.norm(vectors_1 - vectors_2, axis=-1)
    return np.asarray(np.degrees(2.0 * np.arcsin(np.minimum(chord / 2.0, 1.0))) * 3600.0)


def chord_of(arcsec: ArrayLike) -> Floats:
    """Return the straight distance on the unit sphere of an angle."""
    return np.asarray(2.0 * np.sin(np.radians(np.asarray(arcsec, dtype=np.float64) / 3600.0) / 2.0))


def healpix_29(ra: ArrayLike, dec: ArrayLike) -> Integers:
    """Return the nested HEALPix numbers of order 29 of positions in degrees."""
    lon, lat = np.atleast_1d(np.asarray(ra, dtype=np.float64)), np.atleast_1d(np.asarray(dec, dtype=np.float64))
    number = lonlat_to_healpix(Quantity(lon % 360.0, "deg"), Quantity(lat, "deg"), 2**INDEX_ORDER, order="nested")
    return np.asarray(number, dtype=np.int64)


def index_ranges(ra: ArrayLike, dec: ArrayLike, radius_arcsec: float) -> list[tuple[int, int]]:
    """Return ranges (first, last, both included) of order-29 numbers that cover circles about positions.

    They cover more than the circles: what is found is to be tested by distance. At most nine ranges a
    position, neighbouring ones joined.
    """
    order = _order_wider_than(radius_arcsec)
    if order < 0:
        return [(0, 12 * 4**INDEX_ORDER - 1)]
    shift = 2 * (INDEX_ORDER - order)
    centre = healpix_29(ra, dec) >> shift
    around = np.asarray(neighbours(centre, 2**order, order="nested"), dtype=np.int64)
    return _joined(np.unique(np.concatenate([centre, around[around >= 0].ravel()])), shift)


def circle_ranges(ra: float, dec: float, radius_arcsec: float) -> list[tuple[int, int]]:
    """Return ranges of order-29 numbers that cover one circle closely (within about a sixth of its radius)."""
    order = max(_order_wider_than(radius_arcsec / 6.0), 0)
    lon, lat, radius = Quantity(ra, "deg"), Quantity(dec, "deg"), Quantity(radius_arcsec, "arcsec")
    pixels = healpix_cone_search(lon, lat, radius, 2**order, order="nested")
    return _joined(np.unique(np.asarray(pixels, dtype=np.int64)), 2 * (INDEX_ORDER - order))


def _joined(pixels: Integers, shift: int) -> list[tuple[int, int]]:
    """Return runs of sorted pixel numbers as ranges ``shift`` bits finer."""
    breaks = np.flatnonzero(np.diff(pixels) != 1)
    first = pixels[np.concatenate([[0], breaks + 1])]
    last = pixels[np.concatenate([breaks, [pixels.size - 1]])]
    return [(int(a) << shift, ((int(b) + 1) << shift) - 1) for a, b in zip(first, last, strict=True)]


def _order_wider_than(radius_arcsec: float) -> int:
    """Return the highest order whose pixels are everywhere wider than ``radius_arcsec``, -1 if none.

    The narrowest crossing of a HEALPix pixel is more than half of the square root of its area.
    """
    for order in range(INDEX_ORDER, -1, -1):
        side = np.degrees(np.sqrt(4.0 * np.pi / (12.0 * 4.0**order))) * 3600.0
        if 0.5 * side > radius_arcsec:
            return order
    return -1
