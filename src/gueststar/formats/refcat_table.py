"""A reference catalog from a table of any origin: columns recognised by name, units by what they say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy import units
from astropy.coordinates import Angle
from numpy.typing import NDArray
from scipy.special import ndtr

from gueststar.algorithms.photocal.gaia import sdss_from_gaia
from gueststar.core.errors import ConfigError, DataError
from gueststar.core.healpix import healpix_key
from gueststar.formats.named_table import NamedTable
from gueststar.model.catalog import Catalog
from gueststar.model.columns import REFCAT

Floats = NDArray[np.float64]

_BANDS = ("g", "r", "i", "z")

NAMES: dict[str, tuple[str, ...]] = {
    "ref_id": ("ref_id", "source_id", "Source", "objid", "objID", "id", "ID"),
    "ra": ("ra", "RA", "RA_ICRS", "RAJ2000", "_RAJ2000", "RAdeg", "ALPHA_J2000", "raMean", "ra_deg"),
    "dec": ("dec", "DEC", "Dec", "DE_ICRS", "DEJ2000", "_DEJ2000", "DEdeg", "DELTA_J2000", "decMean", "dec_deg"),
    "ra_err": ("ra_err", "ra_error", "e_RA_ICRS", "e_RAJ2000", "e_RAdeg", "e_pos_mas", "dra", "raMeanErr"),
    "dec_err": ("dec_err", "dec_error", "e_DE_ICRS", "e_DEJ2000", "e_DEdeg", "e_pos_mas", "ddec", "decMeanErr"),
    "pm_ra": ("pm_ra", "pmra", "pmRA"),
    "pm_dec": ("pm_dec", "pmdec", "pmDE", "pmDEC"),
    "epoch": ("epoch", "ref_epoch"),
    "parallax": ("parallax", "Plx", "plx"),
    **{f"mag_{b}": (f"mag_{b}", f"{b}mag", f"{b}_mag", f"{b}MeanPSFMag", f"psfMag_{b}", b) for b in _BANDS},
    **{
        f"mag_{b}_err": (
            f"mag_{b}_err", f"e_{b}mag", f"{b}magerr", f"{b}_mag_err", f"{b}MeanPSFMagErr", f"psfMagErr_{b}",
            f"e_{b}", f"d{b}", f"{b}_err",
        )
        for b in _BANDS
    },
    "is_extended": ("is_extended", "extended"),
    "star_score": ("star_score", "ps_score", "class_star", "CLASS_STAR"),
    "is_variable": ("is_variable", "variable", "VarFlag", "phot_variable_flag", "dupvar"),
}  # fmt: skip
"""Our column -> names it goes by elsewhere (Gaia archive, VizieR, Pan-STARRS, SDSS, ATLAS-RefCat2); case matters,
since ``Gmag`` is Gaia's and ``gmag`` the g band's."""

_GAIA = (("phot_g_mean_mag", "Gmag", "Gaia"), ("phot_bp_mean_mag", "BPmag", "BP"), ("phot_rp_mean_mag", "RPmag", "RP"))
_UNITS = {
    "ra": "deg", "dec": "deg", "ra_err": "mas", "dec_err": "mas", "pm_ra": "mas / yr", "pm_dec": "mas / yr",
    "parallax": "mas",
}  # fmt: skip
_ASSUMED = {"raMeanErr": "arcsec", "decMeanErr": "arcsec"}
"""Units of columns that usually do not state theirs, where they differ from ours."""
_PSF_AND_KRON = ("iMeanPSFMag", "iMeanKronMag")
_STAR_EXCESS, _MORPHOLOGY_SCATTER, _SATURATED_MAG = 0.05, 0.02, 14.0
_HALF = 0.5
_DEFAULT_POSITION_ERROR_MAS = 50.0
_DEFAULT_MAGNITUDE_ERROR = 0.03


@dataclass(frozen=True)
class RefcatReading:
    """A reference catalog and how it was understood."""

    catalog: Catalog
    mapping: dict[str, str]
    """Our column -> where it came from, in words."""
    n_dropped: int
    """Rows without a position."""


def refcat_from_table(
    table: NamedTable, *, columns: Mapping[str, str] | None = None, epoch: float | None = None
) -> RefcatReading:
    """Return the table as a REFCAT catalog.

    ``columns`` (our name -> the table's) goes before what is recognised; ``epoch`` is the Julian
    year of the positions where no column tells (2016.0 if it is not given). Raises ConfigError for names that
    do not exist and DataError where there are no positions.
    """
    chosen = _chosen_columns(table, columns or {})
    mapping = dict(chosen)
    if missing := [name for name in ("ra", "dec") if name not in chosen]:
        raise DataError(f"no column is known as {' and '.join(missing)}; the table has {', '.join(table.columns)}")
    filled: dict[str, Any] = {name: _in_our_unit(table, chosen[name], name) for name in _UNITS if name in chosen}
    n = table.n_rows
    filled["epoch"] = _epochs(table, chosen.get("epoch"), epoch, n, mapping)
    _fill_errors(filled, n, mapping)
    for name in ("pm_ra", "pm_dec", "parallax"):
        filled[name] = np.nan_to_num(filled.get(name, np.zeros(n)))
    _fill_magnitudes(table, chosen, filled, mapping)
    filled["star_score"] = _star_scores(table, chosen.get("star_score"), n, mapping)
    if "is_extended" in chosen:
        filled["is_extended"] = _flag(table, chosen["is_extended"], n, mapping, "is_extended")
    else:
        filled["is_extended"] = filled["star_score"] < _HALF
        if np.isfinite(filled["star_score"]).any():
            mapping["is_extended"] = f"star_score below {_HALF}"
    filled["is_variable"] = _flag(table, chosen.get("is_variable"), n, mapping, "is_variable")
    keep = np.isfinite(filled["ra"]) & np.isfinite(filled["dec"]) & (np.abs(filled["dec"]) <= 90.0)
    filled = {name: values[keep] for name, values in filled.items()}
    filled["ra"] %= 360.0
    filled["ref_id"] = _identifiers(table, chosen.get("ref_id"), keep, filled, mapping)
    return RefcatReading(REFCAT.catalog(filled), mapping, int(n - keep.sum()))


def _chosen_columns(table: NamedTable, wanted: Mapping[str, str]) -> dict[str, str]:
    known = {column.name for column in REFCAT.columns}
    if foreign := [name for name in wanted if name not in known]:
        raise ConfigError(f"reference catalogs have no column {foreign[0]!r}; they have {', '.join(sorted(known))}")
    if absent := [name for name in wanted.values() if name not in table.columns]:
        raise ConfigError(f"the table has no column {absent[0]!r}; it has {', '.join(table.columns)}")
    recognised = {
        ours: next(name for name in names if name in table.columns)
        for ours, names in NAMES.items()
        if any(name in table.columns for name in names)
    }
    return recognised | dict(wanted)


def _in_our_unit(table: NamedTable, theirs: str, ours: str) -> Floats:
    """Return a column of angles or motions in our unit; sexagesimal text is understood for positions."""
    values, stated = table.columns[theirs], table.units.get(theirs, _ASSUMED.get(theirs, ""))
    if values.dtype.kind == "U":
        if ours not in ("ra", "dec"):
            raise DataError(f"column {theirs} is text, not numbers")
        unit = units.hourangle if ours == "ra" and any(mark in values[0] for mark in ": h") else units.deg
        return np.asarray(Angle(values, unit=unit).deg, dtype=np.float64)
    numbers = values.astype(np.float64)
    if not stated:
        return numbers
    try:
        return np.asarray(numbers * units.Unit(stated).to(_UNITS[ours]), dtype=np.float64)
    except (ValueError, units.UnitConversionError):
        raise DataError(f"column {theirs} has the unit {stated!r}, needs one of {_UNITS[ours]!r}") from None


def _epochs(table: NamedTable, theirs: str | None, epoch: float | None, n: int, mapping: dict[str, str]) -> Floats:
    if epoch is not None or theirs is None:
        mapping["epoch"] = f"{epoch} (given)" if epoch is not None else "2016.0 (assumed)"
        return np.full(n, 2016.0 if epoch is None else epoch)
    values = table.columns[theirs].astype(np.float64)
    finite = np.isfinite(values)
    if not np.all((values[finite] > 1800) & (values[finite] < 2200)):
        raise DataError(f"column {theirs} is no Julian year (first value {values[0]}): give the epoch instead")
    return np.where(finite, values, 2016.0)


def _fill_errors(filled: dict[str, Any], n: int, mapping: dict[str, str]) -> None:
    for name in ("ra_err", "dec_err"):
        if name not in filled:
            mapping[name] = f"{_DEFAULT_POSITION_ERROR_MAS:.0f} mas (assumed)"
            filled[name] = np.full(n, _DEFAULT_POSITION_ERROR_MAS)
        bad = ~(np.isfinite(filled[name]) & (filled[name] >= 0))
        filled[name] = np.where(bad, _DEFAULT_POSITION_ERROR_MAS, filled[name])


def _fill_magnitudes(
    table: NamedTable, chosen: dict[str, str], filled: dict[str, Any], mapping: dict[str, str]
) -> None:
    gaia = [next((name for name in names if name in table.columns), None) for names in _GAIA]
    for band in _BANDS:
        key, key_err = f"mag_{band}", f"mag_{band}_err"
        if key in chosen:
            magnitude = _plausible(table.columns[chosen[key]])
            error = _errors_of(table, chosen.get(key_err), magnitude, mapping, key_err)
        elif all(gaia):
            g_mag, bp, rp = (_plausible(table.columns[str(name)]) for name in gaia)
            magnitude, error = sdss_from_gaia(band, g_mag=g_mag, bp_rp=bp - rp)
            mapping[key] = mapping[key_err] = f"{gaia[0]}, {gaia[1]}, {gaia[2]} (Gaia to SDSS relations)"
        else:
            magnitude = error = np.full(table.n_rows, np.nan)
        filled[key], filled[key_err] = magnitude, error


def _errors_of(table: NamedTable, theirs: str | None, magnitude: Floats, mapping: dict[str, str], ours: str) -> Floats:
    if theirs is None:
        mapping[ours] = f"{_DEFAULT_MAGNITUDE_ERROR} mag (assumed)"
        return np.where(np.isfinite(magnitude), _DEFAULT_MAGNITUDE_ERROR, np.nan)
    error = table.columns[theirs].astype(np.float64)
    return np.where(np.isfinite(magnitude) & (error > 0) & (error < 5), error, np.nan)


def _plausible(values: NDArray[Any]) -> Floats:
    """Return magnitudes with the marks of missing ones (0, 99, -999...) as NaN."""
    numbers = values.astype(np.float64)
    return np.where(np.isfinite(numbers) & (numbers > -5) & (numbers < 40) & (numbers != 0.0), numbers, np.nan)


_FLAG_MEANINGS: dict[str, tuple[str, Callable[[NDArray[Any]], NDArray[np.bool_]]]] = {
    "VarFlag": ("is VARIABLE", lambda v: v == "VARIABLE"),
    "phot_variable_flag": ("is VARIABLE", lambda v: v == "VARIABLE"),
    "dupvar": ("is 1 or 5", lambda v: np.isin(v, (1, 5))),
}


def _flag(table: NamedTable, theirs: str | None, n: int, mapping: dict[str, str], ours: str) -> NDArray[np.bool_]:
    if theirs is None:
        return np.zeros(n, dtype=bool)
    values = table.columns[theirs]
    if theirs in _FLAG_MEANINGS:
        words, test = _FLAG_MEANINGS[theirs]
        mapping[ours] = f"{theirs} {words}"
        return np.asarray(test(values))
    if values.dtype.kind == "U":
        raise DataError(f"column {theirs} is text: {ours} needs a boolean or a number")
    return np.asarray(np.nan_to_num(values.astype(np.float64)) != 0)


def _star_scores(table: NamedTable, theirs: str | None, n: int, mapping: dict[str, str]) -> Floats:
    """Return the catalog's own scores, else those of Pan-STARRS's PSF and Kron magnitudes, else NaN.

    A source is taken for a star where its i magnitudes by PSF and by Kron aperture differ by less than 0.05 mag (the
    survey's own rule, Farrow et al. 2014); the score is the probability of that, given their errors and 0.02 mag. None
    is given above 14 mag, where stars saturate.
    """
    if theirs is not None:
        values = table.columns[theirs]
        if values.dtype.kind == "U":
            raise DataError(f"column {theirs} is text: star_score needs numbers from 0 to 1")
        score = values.astype(np.float64)
        return np.where((score >= 0.0) & (score <= 1.0), score, np.nan)
    if any(name not in table.columns for name in _PSF_AND_KRON):
        return np.full(n, np.nan)
    psf, kron = (_plausible(table.columns[name]) for name in _PSF_AND_KRON)
    variance = np.full(n, _MORPHOLOGY_SCATTER**2)
    for name in _PSF_AND_KRON:
        error = table.columns[f"{name}Err"].astype(np.float64) if f"{name}Err" in table.columns else np.zeros(n)
        variance += np.where((error > 0.0) & (error < 5.0), error, 0.0) ** 2
    mapping["star_score"] = "iMeanPSFMag - iMeanKronMag below 0.05 mag, graded by the errors"
    score = ndtr((_STAR_EXCESS - (psf - kron)) / np.sqrt(variance))
    return np.asarray(np.where(psf > _SATURATED_MAG, score, np.nan))


def _identifiers(
    table: NamedTable, theirs: str | None, keep: NDArray[np.bool_], filled: dict[str, Any], mapping: dict[str, str]
) -> NDArray[np.int64]:
    """Return the table's integers if they are unique, else the HEALPix keys of the positions."""
    if theirs is not None and table.columns[theirs].dtype.kind in "iu":
        values = table.columns[theirs][keep].astype(np.int64)
        if np.unique(values).size == values.size:
            return values
    mapping["ref_id"] = "HEALPix number of the position"
    return healpix_key(ra=filled["ra"], dec=filled["dec"])
