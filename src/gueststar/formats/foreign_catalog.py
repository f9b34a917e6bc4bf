"""A user's own source catalog: a FITS or Parquet table with positions and fluxes or magnitudes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from gueststar.core.errors import DataError
from gueststar.core.ids import content_id
from gueststar.formats.fits_planes import open_fits
from gueststar.formats.parquet import read_catalog, read_metadata
from gueststar.model.catalog import Catalog
from gueststar.model.columns import SOURCE
from gueststar.model.photocal import NJY_ZERO_POINT

ALIASES = {
    "x": ("x", "xpos", "x_image", "xwin_image", "x_fit"),
    "y": ("y", "ypos", "y_image", "ywin_image", "y_fit"),
    "x_err": ("x_err",),
    "y_err": ("y_err",),
    "ra": ("ra", "alpha_j2000", "alphawin_j2000", "raj2000"),
    "dec": ("dec", "delta_j2000", "deltawin_j2000", "dej2000", "decj2000"),
    "ra_err": ("ra_err",),
    "dec_err": ("dec_err",),
    "psf_flux": ("psf_flux",),
    "psf_flux_err": ("psf_flux_err",),
    "mag": ("mag", "mag_psf", "mag_auto", "magpsf"),
    "mag_err": ("mag_err", "magerr", "magerr_psf", "magerr_auto", "sigmapsf", "sigmag"),
    "snr": ("snr",),
    "chi2": ("chi2", "chi", "chi2_psf"),
    "sharpness": ("sharpness", "sharp"),
    "sky": ("sky", "background"),
    "n_iterations": ("n_iterations",),
    "flags": ("flags",),
}
"""Column of the source catalog -> names it is known by, in any case, the first found being taken.

Positions in pixels are taken as FITS has them (the first pixel is 1) from FITS tables, from 0 in Parquet.
"""


@dataclass(frozen=True, eq=False)
class ForeignCatalog:
    """A table as far as its file tells."""

    columns: Mapping[str, NDArray[Any]]
    header: dict[str, Any]
    """Cards of a FITS table, the primary's below those of the table; empty for Parquet."""
    visit: int | None
    detector: int | None
    notes: tuple[str, ...] = field(default=())

    def catalog(self, visit: int, detector: int) -> Catalog:
        """Return the table as a source catalog of a visit and a detector."""
        n_rows = len(self.columns["ra"])
        ids = [content_id("source", visit, detector, row) for row in range(n_rows)]
        filled: dict[str, Any] = {"source_id": np.array(ids, dtype=np.int64)}
        for column in SOURCE.columns[1:]:
            void = np.nan if column.dtype.startswith("f") else 0
            filled[column.name] = self.columns.get(column.name, np.full(n_rows, void))
        return SOURCE.catalog(filled)


def read_foreign_catalog(path: Path | str) -> ForeignCatalog:
    """Read a user's table; DataError names the columns that are missing."""
    name = str(path).lower()
    header: dict[str, Any] = {}
    if name.endswith((".parquet", ".parq")):
        table, metadata = dict(read_catalog(path)), read_metadata(path)
        first_pixel = 0.0
    else:
        table, header = _fits_table(path)
        metadata, first_pixel = {key.lower(): header[key] for key in ("VISIT", "DETECTOR") if key in header}, 1.0
    by_name = {key.lower(): values for key, values in table.items()}
    columns = {
        column: by_name[next(name for name in names if name in by_name)]
        for column, names in ALIASES.items()
        if any(name in by_name for name in names)
    }
    if missing := [name for name in ("ra", "dec") if name not in columns]:
        raise DataError(f"{path} lacks the columns {missing}; it has {sorted(by_name)}")
    for axis in ("x", "y"):
        if axis in columns and first_pixel:
            columns[axis] = columns[axis] - first_pixel
    notes = _complete_fluxes(path, columns)
    visit, detector = metadata.get("visit"), metadata.get("detector")
    return ForeignCatalog(
        columns, header, None if visit is None else int(visit), None if detector is None else int(detector), notes
    )


def _complete_fluxes(path: Path | str, columns: dict[str, NDArray[Any]]) -> tuple[str, ...]:
    """Add magnitudes from fluxes (nJy), or fluxes from AB magnitudes, and the signal to noise."""
    if "psf_flux" in columns:
        flux = columns["psf_flux"].astype(np.float64)
        error = columns.get("psf_flux_err", np.full(flux.shape, np.nan))
        with np.errstate(divide="ignore", invalid="ignore"):
            columns.setdefault("mag", np.where(flux > 0, NJY_ZERO_POINT - 2.5 * np.log10(flux), np.nan))
            columns.setdefault("mag_err", np.where(flux > 0, 2.5 / np.log(10.0) * error / flux, np.nan))
            columns.setdefault("snr", flux / error)
        return ()
    if "mag" not in columns:
        raise DataError(f"{path} has neither fluxes (psf_flux, nJy) nor AB magnitudes (mag)")
    magnitude = columns["mag"].astype(np.float64)
    error = columns.get("mag_err", np.full(magnitude.shape, np.nan))
    columns["psf_flux"] = 10.0 ** (0.4 * (NJY_ZERO_POINT - magnitude))
    columns["psf_flux_err"] = columns["psf_flux"] * error * np.log(10.0) / 2.5
    with np.errstate(divide="ignore", invalid="ignore"):
        columns.setdefault("snr", columns["psf_flux"] / columns["psf_flux_err"])
    return ("fluxes are from magnitudes, taken as AB",)


def _fits_table(path: Path | str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    with open_fits(path) as hdus:
        tables = [hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU) and not isinstance(hdu, fits.CompImageHDU)]
        wide = [hdu for hdu in tables if any(name.lower() in ALIASES["ra"] for name in hdu.columns.names)]
        if not tables:
            raise DataError(f"{path} holds no table")
        table = (wide or tables)[0]
        header = {**dict(hdus[0].header), **dict(table.header)}
        columns = {
            name: np.asarray(table.data[name]).astype(table.data[name].dtype.newbyteorder("="))
            for name in table.columns.names
            if np.asarray(table.data[name]).ndim == 1
        }
    return columns, header
