"""From catalog columns to the fields of packets: one function a group of fields, one list a field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gueststar.core import ids, times
from gueststar.core.ids import MAX_PER_SIGN
from gueststar.formats.ztf_fields import MISSING
from gueststar.model.catalog import Catalog
from gueststar.model.photocal import NJY_ZERO_POINT

Fields = dict[str, list[Any]]


def exposure_fields(visits: Catalog) -> Fields:
    """Return the fields that tell of exposures (`VISIT` rows): all that an upper limit tells."""
    start = visits["mjd_start"]
    jd = times.jd_utc_of(start).tolist() if visits.n_rows else []
    pid = ids.wire_pids(start, visits["rcid"]).tolist() if visits.n_rows else []
    return {
        "jd": jd,
        "fid": visits["band_id"].tolist(),
        "pid": pid,
        "diffmaglim": numbers(visits["limiting_mag"]),
        "pdiffimfilename": visits["difference_name"].tolist(),
        "programpi": visits["principal_investigator"].tolist(),
        "programid": visits["program"].tolist(),
        "nid": [number // 1_000_000_000 for number in pid],
        "rcid": visits["rcid"].tolist(),
        "field": visits["field"].tolist(),
        "magzpsci": numbers(visits["zero_point"]),
        "magzpsciunc": numbers(visits["zero_point_err"]),
        "magzpscirms": numbers(visits["zero_point_rms"]),
        "clrcoeff": numbers(visits["colour_term"]),
        "clrcounc": numbers(visits["colour_term_err"]),
        "rbversion": visits["reliability_version"].tolist(),
    }


def detection_fields(sources: Catalog, visits: Catalog) -> Fields:
    """Return the fields that tell of detections (`DIA_SOURCE` rows), with the `VISIT` row of each.

    Magnitudes are those of the absolute flux; an aperture flux of the wrong sign has none.
    """
    sign = np.where(sources["is_positive"], 1.0, -1.0)
    magpsf, sigmapsf = _magnitude(sign * sources["psf_flux"], sources["psf_flux_err"])
    magap, sigmagap = _magnitude(sign * sources["ap_flux"], sources["ap_flux_err"])
    magapbig, sigmagapbig = _magnitude(sign * sources["ap_big_flux"], sources["ap_big_flux_err"])
    njy_per_electron = 10.0 ** (0.4 * (NJY_ZERO_POINT - visits["zero_point"]))
    fwhm, a, b = (sources[name].astype(np.float64) for name in ("fwhm", "a_image", "b_image"))
    return {
        "candid": sources["dia_source_id"].tolist(),
        "isdiffpos": ["t" if positive else "f" for positive in sources["is_positive"].tolist()],
        "tblid": [number % MAX_PER_SIGN for number in sources["dia_source_id"].tolist()],
        "xpos": numbers(sources["x"] + 1.0),
        "ypos": numbers(sources["y"] + 1.0),
        "ra": sources["ra"].tolist(),
        "dec": sources["dec"].tolist(),
        "magpsf": numbers(magpsf),
        "sigmapsf": numbers(sigmapsf),
        "chipsf": numbers(sources["chi2"]),
        "magap": numbers(magap),
        "sigmagap": numbers(sigmagap),
        "sky": numbers(sources["sky"] / njy_per_electron),
        "magdiff": numbers(magap - magpsf),
        "fwhm": numbers(fwhm),
        "classtar": numbers(sources["class_star"]),
        "mindtoedge": numbers(sources["edge_distance"]),
        "magfromlim": numbers(visits["limiting_mag"] - magap),
        "seeratio": numbers(_ratio(visits["difference_fwhm"], fwhm)),
        "aimage": numbers(a),
        "bimage": numbers(b),
        "aimagerat": numbers(_ratio(a, fwhm)),
        "bimagerat": numbers(_ratio(b, fwhm)),
        "elong": numbers(_ratio(a, b)),
        "nneg": sources["n_negative"].tolist(),
        "nbad": sources["n_bad"].tolist(),
        "rb": numbers(sources["reliability"]),
        "sumrat": numbers(sources["sum_ratio"]),
        "magapbig": numbers(magapbig),
        "sigmagapbig": numbers(sigmagapbig),
        "scorr": numbers(np.abs(sources["snr"].astype(np.float64))),
        "distnr": numbers(sources["reference_distance"] / visits["pixel_scale"]),
        "magnr": numbers(sources["reference_mag"]),
        "sigmagnr": numbers(sources["reference_mag_err"]),
        "chinr": numbers(np.sqrt(sources["reference_chi2"])),
        "sharpnr": numbers(sources["reference_sharpness"]),
    }


def numbers(values: ArrayLike) -> list[float]:
    """Return plain floats, `MISSING` where a value is not finite."""
    array = np.asarray(values, dtype=np.float64)
    return list(np.where(np.isfinite(array), array, MISSING).tolist())


def rows_from(fields: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """Return lists of equal length as one dictionary a row."""
    names = tuple(fields)
    return [dict(zip(names, row, strict=True)) for row in zip(*fields.values(), strict=True)]


def _magnitude(flux: Any, flux_err: Any) -> tuple[Any, Any]:
    """Return AB magnitudes and errors of fluxes (nJy), NaN where the flux is not positive."""
    positive = np.where(flux > 0, flux, np.nan).astype(np.float64)
    return NJY_ZERO_POINT - 2.5 * np.log10(positive), 2.5 / np.log(10.0) * flux_err.astype(np.float64) / positive


def _ratio(numerator: Any, denominator: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)
