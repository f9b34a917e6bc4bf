"""When a master may be used."""

from __future__ import annotations

from gueststar.model.calibration import KINDS, CalibrationProduct

LEAD_DAYS = 1.0
"""Morning frames may serve the night before them."""


def validity_of(master: CalibrationProduct) -> tuple[float, float]:
    """Suggest from when and to when (MJD TAI) a master is valid."""
    first = float(master.metadata.get("mjd_first", master.mjd_tai))
    last = float(master.metadata.get("mjd_last", master.mjd_tai))
    return first - LEAD_DAYS, last + KINDS[master.kind].lifetime_days


def is_stale(master: CalibrationProduct, mjd: float, max_age_days: float) -> bool:
    """Return whether a master is further than ``max_age_days`` from a time, before or after."""
    return abs(mjd - master.mjd_tai) > max_age_days
