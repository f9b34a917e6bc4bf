"""The night's candidates that move, linked into tracklets."""

from __future__ import annotations

from typing import Any

from gueststar.pipelines.engine.outcome import Outcome, Result, StepTimer, attempt
from gueststar.pipelines.moving.streak_tracks import LinkStreaks
from gueststar.pipelines.moving.tracklets import LinkTracklets, Tracklets
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.store.detections.store import DetectionStore
from gueststar.store.ledger import JobState
from gueststar.store.repo import SurveyRepo


def link_night(job_id: int, repo: SurveyRepo, settings: PipelineSettings, night: int) -> Outcome:
    """Link one night's detections, of all programs: Solar-System products have no restriction of input."""
    return attempt(job_id, lambda: _link(repo, settings, night))


def _link(repo: SurveyRepo, settings: PipelineSettings, night: int) -> Result:
    timer = StepTimer()
    store = DetectionStore.of_survey(repo.root, repo.settings.database)
    with timer("read"):
        dia_sources = store.sources_of_night(night)
        stationary = store.seen_before(night)
    with timer("streaks"):
        streaks = streaks_of_night(repo, night)
        tracks = LinkStreaks(settings.streak_tracks).run(streaks)
    with timer("link"):
        link = LinkTracklets(settings.tracklets)
        found = link.run(dia_sources, streaks=streaks, tracks=tracks, earlier_objects=stationary)
    metrics = {
        "n_dia_sources": dia_sources.n_rows,
        "n_stationary_objects": stationary.size,
        "linking": found.metrics,
        "tracklets": tracklet_rows(found),
        "n_streaks": len(streaks),
        "streak_tracks": tracks,
    }
    return Result(metrics=metrics, steps=timer.seconds)


def streaks_of_night(repo: SurveyRepo, night: int) -> list[dict[str, Any]]:
    """Return the likely streaks of a night as plain values, by time."""
    jobs = repo.ledger.jobs(kind="difference", day_obs=night, state=JobState.DONE)
    rows = [row for job in jobs for row in job.metrics.get("streaks", {}).get("likely", ())]
    return sorted(rows, key=lambda row: (row["mjd_begin"], row["streak_id"]))


def tracklet_rows(found: Tracklets) -> list[dict[str, Any]]:
    """Return tracklets as plain values, each with the detections and the streaks that it links."""
    table = found.tracklets
    rows = []
    for k in range(table.n_rows):
        row: dict[str, Any] = {name: table[name][k].item() for name in table}
        row |= {name: list(values) for name, values in found.members[k]._asdict().items()}
        rows.append(row)
    return rows
