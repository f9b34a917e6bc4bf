"""The sky in HEALPix tiles: each tile's content depends on the seed and its number only."""

from __future__ import annotations

from typing import NamedTuple

import astropy.units as u
import numpy as np
from astropy_healpix import HEALPix
from numpy.typing import NDArray

from gueststar.simulation.ephemeris import separation_deg

Floats = NDArray[np.float64]

N_SIDE = 128
_GRID = HEALPix(nside=N_SIDE, order="nested")

TILE_AREA_DEG2 = float(_GRID.pixel_area.to_value(u.deg**2))

IDS_PER_TILE = 10_000_000
"""Identifiers are tile * IDS_PER_TILE + serial; galaxies start at half."""


class SkyDisc(NamedTuple):
    """A round piece of sky, degrees."""

    ra: float
    dec: float
    radius: float


def tiles_touching(discs: tuple[SkyDisc, ...]) -> list[int]:
    """Return the numbers of the tiles that overlap any of ``discs``, in order."""
    found: set[int] = set()
    for disc in discs:
        cone = _GRID.cone_search_lonlat(disc.ra * u.deg, disc.dec * u.deg, radius=disc.radius * u.deg)
        found.update(int(tile) for tile in cone)
    return sorted(found)


def tile_centre(tile: int) -> tuple[float, float]:
    """Return (ra, dec) of a tile's centre, degrees."""
    ra, dec = _GRID.healpix_to_lonlat([tile])
    return float(ra.to_value(u.deg)[0]), float(dec.to_value(u.deg)[0])


def discs_near(tile: int, discs: tuple[SkyDisc, ...]) -> tuple[SkyDisc, ...]:
    """Return those of ``discs`` that may reach into a tile."""
    ra, dec = tile_centre(tile)
    return tuple(d for d in discs if separation_deg(ra, dec, d.ra, d.dec) < d.radius + 1.0)


def uniform_positions(tile: int, n: int, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Return ``n`` positions that are uniform over a tile's area, degrees."""
    ra, dec = _GRID.healpix_to_lonlat(np.full(n, tile), dx=random.random(n), dy=random.random(n))
    return np.asarray(ra.to_value(u.deg)) % 360.0, np.asarray(dec.to_value(u.deg))


def is_in_any(discs: tuple[SkyDisc, ...], ra: Floats, dec: Floats) -> NDArray[np.bool_]:
    """Return which positions lie in any of ``discs``."""
    inside = np.zeros(ra.shape, dtype=bool)
    for disc in discs:
        cosine = np.sin(np.radians(dec)) * np.sin(np.radians(disc.dec))
        cosine += np.cos(np.radians(dec)) * np.cos(np.radians(disc.dec)) * np.cos(np.radians(ra - disc.ra))
        inside |= cosine >= np.cos(np.radians(disc.radius))
    return inside
