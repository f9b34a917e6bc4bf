"""Times as the operator needs them."""

from __future__ import annotations

from gueststar.core import times
from gueststar.model.camera import Camera
from gueststar.operations.rules.sun import survey_night

MJD_OF_UNIX = 40587.0
"""MJD (UTC) of Unix time 0."""


def unix_of(mjd_tai: float) -> float:
    """Return an MJD TAI as Unix time."""
    return (times.mjd_utc(mjd_tai) - MJD_OF_UNIX) * 86400.0


def night_of(unix: float, camera: Camera) -> int:
    """Return the survey's night at a Unix time."""
    return survey_night(camera.site, unix)
