"""Astrometry in the IAU's Astrometry Data Exchange Standard (ADES), version 2022, as pipe-separated values.

The standard has no field for the length or the direction of a trail. What it has for a trailed image: one-letter
``notes`` of the Minor Planet Center (``t``: trailed image, ``a``: sense of motion ambiguous), ``rmsRA``, ``rmsDec`` and
``rmsCorr``, in which the longer error along the trail is told, ``exp``, and free ``remarks``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gueststar.core import times
from gueststar.core.errors import DataError

NOTE_TRAILED, NOTE_AMBIGUOUS = "t", "a"
"""Of the Minor Planet Center's list of notes."""

_UNKNOWN = ""
_FIELDS = (
    "trkSub", "mode", "stn", "obsTime", "ra", "dec", "rmsRA", "rmsDec", "rmsCorr", "astCat", "mag", "rmsMag", "band",
    "logSNR", "exp", "notes", "remarks",
)  # fmt: skip


@dataclass(frozen=True)
class AdesHeader:
    """Who observed, where and with what: all that the Minor Planet Center asks of a submission."""

    station: str
    """Observatory code, three or four characters."""
    submitter: str
    """Initials and surname."""
    observers: tuple[str, ...]
    measurers: tuple[str, ...]
    telescope_design: str
    aperture_m: float
    detector: str = "CCD"
    observatory: str = ""

    def lines(self) -> list[str]:
        """Return the header's lines."""
        named = [("submitter", (self.submitter,)), ("observers", self.observers), ("measurers", self.measurers)]
        found = ["# version=2022", "# observatory", f"! mpcCode {self.station}"]
        found += [f"! name {self.observatory}"] if self.observatory else []
        for title, names in named:
            found += [f"# {title}", *(f"! name {name}" for name in names)]
        return [
            *found, "# telescope", f"! design {self.telescope_design}", f"! aperture {self.aperture_m:g}",
            f"! detector {self.detector}",
        ]  # fmt: skip


@dataclass(frozen=True)
class AdesObservation:
    """One place at one time."""

    tracklet: str
    """What is sent with it under one name, at most eight letters and digits."""
    mjd_tai: float
    ra: float
    dec: float
    error_along: float
    """arcsec; along ``angle_deg``."""
    error_across: float
    """arcsec; across it."""
    angle_deg: float = 0.0
    """Position angle of the first error: that of the trail; 0 is Dec, so that ``error_across`` is that of RA."""
    mag: float = float("nan")
    mag_err: float = float("nan")
    band: str = ""
    exposure_s: float | None = None
    notes: str = ""
    remarks: str = ""

    def errors(self) -> tuple[float, float, float]:
        """Return the errors in RA (times the cosine of Dec) and Dec, arcsec, and their correlation."""
        sine, cosine = np.sin(np.radians(self.angle_deg)), np.cos(np.radians(self.angle_deg))
        along, across = self.error_along**2, self.error_across**2
        east = np.sqrt(along * sine**2 + across * cosine**2)
        north = np.sqrt(along * cosine**2 + across * sine**2)
        return float(east), float(north), float((along - across) * sine * cosine / (east * north))


def ades_text(header: AdesHeader, observations: Sequence[AdesObservation], *, catalog: str) -> str:
    """Return a file's text; ``catalog`` names the astrometric reference as the Minor Planet Center does.

    Raises DataError for what the standard does not allow.
    """
    for one in observations:
        if not (1 <= len(one.tracklet) <= 8 and one.tracklet.isalnum()):
            raise DataError(f"tracklet {one.tracklet!r}: ADES takes up to eight letters and digits")
        if "|" in one.remarks or len(one.remarks) > 200:
            raise DataError(f"remarks {one.remarks!r}: ADES takes up to 200 characters, no bar")
    rows = [_FIELDS, *(_row(header, one, catalog) for one in observations)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(_FIELDS))]
    lines = ["|".join(value.ljust(width) for value, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([*header.lines(), *lines]) + "\n"


def _row(header: AdesHeader, one: AdesObservation, catalog: str) -> tuple[str, ...]:
    error_ra, error_dec, correlation = one.errors()
    has_mag = bool(np.isfinite(one.mag) and one.band)
    snr = 2.5 / np.log(10.0) / one.mag_err if has_mag and one.mag_err > 0 else None
    return (
        one.tracklet, "CCD", header.station, f"{times.isot_utc(one.mjd_tai)[:23]}Z", f"{one.ra % 360.0:.7f}",
        f"{one.dec:+.7f}", f"{error_ra:.3f}", f"{error_dec:.3f}", f"{correlation:.3f}", catalog,
        f"{one.mag:.2f}" if has_mag else _UNKNOWN,
        f"{one.mag_err:.2f}" if has_mag and np.isfinite(one.mag_err) else _UNKNOWN,
        one.band if has_mag else _UNKNOWN, f"{np.log10(snr):.2f}" if snr else _UNKNOWN,
        _UNKNOWN if one.exposure_s is None else f"{one.exposure_s:g}", one.notes, one.remarks,
    )  # fmt: skip
