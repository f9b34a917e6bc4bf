"""Whether a night runs: then planned work waits."""

from __future__ import annotations

from gueststar.operations.rules.sun import sun_altitude_deg, survey_night
from gueststar.store.ledger import JobState
from gueststar.store.repo import SurveyRepo

_RECENT_S = 3600.0
_DAY_S = 86400.0
_DARK_DEG = -6.0


def coming_night(repo: SurveyRepo, unix: float) -> int:
    """Return the night that runs, or else the next one."""
    return survey_night(repo.camera.site, unix + _DAY_S / 2)


def why_night_runs(repo: SurveyRepo, now: float) -> str:
    """Return why a night is taken for running; empty where none does."""
    running = repo.ledger.jobs(state=JobState.RUNNING)
    if running:
        return f"{len(running)} units of work are running"
    from gueststar.operations.rules.load import load_rules  # rules know the names of actions

    if load_rules(repo.root, repo.settings.operation).maintenance_at(now) is not None:
        return ""  # a planned downtime: nothing is begun, whatever the hour
    site = repo.camera.site
    if repo.camera.has_sky and site.is_placed and (altitude := sun_altitude_deg(site, now)) < _DARK_DEG:
        return f"the sun is at {altitude:.0f} degrees"
    exposures = repo.ledger.exposures(day_obs=survey_night(site, now), observation_type="science")
    last = max((row.received for row in exposures), default=0.0)
    if 0.0 <= now - last < _RECENT_S:
        return f"an exposure was received {(now - last) / 60.0:.0f} minutes ago"
    return ""
