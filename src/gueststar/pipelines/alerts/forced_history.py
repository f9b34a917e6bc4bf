"""Forced photometry of the past 30 days, as packets tell it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.core.bits import SourceFlag
from gueststar.formats.ztf_fields import MISSING, MISSING_FLUX
from gueststar.model.catalog import Catalog
from gueststar.model.photocal import NJY_ZERO_POINT
from gueststar.pipelines.alerts.visible import VisibleHistory, image_at, images_of
from gueststar.pipelines.alerts.wire_fields import Fields, exposure_fields, numbers, rows_from

_NOT_TOLD = ("pdiffimfilename", "programpi", "nid", "rbversion")
_BAD_PIXELS, _NO_REFERENCE = "56", "57"
_REFERENCE_WITHIN_ARCSEC = 5.0
BAD = SourceFlag.SATURATED | SourceFlag.BAD_PIXEL | SourceFlag.COSMIC_RAY | SourceFlag.EDGE
"""Flags of fluxes that are not to be trusted."""

References = dict[int, dict[str, float]]
"""What is known of the nearest reference source, by filter number."""


def told_forced(seen: VisibleHistory, object_id: int, known_since: Mapping[int, int]) -> list[int]:
    """Return the visible forced sources of an object (rows) from the commit on at which the stream first knew it."""
    forced = seen.forced
    if forced.n_rows == 0 or object_id not in known_since:
        return []
    is_mine = (forced["dia_object_id"] == object_id) & (forced["sequence"] > known_since[object_id])
    mine = sorted(np.flatnonzero(is_mine).tolist(), key=lambda i: -int(forced["sequence"][i]))
    first = {image_at(forced, i): i for i in mine}  # measured again for another stream: the first measurement
    return list(first.values())


def forced_records(seen: VisibleHistory) -> list[dict[str, Any]]:
    """Return the parts of `fp_hist` records that the exposure and the flux give, one a visible forced source."""
    forced = seen.forced
    if forced.n_rows == 0:
        return []
    row_of = {image: row for row, image in enumerate(images_of(seen.visits))}
    visits = seen.visits.select(np.array([row_of[image] for image in images_of(forced)]))
    fields = exposure_fields(visits) | _flux_fields(forced, visits) | _image_fields(visits)
    return rows_from({name: values for name, values in fields.items() if name not in _NOT_TOLD})


def finished(record: dict[str, Any], references: References) -> dict[str, Any]:
    """Return a record with the nearest reference source of its filter and its status."""
    reference = references.get(record["fid"], no_reference())
    has_reference = 0.0 <= reference["distnr"] <= _REFERENCE_WITHIN_ARCSEC
    warnings = [record["procstatus"]] if record["procstatus"] != "0" else []
    warnings += [] if has_reference else [_NO_REFERENCE]
    return record | reference | {"procstatus": ",".join(warnings) or "0"}


def no_reference() -> dict[str, float]:
    """Return the fields of a nearest reference source that does not exist or is not known."""
    return dict.fromkeys(("distnr", "ranr", "decnr", "magnr", "sigmagnr", "chinr", "sharpnr"), MISSING)


def reference_rows(sources: Catalog, ra: NDArray[np.float64], dec: NDArray[np.float64]) -> list[dict[str, float]]:
    """Return the fields of the nearest reference source of each detection (distance in arcsec)."""
    return rows_from(
        {
            "distnr": numbers(sources["reference_distance"]),
            "ranr": numbers(ra),
            "decnr": numbers(dec),
            "magnr": numbers(sources["reference_mag"]),
            "sigmagnr": numbers(sources["reference_mag_err"]),
            "chinr": numbers(np.sqrt(sources["reference_chi2"])),
            "sharpnr": numbers(sources["reference_sharpness"]),
        }
    )


def _flux_fields(forced: Catalog, visits: Catalog) -> Fields:
    """Return fluxes in the image's unit, so that the record's zero point belongs to them."""
    njy_per_electron = 10.0 ** (0.4 * (NJY_ZERO_POINT - visits["zero_point"]))
    flux, error = forced["psf_flux"] / njy_per_electron, forced["psf_flux_err"] / njy_per_electron
    is_measured = np.isfinite(flux) & np.isfinite(error) & (error > 0)
    is_bad = (forced["flags"] & int(BAD)) != 0
    return {
        "forcediffimflux": np.where(is_measured, flux, MISSING_FLUX).tolist(),
        "forcediffimfluxunc": np.where(is_measured, error, MISSING_FLUX).tolist(),
        "procstatus": [_BAD_PIXELS if bad else "0" for bad in (is_bad | ~is_measured).tolist()],
    }


def _image_fields(visits: Catalog) -> Fields:
    return {
        "rfid": visits["reference_id"].tolist(),
        "sciinpseeing": numbers(visits["fwhm"]),
        "scibckgnd": numbers(visits["background"]),
        "scisigpix": numbers(visits["noise"]),
        "exptime": numbers(visits["exposure_s"]),
        "adpctdif1": numbers(visits["astrometric_rms_ra"]),
        "adpctdif2": numbers(visits["astrometric_rms_dec"]),
    }
