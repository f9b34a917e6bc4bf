"""The night's candidates that move, linked into tracklets."""

from __future__ import annotations

from typing import Any

from gueststar.pipelines.moving.tracklets import LinkTracklets, Tracklets
from gueststar.pipelines.night.outcome import Outcome, Result, StepTimer, attempt
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.store.detections import DetectionStore
from gueststar.store.repo import SurveyRepo


def link_night(job_id: int, repo: SurveyRepo, settings: PipelineSettings, night: int) -> Outcome:
    """Link one night's detections, of all programs: Solar-System products have no restriction of input."""
    return attempt(job_id, lambda: _link(repo, settings, night))


def _link(repo: SurveyRepo, settings: PipelineSettings, night: int) -> Result:
    timer = StepTimer()
    store = DetectionStore(repo.settings.database) if repo.settings.database else DetectionStore.at(repo.root)
    with timer("read"):
        dia_sources = store.sources_of_night(night)
        stationary = store.seen_before(night)
    with timer("link"):
        found = LinkTracklets(settings.tracklets).run(dia_sources, earlier_objects=stationary)
    metrics = {
        "n_dia_sources": dia_sources.n_rows,
        "n_stationary_objects": stationary.size,
        "linking": found.metrics,
        "tracklets": tracklet_rows(found),
    }
    return Result(metrics=metrics, steps=timer.seconds)


def tracklet_rows(found: Tracklets) -> list[dict[str, Any]]:
    """Return tracklets as plain values, each with the detections that it links."""
    table = found.tracklets
    rows = []
    for k in range(table.n_rows):
        row: dict[str, Any] = {name: table[name][k].item() for name in table}
        row["dia_source_ids"] = [int(i) for i in found.members[k]]
        rows.append(row)
    return rows
