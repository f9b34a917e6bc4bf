"""A user's own catalog: a table with positions and fluxes or magnitudes, its columns recognised by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from gueststar.core.errors import ConfigError, DataError
from gueststar.formats.fits_planes import open_fits
from gueststar.formats.named_table import read_named_table
from gueststar.formats.parquet import read_metadata
from gueststar.model.photocal import NJY_ZERO_POINT

MEASURED: dict[str, tuple[str, ...]] = {
    "x": ("x", "xpos", "x_image", "xwin_image", "x_fit"),
    "y": ("y", "ypos", "y_image", "ywin_image", "y_fit"),
    "x_err": ("x_err",),
    "y_err": ("y_err",),
    "ra": ("ra", "alpha_j2000", "alphawin_j2000", "raj2000", "ra_deg"),
    "dec": ("dec", "delta_j2000", "deltawin_j2000", "dej2000", "decj2000", "dec_deg"),
    "ra_err": ("ra_err",),
    "dec_err": ("dec_err",),
    "psf_flux": ("psf_flux", "psfflux"),
    "psf_flux_err": ("psf_flux_err", "psffluxerr"),
    "mag": ("mag", "mag_psf", "magpsf", "mag_auto"),
    "mag_err": ("mag_err", "magerr", "magerr_psf", "magerr_auto", "sigmapsf", "sigmag"),
    "snr": ("snr", "scorr"),
    "chi2": ("chi2", "chi", "chi2_psf", "chipsf"),
    "sharpness": ("sharpness", "sharp"),
    "sky": ("sky", "background"),
    "fwhm": ("fwhm", "fwhm_image"),
    "n_iterations": ("n_iterations",),
    "flags": (),
    "is_positive": ("is_positive", "isdiffpos"),
    "reliability": ("reliability", "rb", "drb"),
}
"""What is measured of a source -> names its column is known by, in any case, the first found being taken.

Angles in degrees, their errors in arcsec, fluxes in nJy, magnitudes AB; pixels from 1 in FITS tables, else from 0.
Every pipeline has flags of its own, so none are taken for `SourceFlag` bits unless a person says so.
"""

OF_EXPOSURE: dict[str, tuple[str, ...]] = {
    "visit": ("visit", "exposure_id"),
    "detector": ("detector", "detector_id"),
    "mjd_tai": ("mjd_tai", "midpointmjdtai"),
    "mjd_start": ("mjd_start",),
    "mjd_utc": ("mjd_utc", "mjd", "mjd_obs", "mjd-obs", "obsmjd"),
    "jd_utc": ("jd_utc", "jd"),
    "date_obs": ("date_obs", "date-obs", "dateobs"),
    "exposure_s": ("exposure_s", "exptime", "exposure_time"),
    "filter": ("filter", "physical_filter", "band", "filtercode"),
    "band_id": ("band_id", "fid"),
    "program": ("program", "programid"),
    "field": ("field",),
    "limiting_mag": ("limiting_mag", "diffmaglim", "limmag", "maglim"),
}
"""The same for what is told of the exposure. ``mjd_tai`` is its middle, ``mjd_start`` its start in TAI, the other times
its start in UTC."""

TIMES = ("mjd_tai", "mjd_start", "mjd_utc", "jd_utc", "date_obs")
"""Columns of `OF_EXPOSURE` that tell a time, in the order of preference."""

_NAMES = {**MEASURED, **OF_EXPOSURE}


@dataclass(frozen=True, eq=False)
class ForeignTable:
    """A table as far as its file tells."""

    columns: Mapping[str, NDArray[Any]]
    """By our names (keys of `MEASURED` and `OF_EXPOSURE`)."""
    mapping: Mapping[str, str]
    """Our name -> the file's."""
    cards: Mapping[str, Any]
    """Header cards or other metadata, keys in capitals."""
    notes: tuple[str, ...] = ()

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.columns["ra"])


def read_foreign_table(path: Path | str, *, columns: Mapping[str, str] | None = None) -> ForeignTable:
    """Read a user's table (FITS, Parquet, CSV, ECSV, VOTable).

    ``columns`` (our name -> the file's) goes before what is recognised. Raises ConfigError for names that do not
    exist, and DataError that names what is missing. Rows without a position are left out.
    """
    file = Path(path)
    is_fits = any(file.name.lower().removesuffix(".gz").endswith(end) for end in (".fits", ".fit", ".fts", ".cat"))
    table, cards = _fits_table(file) if is_fits else _other_table(file)
    mapping = _mapping(table, columns or {}, file)
    if missing := [name for name in ("ra", "dec") if name not in mapping]:
        raise DataError(
            f"{path} lacks the columns {' and '.join(missing)}; it has {', '.join(table)}: --columns {missing[0]}=NAME"
        )
    known = {ours: table[theirs] for ours, theirs in mapping.items()}
    known |= {name: _numbers(known[name], mapping[name], file) for name in known if name not in _TEXT}
    if "is_positive" in known:
        known["is_positive"] = _signs(known["is_positive"])
    if is_fits:
        known |= {axis: known[axis] - 1.0 for axis in ("x", "y") if axis in known}
    notes = _complete_fluxes(file, known)
    is_placed = np.isfinite(known["ra"]) & np.isfinite(known["dec"]) & (np.abs(known["dec"]) <= 90.0)
    if not is_placed.all():
        notes = (*notes, f"{np.count_nonzero(~is_placed)} rows without a position left out")
        known = {name: values[is_placed] for name, values in known.items()}
    known["ra"] = known["ra"] % 360.0
    return ForeignTable(known, mapping, cards, notes)


