"""The ``candidate`` record: what a packet tells of the detection that triggered it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.core import times
from gueststar.formats.ztf_fields import MISSING
from gueststar.model.catalog import Catalog
from gueststar.model.photocal import NJY_ZERO_POINT
from gueststar.model.visit import VISIT, VisitRecord
from gueststar.pipelines.alerts.wire_fields import Fields, detection_fields, exposure_fields, numbers


@dataclass(frozen=True)
class ReferenceFacts:
    """What is told of the reference image."""

    mjd_first: float
    """Start of the earliest exposure in it, MJD TAI; NaN if not known (references made elsewhere)."""
    mjd_last: float
    """Start of the latest."""
    n_exposures: int


def candidate_fields(
    sources: Catalog,
    record: VisitRecord,
    *,
    reference: ReferenceFacts,
    reference_places: tuple[NDArray[np.float64], NDArray[np.float64]],
    central_pixels: NDArray[np.float64],
    is_target_of_opportunity: bool,
) -> Fields:
    """Return the fields of detections that their own visit gives: all but history and catalog neighbours.

    ``central_pixels`` are the difference image's values at the detections, electrons.
    """
    n = sources.n_rows
    visits = VISIT.catalog({column.name: [getattr(record, column.name)] * n for column in VISIT.columns})
    one = visits.select(np.zeros(1, dtype=np.intp))
    fields: Fields = {name: values * n for name, values in exposure_fields(one).items()}
    fields |= detection_fields(sources, visits)
    fields |= {name: [value] * n for name, value in _constants(record, reference).items()}
    fields |= _noise_fields(sources, record, central_pixels)
    fields |= {"ranr": numbers(reference_places[0]), "decnr": numbers(reference_places[1])}
    fields |= {"drb": numbers(sources["stamp_reliability"])}
    fields |= {"drbversion": [record.network_version or "none"] * n}
    return fields | {"tooflag": [int(is_target_of_opportunity)] * n}


def _constants(record: VisitRecord, reference: ReferenceFacts) -> dict[str, Any]:
    """Return what is the same for all detections of an image.

    The covariance of zero point and colour coefficient is that of a straight line fitted to calibrators of
    this mean colour; the median zero point is the one at their median colour.
    """
    return {
        "rfid": record.reference_id,
        "jdstartref": _jd_or_missing(reference.mjd_first),
        "jdendref": _jd_or_missing(reference.mjd_last),
        "nframesref": reference.n_exposures,
        "nmatches": record.n_calibrators,
        "zpclrcov": -record.median_colour * record.colour_term_err**2,
        "zpmed": record.zero_point + record.colour_term * record.median_colour,
        "clrmed": record.median_colour,
        "clrrms": record.rms_colour,
        "exptime": record.exposure_s,
    }


def _jd_or_missing(mjd_tai: float) -> float:
    return times.jd_utc(mjd_tai) if np.isfinite(mjd_tai) else MISSING


def _noise_fields(sources: Catalog, record: VisitRecord, central_pixels: NDArray[np.float64]) -> Fields:
    """Return signal to noise against the noise of the whole image.

    The image filtered with its PSF, over its standard deviation, is the PSF flux over the flux error of
    the typical background, which the limiting magnitude tells (it is five times that).
    """
    sign = np.where(sources["is_positive"], 1.0, -1.0)
    flux_err = 10.0 ** (0.4 * (NJY_ZERO_POINT - record.limiting_mag)) / 5.0
    filtered = sign * sources["psf_flux"] / flux_err
    pixel = (
        sign * central_pixels / record.difference_noise if record.difference_noise > 0 else np.full(len(sign), np.nan)
    )
    return {"dsnrms": numbers(pixel), "ssnrms": numbers(filtered), "dsdiff": numbers(pixel - filtered)}
