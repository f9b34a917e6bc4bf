"""The ``candidate`` record: what a packet tells of the detection that triggered it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.vetting.image_ratios import image_ratios
from gueststar.core import times
from gueststar.model.catalog import Catalog
from gueststar.model.image import CalibratedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.visit import VISIT, VisitRecord
from gueststar.pipelines.alerts.wire_fields import Fields, detection_fields, exposure_fields, numbers


@dataclass(frozen=True)
class ReferenceFacts:
    """What is told of the reference image."""

    reference_id: int
    mjd_first: float
    """Start of the earliest exposure in it, MJD TAI."""
    mjd_last: float
    """Start of the latest."""
    n_exposures: int


def candidate_fields(
    sources: Catalog,
    record: VisitRecord,
    *,
    photocal: PhotoCal,
    difference: CalibratedImage,
    reference: ReferenceFacts,
    reference_places: tuple[NDArray[np.float64], NDArray[np.float64]],
    is_target_of_opportunity: bool,
) -> Fields:
    """Return the fields of detections that their own visit gives: all but history and catalog neighbours."""
    n = sources.n_rows
    visits = VISIT.catalog({column.name: [getattr(record, column.name)] * n for column in VISIT.columns})
    one = visits.select(np.zeros(1, dtype=np.intp))
    fields: Fields = {name: values * n for name, values in exposure_fields(one).items()}
    fields |= detection_fields(sources, visits, pixel_scale_arcsec=difference.wcs.pixel_scale_arcsec)
    fields |= {name: [value] * n for name, value in _constants(record, photocal, reference).items()}
    fields |= _noise_fields(sources, difference)
    fields |= {"ranr": numbers(reference_places[0]), "decnr": numbers(reference_places[1])}
    fields |= {"drb": fields["rb"], "drbversion": fields["rbversion"]}
    return fields | {"tooflag": [int(is_target_of_opportunity)] * n}


def _constants(record: VisitRecord, photocal: PhotoCal, reference: ReferenceFacts) -> dict[str, Any]:
    """Return what is the same for all detections of an image.

    The covariance of zero point and colour coefficient is that of a straight line fitted to calibrators of
    this mean colour; the median zero point is the one at their median colour.
    """
    return {
        "rfid": reference.reference_id,
        "jdstartref": times.jd_utc(reference.mjd_first),
        "jdendref": times.jd_utc(reference.mjd_last),
        "nframesref": reference.n_exposures,
        "nmatches": photocal.n_calibrators,
        "zpclrcov": -photocal.median_colour * photocal.colour_term_err**2,
        "zpmed": photocal.zero_point + photocal.colour_term * photocal.median_colour,
        "clrmed": photocal.median_colour,
        "clrrms": photocal.rms_colour,
        "exptime": record.exposure_s,
    }


def _noise_fields(sources: Catalog, difference: CalibratedImage) -> Fields:
    pixels = difference.pixels
    ny, nx = pixels.shape
    background = pixels.variance[pixels.is_usable()]
    ratios = image_ratios(
        pixels.image, x=sources["x"], y=sources["y"], sign=np.where(sources["is_positive"], 1.0, -1.0),
        sigma=float(np.sqrt(np.median(background))) if background.size else 1.0,
        psf_stamp=difference.psf.stamp(x=(nx - 1) / 2, y=(ny - 1) / 2),
    )  # fmt: skip
    return {
        "dsnrms": numbers(ratios.pixel),
        "ssnrms": numbers(ratios.filtered),
        "dsdiff": numbers(ratios.pixel - ratios.filtered),
    }
