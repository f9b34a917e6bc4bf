"""What is remembered of one detector image of one visit: where it looked, how deep, and for whom."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.core import ids, times
from gueststar.core.errors import DataError
from gueststar.model.catalog import Catalog, Column, Schema
from gueststar.model.rights import Program


def _column(dtype: str, unit: str, doc: str, default: Any = None) -> Any:
    """Return a dataclass field that carries its column's type, unit and meaning."""
    metadata = {"column": (dtype, unit, doc)}
    return field(metadata=metadata) if default is None else field(default=default, metadata=metadata)


@dataclass(frozen=True)
class VisitRecord:
    """One detector image of one visit, as history needs it: a non-detection is told from here.

    The image's units are electrons; its zero point turns them into AB magnitudes.
    """

    visit: int = _column("i8", "", "visit id")
    detector: int = _column("i4", "", "detector id")
    mjd_start: float = _column("f8", "day", "start of the exposure, MJD TAI")
    exposure_s: float = _column("f8", "s", "exposure time")
    day_obs: int = _column("i4", "", "survey night, YYYYMMDD")
    program: int = _column("i4", "", "access category of the exposure")
    band_id: int = _column("i4", "", "filter number (fid)")
    rcid: int = _column("i4", "", "readout channel")
    ra_1: float = _column("f8", "deg", "first corner of the image")
    dec_1: float = _column("f8", "deg", "first corner of the image")
    ra_2: float = _column("f8", "deg", "second corner")
    dec_2: float = _column("f8", "deg", "second corner")
    ra_3: float = _column("f8", "deg", "third corner")
    dec_3: float = _column("f8", "deg", "third corner")
    ra_4: float = _column("f8", "deg", "fourth corner")
    dec_4: float = _column("f8", "deg", "fourth corner")
    limiting_mag: float = _column("f8", "mag", "5-sigma limit of the difference image for a point source, AB")
    zero_point: float = _column("f8", "mag", "AB magnitude of one electron on the science image")
    zero_point_err: float = _column("f8", "mag", "its error", 0.0)
    zero_point_rms: float = _column("f8", "mag", "scatter of the calibrators", 0.0)
    colour_term: float = _column("f8", "", "colour coefficient", 0.0)
    colour_term_err: float = _column("f8", "", "its error", 0.0)
    n_calibrators: int = _column("i4", "", "stars in the zero-point fit", 0)
    median_colour: float = _column("f8", "mag", "of the calibrators", 0.0)
    rms_colour: float = _column("f8", "mag", "scatter of the calibrators' colours", 0.0)
    pixel_scale: float = _column("f8", "arcsec", "side of a pixel", 1.0)
    field: int = _column("i4", "", "survey field; 0 if unassigned", 0)
    fwhm: float = _column("f8", "pixel", "width of the science image's PSF", 0.0)
    difference_fwhm: float = _column("f8", "pixel", "width of the difference image's PSF", 0.0)
    difference_noise: float = _column("f8", "electron", "noise per pixel of the difference image", 0.0)
    background: float = _column("f8", "electron", "level of the sky that was subtracted", 0.0)
    noise: float = _column("f8", "electron", "noise per pixel of the science image", 0.0)
    astrometric_rms_ra: float = _column("f8", "arcsec", "scatter against the reference catalog along RA", 0.0)
    astrometric_rms_dec: float = _column("f8", "arcsec", "scatter against the reference catalog along Dec", 0.0)
    reference_id: int = _column("i8", "", "the reference image that was subtracted", 0)
    principal_investigator: str = _column("U", "", "of the program", "")
    difference_name: str = _column("U", "", "name of the difference image", "")
    reliability_version: str = _column("U", "", "model that scored the detections", "")
    network_version: str = _column("U", "", "network that scored their cut-outs; empty if none did", "")

    def __post_init__(self) -> None:
        Program(self.program)
        numbers = ("mjd_start", "limiting_mag", "zero_point", "ra_1", "dec_1", "ra_2", "dec_2", "ra_3", "dec_3")
        if bad := [name for name in numbers if not np.isfinite(getattr(self, name))]:
            raise DataError(f"visit {self.visit} detector {self.detector}: {bad} are not finite")

    @property
    def mjd_tai(self) -> float:
        """Middle of the exposure, MJD TAI."""
        return self.mjd_start + self.exposure_s / 2.0 / 86400.0

    @property
    def jd_start(self) -> float:
        """Start of the exposure, Julian date UTC, as the wire tells it."""
        return times.jd_utc(self.mjd_start)

    @property
    def pid(self) -> int:
        """Processing id on the wire."""
        return ids.wire_pid(self.mjd_start, self.rcid)

    @property
    def corners(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(ra, dec) of the four corners in order around the image, degrees."""
        ra = [self.ra_1, self.ra_2, self.ra_3, self.ra_4]
        dec = [self.dec_1, self.dec_2, self.dec_3, self.dec_4]
        return np.array(ra), np.array(dec)


VISIT = Schema("visit", tuple(Column(f.name, *f.metadata["column"]) for f in fields(VisitRecord)))
"""Detector images of visits, one row each (the columns of `VisitRecord`)."""


def corner_arrays(visits: Catalog) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (ra, dec) of the corners, each ``[n_visits, 4]`` degrees."""
    ra = np.stack([visits[f"ra_{k}"] for k in (1, 2, 3, 4)], axis=1)
    dec = np.stack([visits[f"dec_{k}"] for k in (1, 2, 3, 4)], axis=1)
    return ra, dec
