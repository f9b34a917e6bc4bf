"""When a master may be used."""

from __future__ import annotations

from types import MappingProxyType

from gueststar.model.calibration import CalibrationMaster

LIFETIME_DAYS = MappingProxyType({"bias": 30.0, "dark": 90.0, "flat": 30.0})
"""How long after its frames a master of each kind may serve, if no newer one is certified."""

LEAD_DAYS = 1.0
"""Morning frames may serve the night before them."""


def validity_of(master: CalibrationMaster) -> tuple[float, float]:
    """Suggest from when and to when (MJD TAI) a master is valid."""
    first = float(master.metadata.get("mjd_first", master.mjd_tai))
    last = float(master.metadata.get("mjd_last", master.mjd_tai))
    return first - LEAD_DAYS, last + LIFETIME_DAYS[master.kind]


def is_stale(master: CalibrationMaster, mjd: float, max_age_days: float) -> bool:
    """Return whether a master is further than ``max_age_days`` from a time, before or after."""
    return abs(mjd - master.mjd_tai) > max_age_days
