"""Describe a visit's detector image for the detection store."""

from __future__ import annotations

from typing import Any

import numpy as np

from gueststar.algorithms.photometry.depth import point_source_limit
from gueststar.core.bits import UNUSABLE, MaskPlane
from gueststar.core.errors import DataError
from gueststar.model.camera import Detector
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import CalibratedImage
from gueststar.model.visit import VisitRecord


def describe_visit(
    info: ExposureInfo,
    detector: Detector,
    *,
    band_id: int,
    science: CalibratedImage,
    difference: CalibratedImage,
    reference_id: int = 0,
    difference_name: str = "",
    reliability_version: str = "",
    metrics: dict[str, Any] | None = None,
) -> VisitRecord:
    """Return the record of one detector image; ``metrics`` are the science image's, where they exist.

    Raises DataError if the difference image has no usable pixel.
    """
    known = metrics or {}
    photocal = science.photocal
    ny, nx = difference.shape
    background = difference.pixels.variance[difference.pixels.is_usable(UNUSABLE | MaskPlane.REFERENCE_MASKED)]
    if background.size == 0:
        raise DataError(f"visit {info.exposure_id} detector {detector.id}: no usable pixel on the difference image")
    psf_stamp = difference.psf.stamp(x=(nx - 1) / 2, y=(ny - 1) / 2)
    limit = float(difference.photocal.magnitude(point_source_limit(background, psf_stamp)))
    corner_ra, corner_dec = science.wcs.corners(science.shape)
    corners = {f"ra_{k + 1}": float(corner_ra[k]) for k in range(4)}
    corners |= {f"dec_{k + 1}": float(corner_dec[k]) for k in range(4)}
    scatter = float(known.get("astrometric_rms_mas", 0.0)) / 1000.0
    return VisitRecord(
        visit=info.exposure_id, detector=detector.id, rcid=detector.rcid,
        mjd_start=info.mjd_start, exposure_s=info.exposure_s, day_obs=info.day_obs,
        program=int(info.program), principal_investigator=info.principal_investigator,
        band_id=band_id, field=info.field or 0,
        limiting_mag=limit,
        zero_point=photocal.zero_point, zero_point_err=photocal.zero_point_err,
        zero_point_rms=photocal.zero_point_rms, colour_term=photocal.colour_term,
        colour_term_err=photocal.colour_term_err, n_calibrators=photocal.n_calibrators,
        median_colour=photocal.median_colour, rms_colour=photocal.rms_colour,
        pixel_scale=science.wcs.pixel_scale_arcsec,
        fwhm=science.psf.central_fwhm, difference_fwhm=difference.psf.central_fwhm,
        difference_noise=float(np.sqrt(np.median(background))),
        background=float(known.get("sky_electrons", 0.0)), noise=float(known.get("sky_rms_electrons", 0.0)),
        astrometric_rms_ra=scatter, astrometric_rms_dec=scatter,
        reference_id=reference_id, difference_name=difference_name, reliability_version=reliability_version,
        **corners,
    )  # fmt: skip