_TEXT = ("date_obs", "filter", "is_positive")


def _mapping(table: Mapping[str, Any], wanted: Mapping[str, str], path: Path) -> dict[str, str]:
    if foreign := [name for name in wanted if name not in _NAMES]:
        raise ConfigError(f"there is no column {foreign[0]!r} to map to; there are {', '.join(_NAMES)}")
    if absent := [name for name in wanted.values() if name not in table]:
        raise DataError(f"{path} has no column {absent[0]!r}; it has {', '.join(table)}")
    by_name = {name.lower(): name for name in table}
    recognised = {
        ours: by_name[next(name for name in names if name in by_name)]
        for ours, names in _NAMES.items()
        if any(name in by_name for name in names)
    }
    return recognised | dict(wanted)


def _numbers(values: NDArray[Any], name: str, path: Path) -> NDArray[Any]:
    if values.dtype.kind in "US":
        try:
            return values.astype(np.float64)
        except ValueError:
            raise DataError(f"{path}: column {name} holds {str(values[0])!r}, which is no number") from None
    return values if values.dtype.kind in "iub" else values.astype(np.float64)


def _signs(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which detections are positive, of booleans, numbers (1, 0, -1) or the wire's ``t`` and ``f``."""
    if values.dtype.kind in "USO":
        return np.array([str(value).strip().lower() in ("t", "true", "1", "+", "1.0") for value in values])
    return np.asarray(values > 0)


def _complete_fluxes(path: Path, columns: dict[str, NDArray[Any]]) -> tuple[str, ...]:
    """Add magnitudes from fluxes (nJy), or fluxes from AB magnitudes, and the signal to noise.

    A magnitude is that of the absolute flux; ``is_positive`` tells the sign.
    """
    notes: tuple[str, ...] = ()
    if "psf_flux" not in columns:
        if "mag" not in columns:
            raise DataError(
                f"{path} has neither fluxes (psf_flux, nJy) nor AB magnitudes (mag): "
                "--columns psf_flux=NAME or mag=NAME"
            )
        magnitude = columns["mag"].astype(np.float64)
        error = columns.get("mag_err", np.full(magnitude.shape, np.nan))
        flux = 10.0 ** (0.4 * (NJY_ZERO_POINT - magnitude))
        sign = np.where(columns["is_positive"], 1.0, -1.0) if "is_positive" in columns else 1.0
        columns["psf_flux"], columns["psf_flux_err"] = sign * flux, flux * error * np.log(10.0) / 2.5
        notes = ("fluxes are from magnitudes, taken as AB",)
    flux = columns["psf_flux"].astype(np.float64)
    error = columns.setdefault("psf_flux_err", np.full(flux.shape, np.nan)).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        columns.setdefault("mag", np.where(flux > 0, NJY_ZERO_POINT - 2.5 * np.log10(flux), np.nan))
        columns.setdefault("mag_err", np.where(flux > 0, 2.5 / np.log(10.0) * error / flux, np.nan))
        columns.setdefault("snr", flux / error)
    return notes


def _other_table(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    found = read_named_table(path)
    cards = dict(found.metadata)
    if path.suffix.lower() in (".parquet", ".parq"):
        cards |= {key.upper(): value for key, value in read_metadata(path).items()}
    return found.columns, cards


def _fits_table(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    with open_fits(path) as hdus:
        tables = [hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU) and not isinstance(hdu, fits.CompImageHDU)]
        wide = [hdu for hdu in tables if any(name.lower() in MEASURED["ra"] for name in hdu.columns.names)]
        if not tables:
            raise DataError(f"{path} holds no table")
        table = (wide or tables)[0]
        header = {**dict(hdus[0].header), **dict(table.header)}
        columns = {}
        for name in table.columns.names:
            values = np.asarray(table.data[name])
            if values.ndim == 1:
                columns[name] = values.astype(values.dtype.newbyteorder("="))
    return columns, header
