"""What rules are told of an exposure and of the survey."""

from __future__ import annotations

from gueststar.core import times
from gueststar.model.camera import Camera
from gueststar.operations.rules.contract import ExposureFacts
from gueststar.pipelines.night.plan import Planner
from gueststar.store.ledger import ExposureRow
from gueststar.store.repo import SurveyRepo

MJD_OF_UNIX = 40587.0
"""MJD (UTC) of Unix time 0."""


def mjd_tai_of(unix: float) -> float:
    """Return a Unix time as MJD TAI."""
    return times.mjd_tai_from_mjd_utc(MJD_OF_UNIX + unix / 86400.0)


def unix_of(mjd_tai: float) -> float:
    """Return an MJD TAI as Unix time."""
    return (times.mjd_utc(mjd_tai) - MJD_OF_UNIX) * 86400.0


def night_of(unix: float, camera: Camera) -> int:
    """Return the survey's night at a Unix time."""
    return times.day_obs(mjd_tai_of(unix), longitude_deg=camera.site.longitude_deg)


def age_of(row: ExposureRow, now: float) -> float:
    """Return how long ago (s) the shutter closed; not below zero, whatever a wrong clock says."""
    return max(0.0, now - unix_of(row.info.mjd_start) - row.info.exposure_s)


def exposure_facts(repo: SurveyRepo, planner: Planner, row: ExposureRow, *, now: float) -> ExposureFacts:
    """Return what rules may ask of an exposure; ``now`` is Unix time."""
    return ExposureFacts(
        exposure=row, night=night_of(now, repo.camera), age_s=age_of(row, now),
        has_reference=all(planner.references_of(row, detector) for detector in row.detectors),
        has_calibrations=planner.has_calibrations(row),
    )  # fmt: skip
