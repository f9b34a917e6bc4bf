"""Star positions and magnitudes out of Astrometry.net index files (such as Debian's astrometry-data-tycho2)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from gueststar.core.errors import DataError
from gueststar.core.healpix import healpix_key
from gueststar.model.catalog import Catalog
from gueststar.model.columns import REFCAT

Floats = NDArray[np.float64]

_POSITION_ERROR_MAS = 100.0
"""Tycho-2 positions at J2000, faint end."""
_MAGNITUDE_ERROR = 0.3
"""A V magnitude taken for r: the colour is not known."""


def read_index_stars(path: str | Path) -> Catalog:
    """Return the stars of an index file as a REFCAT catalog.

    Positions are unit vectors on a grid of 32-bit integers (the star kd-tree, resolution about
    0.1 mas); they are of epoch and equinox J2000 without proper motions. The tag-along magnitude (V for Tycho-2)
    stands for r, with an error of 0.3 mag; without one magnitudes are NaN. DataError if it is no such file.
    """
    try:
        with fits.open(path, memmap=True) as hdus:
            tables = {str(hdu.header.get("TTYPE1", "")).strip(): hdu for hdu in hdus[1:]}
            order = "<" if str(hdus[0].header["ENDIAN"]).startswith("04") else ">"
            ra, dec = _positions(tables, order)
            magnitude = _magnitudes(tables, ra.size)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is not an Astrometry.net index file: {error}") from error
    columns = {
        column.name: np.full(ra.size, np.nan if column.name.startswith(("mag_", "star_")) else 0.0)
        for column in REFCAT.columns
    }
    columns |= {"ra": ra, "dec": dec, "mag_r": magnitude, "epoch": np.full(ra.size, 2000.0)}
    columns["mag_r_err"] = np.where(np.isfinite(magnitude), _MAGNITUDE_ERROR, np.nan)
    columns["ra_err"] = columns["dec_err"] = np.full(ra.size, _POSITION_ERROR_MAS)
    return REFCAT.catalog(columns | {"ref_id": healpix_key(ra=ra, dec=dec)})


def _positions(tables: dict[str, fits.BinTableHDU], order: str) -> tuple[Floats, Floats]:
    """Return (ra, dec), degrees, of the star kd-tree's data."""
    limits = _raw(tables["kdtree_range_stars"], f"{order}f8")
    data = _raw(tables["kdtree_data_stars"], f"{order}u4").reshape(-1, 3)
    if limits.size != 7:
        raise ValueError(f"the star tree has {limits.size} scaling numbers, not 7")
    x, y, z = (limits[:3] + data / limits[6]).T
    return np.degrees(np.arctan2(y, x)) % 360.0, np.degrees(np.arctan2(z, np.hypot(x, y)))


def _magnitudes(tables: dict[str, fits.BinTableHDU], n: int) -> Floats:
    """Return the first tag-along column named MAG..., whose rows are in the tree's order; NaN without one."""
    for name, table in tables.items():
        if name.upper().startswith("MAG") and len(table.data) == n:
            return np.asarray(table.data[name], dtype=np.float64)
    return np.full(n, np.nan)


def _raw(table: fits.BinTableHDU, dtype: str) -> NDArray[np.float64]:
    return np.frombuffer(np.ascontiguousarray(table.data).tobytes(), dtype=dtype).astype(np.float64)
