"""HEALPix keys: one integer per place, and the ranges of keys that cover a cone."""

from __future__ import annotations

import numpy as np
from astropy import units
from astropy_healpix import HEALPix
from numpy.typing import ArrayLike, NDArray

KEY_ORDER = 29
"""Order of the keys (``_healpix_29`` of the HATS convention): pixels of 0.4 mas."""

Integers = NDArray[np.int64]


def healpix_key(*, ra: ArrayLike, dec: ArrayLike) -> Integers:
    """Return the nested HEALPix number of order 29 of ICRS positions in degrees."""
    grid = HEALPix(nside=2**KEY_ORDER, order="nested")
    lon, lat = np.asarray(ra, dtype=np.float64) % 360.0, np.asarray(dec, dtype=np.float64)
    return np.asarray(grid.lonlat_to_healpix(lon * units.deg, lat * units.deg), dtype=np.int64)


def pixel_of_key(key: Integers, order: int) -> Integers:
    """Return the nested pixel of a lower order that holds each key."""
    return key >> (2 * (KEY_ORDER - order))


def key_range(order: int, pixel: int) -> tuple[int, int]:
    """Return the first key of a pixel and the first one after it."""
    shift = 2 * (KEY_ORDER - order)
    return pixel << shift, (pixel + 1) << shift


def cone_pixels(*, ra: float, dec: float, radius_deg: float, order: int) -> Integers:
    """Return the nested pixels of ``order`` that a cone touches, sorted (a few may only be near)."""
    if radius_deg >= 180.0:
        return np.arange(12 * 4**order, dtype=np.int64)
    grid = HEALPix(nside=2**order, order="nested")
    pixels = grid.cone_search_lonlat((ra % 360.0) * units.deg, dec * units.deg, radius_deg * units.deg)
    return np.unique(np.asarray(pixels, dtype=np.int64))


def cone_key_ranges(*, ra: float, dec: float, radius_deg: float) -> list[tuple[int, int]]:
    """Return ranges of keys (first, after last), merged and sorted, that cover a cone."""
    order = int(np.clip(np.floor(np.log2(58.6 / max(radius_deg, 1e-4))) + 2, 0, 14))
    pixels = cone_pixels(ra=ra, dec=dec, radius_deg=radius_deg, order=order)
    breaks = np.flatnonzero(np.diff(pixels) > 1)
    first, last = pixels[np.r_[0, breaks + 1]], pixels[np.r_[breaks, pixels.size - 1]]
    return [(key_range(order, int(a))[0], key_range(order, int(b))[1]) for a, b in zip(first, last, strict=True)]


def separation_deg(*, ra: ArrayLike, dec: ArrayLike, ra0: float, dec0: float) -> NDArray[np.float64]:
    """Return the angular distance of positions from a place, degrees (haversine: exact at small angles)."""
    d, d0 = np.radians(np.asarray(dec, dtype=np.float64)), np.radians(dec0)
    half_a = np.radians(np.asarray(ra, dtype=np.float64) - ra0) / 2.0
    h = np.sin((d - d0) / 2.0) ** 2 + np.cos(d) * np.cos(d0) * np.sin(half_a) ** 2
    return np.asarray(np.degrees(2.0 * np.arcsin(np.sqrt(np.clip(h, 0.0, 1.0)))))
