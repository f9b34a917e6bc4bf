"""Tables of what is true, exposure by exposure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.core import times
from gueststar.model.catalog import Catalog, Column, Schema
from gueststar.model.wcs import Wcs
from gueststar.simulation.conditions import Conditions

TRUE_EXPOSURE = Schema(
    "true_exposure",
    (
        Column("exposure_id", "i8", "", "identifier, as from the header's start time"),
        Column("serial", "i4", "", "number of the science exposure in the survey, from 0"),
        Column("night", "i4", "", "index of the night, from 0"),
        Column("day_obs", "i4", "", "survey night, YYYYMMDD"),
        Column("mjd_tai", "f8", "day", "middle of the exposure"),
        Column("exposure_s", "f8", "s", "exposure time"),
        Column("physical_filter", "U32", "", "filter"),
        Column("band", "U8", "", "band"),
        Column("program", "i4", "", "access category"),
        Column("field", "i4", "", "field number"),
        Column("is_lost", "?", "", "scheduled, but no file was written"),
        Column("header_ra", "f8", "deg", "boresight as the header says"),
        Column("header_dec", "f8", "deg", "boresight as the header says"),
        Column("ra", "f8", "deg", "true boresight"),
        Column("dec", "f8", "deg", "true boresight"),
        Column("rotation_deg", "f8", "deg", "true rotation of the camera"),
        Column("airmass", "f8", "", "airmass at the boresight"),
        Column("fwhm_arcsec", "f8", "arcsec", "delivered image width at the centre of the field, pixels included"),
        Column("zero_point", "f8", "mag", "AB magnitude of one electron, colour 0, no clouds, mean efficiency"),
        Column("extinction_mag", "f8", "mag", "by clear air (included in zero_point)"),
        Column("cloud_mag", "f8", "mag", "mean extinction by clouds (not included in zero_point)"),
        Column("sky_mag", "f8", "mag/arcsec2", "brightness of the sky at the boresight"),
        Column("weather", "U16", "", "weather of the scenario"),
    ),
)

TRUE_DETECTOR_IMAGE = Schema(
    "true_detector_image",
    (
        Column("exposure_id", "i8", "", "the exposure"),
        Column("detector", "i4", "", "detector id"),
        Column("zero_point", "f8", "mag", "AB magnitude of one electron at the median pixel, colour 0, no clouds"),
        Column("cloud_mag", "f8", "mag", "clouds at the detector's centre"),
        Column("sky", "f8", "electron", "median sky in a pixel"),
        Column("n_cosmic_rays", "i4", "", "tracks"),
        Column("crval1", "f8", "deg", "true WCS: right ascension of the tangent point"),
        Column("crval2", "f8", "deg", "true WCS: declination of the tangent point"),
        Column("crpix1", "f8", "pixel", "true WCS: x of the tangent point, 0-based"),
        Column("crpix2", "f8", "pixel", "true WCS: y of the tangent point, 0-based"),
        Column("cd1_1", "f8", "deg/pixel", "true WCS (TPV; the coefficients are in the table's metadata)"),
        Column("cd1_2", "f8", "deg/pixel", "true WCS"),
        Column("cd2_1", "f8", "deg/pixel", "true WCS"),
        Column("cd2_2", "f8", "deg/pixel", "true WCS"),
    ),
)

OBSERVED = Schema(
    "true_observed_source",
    (
        Column("exposure_id", "i8", "", "the exposure"),
        Column("detector", "i4", "", "detector id"),
        Column("source_id", "i8", "", "identifier in the table of its kind"),
        Column("kind", "i2", "", "0 star, 1 galaxy, 2 transient, 3 asteroid, 4 variable"),
        Column("x", "f8", "pixel", "where its light is centred (refraction and turbulence included), 0-based"),
        Column("y", "f8", "pixel", "where its light is centred"),
        Column("ra", "f8", "deg", "true position at mid-exposure, ICRS"),
        Column("dec", "f8", "deg", "true position at mid-exposure"),
        Column("mag", "f8", "mag", "AB magnitude in the filter's catalog band above the air"),
        Column("flux", "f8", "electron", "expected electrons at the median sensitivity of the detector"),
        Column("trail", "f4", "pixel", "length of the motion during the exposure"),
        Column("is_saturated", "?", "", "its peak exceeds the full well"),
    ),
)


def exposure_table(conditions: tuple[Conditions, ...]) -> Catalog:
    """Return one row for each science exposure."""
    rows = [_exposure_row(item) for item in conditions]
    return TRUE_EXPOSURE.catalog({c.name: np.array([row[c.name] for row in rows]) for c in TRUE_EXPOSURE.columns})


def _exposure_row(item: Conditions) -> dict[str, Any]:
    visit = item.visit
    of_visit = ("serial", "night", "day_obs", "mjd_tai", "exposure_s", "program", "is_lost", "weather")
    of_conditions = (
        "exposure_id", "header_ra", "header_dec", "ra", "dec", "rotation_deg", "airmass", "zero_point",
        "extinction_mag", "cloud_mag", "sky_mag",
    )  # fmt: skip
    return {
        **{name: getattr(visit, name) for name in of_visit},
        **{name: getattr(item, name) for name in of_conditions},
        "physical_filter": visit.glass.physical_filter,
        "band": visit.glass.band,
        "field": visit.field.id,
        "fwhm_arcsec": item.psf.fwhm_arcsec,
    }


def detector_image_row(
    *, exposure_id: int, detector: int, wcs: Wcs, zero_point: float, cloud_mag: float, sky: float, n_cosmic_rays: int
) -> Catalog:
    """Return the one row of a detector image."""
    values: dict[str, float] = {
        "exposure_id": exposure_id, "detector": detector, "zero_point": zero_point, "cloud_mag": cloud_mag, "sky": sky,
        "n_cosmic_rays": n_cosmic_rays, "crval1": wcs.crval[0], "crval2": wcs.crval[1],
        "crpix1": wcs.crpix[0], "crpix2": wcs.crpix[1],
        "cd1_1": wcs.cd[0, 0], "cd1_2": wcs.cd[0, 1], "cd2_1": wcs.cd[1, 0], "cd2_2": wcs.cd[1, 1],
    }  # fmt: skip
    return TRUE_DETECTOR_IMAGE.catalog({name: np.array([value]) for name, value in values.items()})


def wcs_of_row(table: Catalog, row: int, *, pv1: NDArray[np.float64], pv2: NDArray[np.float64]) -> Wcs:
    """Return the true WCS of a detector image; the TPV coefficients are in the metadata of the file."""
    cd = np.array([[table["cd1_1"][row], table["cd1_2"][row]], [table["cd2_1"][row], table["cd2_2"][row]]])
    crval = (float(table["crval1"][row]), float(table["crval2"][row]))
    return Wcs(crval, (float(table["crpix1"][row]), float(table["crpix2"][row])), cd, pv1, pv2)


def schedule_lines(conditions: tuple[Conditions, ...], files: dict[int, list[str]]) -> list[str]:
    """Return the schedule as CSV: what the observing system expects to deliver."""
    lines = ["exposure_id,day_obs,start_utc,exposure_s,physical_filter,program,field,ra,dec,files"]
    for item in conditions:
        visit = item.visit
        lines.append(
            f"{item.exposure_id},{visit.day_obs},{times.isot_utc(visit.mjd_start)},{visit.exposure_s:g},"
            f"{visit.glass.physical_filter},{visit.program},{visit.field.id},"
            f"{item.header_ra:.6f},{item.header_dec:.6f},{' '.join(files[item.exposure_id])}"
        )
    return lines
