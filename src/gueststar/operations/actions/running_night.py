"""Whether a night runs: then planned work waits."""

from __future__ import annotations

from gueststar.core import times
from gueststar.store.ledger import JobState
from gueststar.store.repo import SurveyRepo

_RECENT_S = 3600.0
_DAY_S = 86400.0
_UNIX_MJD = 40587.0


def night_at(repo: SurveyRepo, unix: float) -> int:
    """Return the survey night (YYYYMMDD) of a time."""
    mjd = times.mjd_tai_from_mjd_utc(unix / _DAY_S + _UNIX_MJD)
    return times.day_obs(mjd, longitude_deg=repo.camera.site.longitude_deg)


def coming_night(repo: SurveyRepo, unix: float) -> int:
    """Return the night that runs, or else the next one."""
    return night_at(repo, unix + _DAY_S / 2)


def why_night_runs(repo: SurveyRepo, now: float) -> str:
    """Return why a night is taken for running; empty where none does."""
    running = repo.ledger.jobs(state=JobState.RUNNING)
    if running:
        return f"{len(running)} units of work are running"
    exposures = repo.ledger.exposures(day_obs=night_at(repo, now), observation_type="science")
    last = max((row.received for row in exposures), default=0.0)
    if 0.0 <= now - last < _RECENT_S:
        return f"an exposure was received {(now - last) / 60.0:.0f} minutes ago"
    return ""
