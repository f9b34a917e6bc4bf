"""Times: one scale inside (MJD, TAI), conversions at the edges, survey nights by longitude."""

from __future__ import annotations

import math
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gueststar.core.errors import ConfigError

if TYPE_CHECKING:
    from astropy.time import Time

MJD_ZERO_JD = 2400000.5
"""Julian date of MJD 0."""

UNIX_ZERO_JD = 2440587.5
"""Julian date (UTC) of Unix time 0."""


def mjd_tai_from_utc(text: str) -> float:
    """Return MJD (TAI) of an ISO-8601 UTC date and time; raises ValueError if it is not one."""
    return float(_time(text.strip().rstrip("Z"), scale="utc", format="isot").tai.mjd)


def jd_of_text(text: str) -> float:
    """Return the Julian date (UTC) of an ISO-8601 UTC date or time, or of a Julian date; ConfigError otherwise."""
    try:
        number = float(text)
    except ValueError:
        try:
            return float(_time(text.strip().rstrip("Z"), scale="utc").jd)
        except ValueError:
            raise ConfigError(f"{text!r} is no time: 2026-01-31, 2026-01-31T04:30 (UTC) or a Julian date") from None
    if not 2_400_000.5 <= number < 2_500_000.5:
        raise ConfigError(f"{text!r} is no Julian date of our times: dates are written 2026-01-31")
    return number


def mjd_tai_from_mjd_utc(mjd_utc: float) -> float:
    """Return MJD (TAI) of an MJD counted in UTC."""
    return float(_time(mjd_utc, scale="utc", format="mjd").tai.mjd)


def jd_utc(mjd_tai: float) -> float:
    """Return the Julian date in UTC, as alert packets carry it."""
    return float(_time(mjd_tai, scale="tai", format="mjd").utc.jd)


def jd_utc_of(mjd_tai: ArrayLike) -> NDArray[np.float64]:
    """Return Julian dates in UTC of many MJDs (TAI) at once."""
    return np.asarray(_time(np.asarray(mjd_tai, dtype=np.float64), scale="tai", format="mjd").utc.jd)


def mjd_utc_of(mjd_tai: ArrayLike) -> NDArray[np.float64]:
    """Return MJDs in UTC of many MJDs in TAI at once."""
    return np.asarray(_time(np.asarray(mjd_tai, dtype=np.float64), scale="tai", format="mjd").utc.mjd)


def mjd_utc(mjd_tai: float) -> float:
    """Return MJD in UTC of an MJD in TAI."""
    return float(_time(mjd_tai, scale="tai", format="mjd").utc.mjd)


def isot_utc(mjd_tai: float) -> str:
    """Return an ISO-8601 UTC string with milliseconds."""
    return str(_time(mjd_tai, scale="tai", format="mjd").utc.isot)


def unix(mjd_tai: float) -> float:
    """Return Unix time, seconds, of MJD (TAI)."""
    return float(_time(mjd_tai, scale="tai", format="mjd").unix)


def unix_of(mjd_tai: ArrayLike) -> NDArray[np.float64]:
    """Return Unix times, seconds, of many MJDs (TAI) at once."""
    return np.asarray(_time(np.asarray(mjd_tai, dtype=np.float64), scale="tai", format="mjd").unix)


def mjd_tai_of_unix(seconds: float) -> float:
    """Return MJD (TAI) of Unix time."""
    return float(_time(seconds, format="unix").tai.mjd)


def unix_of_jd_utc(jd: float) -> float:
    """Return Unix time, seconds, of a Julian date in UTC: neither counts leap seconds."""
    return (jd - UNIX_ZERO_JD) * 86400.0


def now_mjd_tai() -> float:
    """Return the present moment; pass this function where a clock is asked for."""
    return float(_time(time.time(), format="unix").tai.mjd)


def julian_year(mjd_tai: float) -> float:
    """Return the Julian epoch in years (J2000.0 = 2000.0), for proper motions."""
    return 2000.0 + (mjd_tai - 51544.5) / 365.25


def day_obs(mjd_tai: float, *, longitude_deg: float) -> int:
    """Return the survey night (YYYYMMDD): the local calendar date at the noon before the exposure.

    ``longitude_deg`` is east-positive. Local mean solar time decides, so that one night has one
    number wherever the telescope is.
    """
    local = mjd_utc(mjd_tai) + longitude_deg / 360.0
    date = datetime(1858, 11, 17) + timedelta(days=math.floor(local - 0.5))
    return date.year * 10000 + date.month * 100 + date.day


def night_of_jd(jd: float, *, starts_h: float) -> int:
    """Return the night (YYYYMMDD) of a Julian date (UTC), in a count that changes at ``starts_h`` hours of UTC."""
    date = datetime(1858, 11, 17) + timedelta(days=math.floor(jd - MJD_ZERO_JD - starts_h / 24.0))
    return date.year * 10000 + date.month * 100 + date.day


def _time(value: Any, **kind: str) -> Time:
    """Return astropy's time; the package is imported by whoever converts first, which takes a third of a second."""
    from astropy.time import Time

    return Time(value, **kind)
