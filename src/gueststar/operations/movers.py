"""A night's moving things for a person, and for the Minor Planet Center."""

from __future__ import annotations

from typing import Any

from gueststar.core.errors import ConfigError
from gueststar.formats.ades import AdesHeader, AdesObservation, ades_text
from gueststar.pipelines.moving.astrometry import AstrometryConfig, TellAstrometry, short_name
from gueststar.pipelines.moving.orbits import LinkNights, OrbitLink
from gueststar.pipelines.night.movers import streaks_of_night
from gueststar.store.detections.store import DetectionStore
from gueststar.store.ledger import JobState
from gueststar.store.repo import SurveyRepo

HEADING = (
    f"{'tracklet':8} {'seen':>4} {'trails':>6} {'RA':>10} {'Dec':>10} {'arcsec/min':>10} {'PA':>6} {'mag':>6} "
    f"{'false':>6}"
)


def tracklets_of_night(repo: SurveyRepo, night: int) -> list[dict[str, Any]]:
    """Return a night's tracklets as its last linking left them; ConfigError for a night that was not linked."""
    jobs = [job for job in repo.ledger.jobs(kind="tracklets", day_obs=night) if job.state is JobState.DONE]
    if not jobs:
        raise ConfigError(f"the night {night} was not linked: gueststar process, stage associate")
    return list(jobs[-1].metrics.get("tracklets", []))


def tracklet_line(row: dict[str, Any]) -> str:
    """Return one tracklet as a line under `HEADING`; a direction that may be the opposite one is marked."""
    sense = " " if row.get("is_sense_known", True) else "?"
    return (
        f"{short_name(int(row['tracklet_id']))} {row['n_detections']:>4} {row.get('n_trailed', 0):>6} {row['ra']:10.5f}"
        f" {row['dec']:+10.5f} {row['rate_arcsec_per_min']:10.3f} {row['position_angle_deg']:5.1f}{sense}"
        f" {row['mag']:6.2f} {row['false_probability']:6.3f}"
    )


def orbits_of_nights(repo: SurveyRepo, night: int, later: int) -> list[OrbitLink]:
    """Return the pairs of tracklets of two nights through which one orbit goes."""
    told: list[AdesObservation] = []
    for one in (night, later):
        told += _observations(repo, one, AstrometryConfig())
    first, second = tracklets_of_night(repo, night), tracklets_of_night(repo, later)
    return LinkNights().run(first, second, told, site=repo.camera.site)


def orbit_line(link: OrbitLink) -> str:
    """Return one pair with its orbit as a line."""
    orbit = link.fit.elements
    return (
        f"{link.first} {link.second} {link.n_places} places, rms {link.fit.rms_arcsec:.2f} arcsec, probability"
        f" {link.fit.probability:.3f}: a {orbit.a[0]:.3f} au, e {orbit.e[0]:.3f}, i {orbit.inclination[0]:.1f} deg;"
        f" {link.fit.distance_au:.3f} au away"
    )


def ades_of_night(
    repo: SurveyRepo, night: int, *, header: AdesHeader, catalog: str, config: AstrometryConfig | None = None
) -> str:
    """Return a night's tracklets as an ADES file, programs of all kinds."""
    told = _observations(repo, night, config or AstrometryConfig())
    return ades_text(header, told, catalog=catalog)


def _observations(repo: SurveyRepo, night: int, config: AstrometryConfig) -> list[AdesObservation]:
    sources = DetectionStore.of_survey(repo.root, repo.settings.database).sources_of_night(night)
    bands = {glass.fid: glass.catalog_band for glass in repo.camera.filters}
    streaks = streaks_of_night(repo, night)
    return TellAstrometry(config).run(tracklets_of_night(repo, night), sources, streaks, bands=bands)
