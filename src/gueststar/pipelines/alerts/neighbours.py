"""What lies near detections: reference sources, catalog objects, known Solar-System objects."""

from __future__ import annotations

import numpy as np

from gueststar.algorithms.association.match import count_within, nearest
from gueststar.algorithms.astrometry.proper_motion import propagate_positions
from gueststar.algorithms.photocal.gaia_magnitude import gaia_g
from gueststar.formats.ztf_fields import MISSING, MISSING_NAME
from gueststar.model.catalog import Catalog, Column, Schema
from gueststar.pipelines.alerts.wire_fields import Fields, numbers

SOLAR_SYSTEM_MATCH = Schema(
    "solar_system_match",
    (
        Column("dia_source_id", "i8", "", "the detection"),
        Column("distance", "f4", "arcsec", "to the nearest known Solar-System object"),
        Column("mag", "f4", "mag", "its predicted V magnitude"),
        Column("name", "U", "", "its name or number"),
    ),
)
"""Known Solar-System objects near detections, one row for each detection that has one within 30 arcsec."""

REFERENCE_RADIUS_ARCSEC = 30.0
_CATALOG_RADIUS_ARCSEC = 30.0
_STAR_RADIUS_ARCSEC = 90.0
_BRIGHT_MAG = 14.0


def with_reference(dia_sources: Catalog, reference_sources: Catalog | None) -> tuple[Catalog, np.ndarray, np.ndarray]:
    """Return detections with what is known of the nearest reference source within 30 arcsec, and its (ra, dec).

    Without ``reference_sources`` (`SOURCE` rows) the columns stay as they were measured and places are NaN.
    """
    unknown = np.full(dia_sources.n_rows, np.nan)
    if reference_sources is None or reference_sources.n_rows == 0 or dia_sources.n_rows == 0:
        return dia_sources, unknown, unknown
    index, distance = nearest(
        dia_sources["ra"], dia_sources["dec"], reference_sources["ra"], reference_sources["dec"],
        k=1, max_arcsec=REFERENCE_RADIUS_ARCSEC,
    )  # fmt: skip
    row, is_found = np.maximum(index[:, 0], 0), index[:, 0] >= 0

    def of_nearest(name: str) -> np.ndarray:
        return np.where(is_found, reference_sources[name][row], np.nan)

    known = dia_sources.replace(
        reference_distance=distance[:, 0], reference_mag=of_nearest("mag"), reference_mag_err=of_nearest("mag_err"),
        reference_chi2=of_nearest("chi2"), reference_sharpness=of_nearest("sharpness"),
    )  # fmt: skip
    return known, of_nearest("ra"), of_nearest("dec")


def catalog_fields(dia_sources: Catalog, refcat: Catalog | None, *, epoch_year: float) -> Fields:
    """Return the fields of the three nearest catalog objects, the nearest star and the nearest bright star."""
    n = dia_sources.n_rows
    if refcat is None or refcat.n_rows == 0:
        return _no_catalog(n)
    years = epoch_year - refcat["epoch"].astype(np.float64)
    ra, dec = propagate_positions(
        ra=refcat["ra"], dec=refcat["dec"], pm_ra=refcat["pm_ra"], pm_dec=refcat["pm_dec"], years=np.nan_to_num(years)
    )
    here = (dia_sources["ra"], dia_sources["dec"])
    index, distance = nearest(*here, ra, dec, k=3, max_arcsec=_CATALOG_RADIUS_ARCSEC)
    fields: Fields = {}
    for k in range(3):
        fields |= _object_fields(refcat, index[:, k], distance[:, k], k + 1)
    fields["nmtchps"] = count_within(*here, ra, dec, radius_arcsec=_CATALOG_RADIUS_ARCSEC).tolist()
    mag = gaia_g(refcat["mag_g"], refcat["mag_r"], refcat["mag_i"])
    is_star = ~refcat["is_extended"].astype(bool)
    for name, chosen in (("gaia", is_star), ("gaiabright", is_star & (mag < _BRIGHT_MAG))):
        star, star_distance = nearest(*here, ra[chosen], dec[chosen], k=1, max_arcsec=_STAR_RADIUS_ARCSEC)
        fields[f"near{name}"] = numbers(star_distance[:, 0])
        magnitudes = np.append(mag[chosen], np.nan)  # row -1: none
        fields[f"mag{name}"] = numbers(magnitudes[star[:, 0]])
    return fields


def solar_system_fields(dia_sources: Catalog, matches: Catalog | None) -> Fields:
    """Return the fields of the nearest known Solar-System object (`SOLAR_SYSTEM_MATCH` rows)."""
    known: dict[int, tuple[float, float, str]] = {}
    if matches is not None:
        rows = zip(
            matches["dia_source_id"].tolist(), numbers(matches["distance"]), numbers(matches["mag"]),
            matches["name"].tolist(), strict=True,
        )  # fmt: skip
        known = {candid: (distance, mag, str(name)) for candid, distance, mag, name in rows}
    found = [known.get(candid, (MISSING, MISSING, MISSING_NAME)) for candid in dia_sources["dia_source_id"].tolist()]
    return {name: [row[k] for row in found] for k, name in enumerate(("ssdistnr", "ssmagnr", "ssnamenr"))}


def _object_fields(refcat: Catalog, index: np.ndarray, distance: np.ndarray, k: int) -> Fields:
    row, is_found = np.maximum(index, 0), index >= 0
    fields: Fields = {
        f"s{band}mag{k}": numbers(np.where(is_found, refcat[f"mag_{band}"][row], np.nan)) for band in "griz"
    }
    graded = refcat["star_score"].astype(np.float64)
    score = np.where(np.isfinite(graded), graded, np.where(refcat["is_extended"], 0.0, 1.0))[row]
    fields[f"sgscore{k}"] = numbers(np.where(is_found, score, np.nan))
    fields[f"distpsnr{k}"] = numbers(distance)
    fields[f"objectidps{k}"] = np.where(is_found, refcat["ref_id"][row], int(MISSING)).tolist()
    return fields


def _no_catalog(n: int) -> Fields:
    names = [f"s{band}mag{k}" for k in (1, 2, 3) for band in "griz"]
    names += [f"{name}{k}" for k in (1, 2, 3) for name in ("sgscore", "distpsnr")]
    names += ["neargaia", "neargaiabright", "maggaia", "maggaiabright"]
    fields: Fields = {name: [MISSING] * n for name in names}
    fields |= {f"objectidps{k}": [int(MISSING)] * n for k in (1, 2, 3)}
    return fields | {"nmtchps": [0] * n}
