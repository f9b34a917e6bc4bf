"""The files that Astrometry.net's programs read and write: star lists, catalogs to be indexed, solutions."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from gueststar.core.errors import DataError
from gueststar.formats.wcs_header import wcs_from_header
from gueststar.model.catalog import Catalog
from gueststar.model.wcs import Wcs

Floats = NDArray[np.float64]


class BlindSolution(NamedTuple):
    """Where an image lies, found from its stars alone."""

    wcs: Wcs
    """Without distortion."""
    log_odds: float
    """Natural logarithm of the odds that it is right (Lang et al. 2010, AJ 139, 1782)."""
    n_matches: int


def write_star_list(path: Path, *, x: Floats, y: Floats, flux: Floats) -> None:
    """Write an xylist: 0-based positions (the file counts from 1) and fluxes, in the order given."""
    columns = [
        fits.Column("X", "D", array=np.asarray(x) + 1.0),
        fits.Column("Y", "D", array=np.asarray(y) + 1.0),
        fits.Column("FLUX", "D", array=np.asarray(flux)),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(path)


def write_star_catalog(path: Path, catalog: Catalog, magnitude: Floats) -> None:
    """Write the positions (degrees) and magnitudes of a REFCAT catalog, brightest first."""
    order = np.argsort(np.where(np.isfinite(magnitude), magnitude, np.inf), kind="stable")
    columns = [
        fits.Column("RA", "D", array=catalog["ra"][order]),
        fits.Column("DEC", "D", array=catalog["dec"][order]),
        fits.Column("MAG", "E", array=np.nan_to_num(magnitude[order], nan=99.0)),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(path)


def read_blind_solution(wcs_path: Path, match_path: Path, shape: tuple[int, int]) -> BlindSolution:
    """Read the solution of an image of ``shape`` (ny, nx); DataError if the files are not such."""
    try:
        header = dict(fits.getheader(wcs_path))
        match = fits.getdata(match_path, 1)
        log_odds, n_matches = float(match["LOGODDS"][0]), int(match["NMATCH"][0])
    except (OSError, KeyError, IndexError) as problem:
        raise DataError(f"{wcs_path.name} and {match_path.name} hold no blind solution: {problem}") from None
    return BlindSolution(wcs_from_header(header, shape), log_odds, n_matches)
