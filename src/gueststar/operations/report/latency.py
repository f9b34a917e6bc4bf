"""From the shutter to the alert: how long each step of a night's images took, and which step made some late."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gueststar.core import ids, times
from gueststar.model.camera import Camera
from gueststar.store.alerts.publication import Publication
from gueststar.store.arrivals import received_times
from gueststar.store.ledger import ExposureRow, Job, JobState
from gueststar.store.repo import SurveyRepo
from gueststar.stream.clients import has_stream

STAGES = ("science", "difference", "association")
"""Kinds of jobs between receipt and alert."""

BACKLOG_PRIORITY = 30
"""Priority of exposures that came late (`gueststar.operations.rules.contract.Priority.BACKLOG`)."""

_NOT_LIVE_S = 86400.0
"""Images received later than this were not on their way: somebody took them in afterwards."""


@dataclass(frozen=True)
class ImageTimes:
    """When things happened to one detector image. Unix seconds."""

    exposure: int
    detector: int
    shutter: float
    """The shutter closed."""
    received: float
    """Its file was there, whole."""
    alerted: float | None
    """Its alerts were in the alert log (none is an answer too); None: not, or not yet."""
    published: float | None
    """The brokers took the last of its alerts; None: it has none, or they wait, or there is no stream."""
    n_alerts: int
    n_unsent: int
    """Alerts that are not on the stream, where there is one."""
    worked_s: float
    """Time in which a worker was at it, between receipt and alert; NaN where it was processed again since."""
    is_retried: bool
    """Whether a step was tried more than once."""
    is_backlog: bool
    """It came later than required, or was queued behind the night's own."""

    @property
    def transfer_s(self) -> float:
        """From the shutter to receipt."""
        return self.received - self.shutter

    @property
    def end(self) -> float | None:
        """When all of it had left: published where it has a stream and alerts, else in the log."""
        if self.alerted is None or self.n_unsent:
            return None
        return max(self.published, self.alerted) if self.published is not None else self.alerted

    @property
    def processing_s(self) -> float:
        """From receipt to the end; NaN where it has not come."""
        return math.nan if self.end is None else self.end - self.received

    @property
    def steps(self) -> dict[str, float]:
        """Seconds by step: transfer, queue, work, publication. Those not known are NaN."""
        if self.alerted is None:
            return {"transfer": self.transfer_s, "queue": math.nan, "work": math.nan, "publication": math.nan}
        publication = math.nan if self.end is None else self.end - self.alerted
        queue = self.alerted - self.received - self.worked_s
        return {"transfer": self.transfer_s, "queue": queue, "work": self.worked_s, "publication": publication}


@dataclass(frozen=True)
class Spread:
    """Percentiles of a duration, seconds, and the shares that kept the limits."""

    name: str
    n: int
    p50: float
    p95: float
    p99: float
    within_goal: float
    within_required: float

    @property
    def is_met(self) -> bool:
        """Whether 95 % kept the requirement."""
        return self.within_required >= 0.95


@dataclass(frozen=True)
class LateExposure:
    """An exposure that kept a requirement with at least one detector image not."""

    exposure: int
    time_utc: str
    seconds: float
    """From the shutter to the end, of its slowest detector image; NaN where it has not come."""
    step: str
    """What took longest, in words."""
    steps: dict[str, float]


@dataclass(frozen=True)
class Latency:
    """What a night's times tell. ``images`` are those that were received while the night was fresh."""

    required_s: float
    goal_s: float
    images: tuple[ImageTimes, ...]
    n_afterwards: int
    """Images that were taken in more than a day after their exposure: no latency is told of them."""
    tonight: tuple[Spread, ...]
    backlog: tuple[Spread, ...]
    late: tuple[LateExposure, ...]
    n_waiting: int
    """Images that have no end yet: not processed, or their alerts wait for the brokers."""

    @property
    def p95_s(self) -> float:
        """From the shutter to the end, 95th percentile of tonight's images; NaN without any."""
        return next((spread.p95 for spread in self.tonight if spread.name == "shutter to alert"), math.nan)


def latency_of(repo: SurveyRepo, night: int, rows: Sequence[ExposureRow], jobs: Iterable[Job]) -> Latency | None:
    """Return the latencies of a night's science images from the ledger; None where it has none."""
    science = [row for row in rows if row.info.observation_type == "science"]
    if not science:
        return None
    limits = repo.settings.operation
    images = image_times(
        science, jobs, camera=repo.camera, received=received_times(repo.ledger, night), sent=sent_times(repo, night),
        required_s=limits.latency_required_s,
    )  # fmt: skip
    return summarise(images, required_s=limits.latency_required_s, goal_s=limits.latency_goal_s)


def sent_times(repo: SurveyRepo, night: int) -> dict[int, tuple[int, float]] | None:
    """Return what of each detector image (``pid``) is on the stream and since when; None where there is no stream."""
    if not has_stream(repo.root, repo.settings.stream):
        return None
    state = Publication(repo.root)
    try:
        return state.sent_times(night)
    finally:
        state.close()


def image_times(
    rows: Sequence[ExposureRow], jobs: Iterable[Job], *, camera: Camera, received: Mapping[tuple[int, int], float],
    sent: Mapping[int, tuple[int, float]] | None, required_s: float,
) -> list[ImageTimes]:  # fmt: skip
    """Return the times of every detector image of some science exposures, by time of exposure."""
    by_unit: dict[tuple[int | None, int | None], dict[str, Job]] = {}
    for job in jobs:
        if job.kind in STAGES:
            by_unit.setdefault((job.exposure_id, job.detector), {})[job.kind] = job
    starts = np.array([row.info.mjd_start for row in rows])
    closed = times.unix_of(starts) + np.array([row.info.exposure_s for row in rows])
    found = []
    for row, shutter in zip(rows, closed.tolist(), strict=True):
        pids = ids.wire_pids(row.info.mjd_start, [_rcid(camera, detector) for detector in row.detectors])
        for detector, pid in zip(row.detectors, pids.tolist(), strict=True):
            came = received.get((row.id, detector), row.received)
            mine = by_unit.get((row.id, detector), {})
            found.append(
                _times_of(
                    row.id, detector, shutter, came, mine, None if sent is None else sent.get(pid, (0, 0.0)), required_s
                )
            )
    return found


def _rcid(camera: Camera, detector: int) -> int:
    known = camera.detectors_by_id.get(detector)
    return known.rcid if known is not None else 0


def _times_of(
    exposure: int, detector: int, shutter: float, received: float, jobs: Mapping[str, Job],
    sent: tuple[int, float] | None, required_s: float,
) -> ImageTimes:  # fmt: skip
    last = jobs.get("association")
    is_done = last is not None and last.state is JobState.DONE
    alerted = last.finished if last is not None and is_done else None
    n_alerts = int(last.metrics.get("n_alerts") or 0) if last is not None and is_done else 0
    n_sent, when = sent or (0, 0.0)
    is_queued_behind = any(job.priority == BACKLOG_PRIORITY for job in jobs.values())
    return ImageTimes(
        exposure, detector, shutter, received, alerted, when if n_sent else None, n_alerts,
        max(n_alerts - n_sent, 0) if sent is not None else 0,
        math.nan if alerted is None else _worked_s(jobs.values(), received, alerted),
        any(job.attempts > 1 for job in jobs.values()), is_queued_behind or received - shutter > required_s,
    )  # fmt: skip


def _worked_s(jobs: Iterable[Job], begin: float, end: float) -> float:
    """Return how long at least one of the jobs ran between two times; NaN where one ran again after them."""
    spans = sorted((job.started, job.finished) for job in jobs if job.started is not None and job.finished is not None)
    if any(start > end for start, _ in spans):
        return math.nan
    total, reached = 0.0, begin
    for start, stop in spans:
        total += max(min(stop, end) - max(start, reached), 0.0)
        reached = max(reached, stop)
    return total


def summarise(images: Sequence[ImageTimes], *, required_s: float, goal_s: float) -> Latency:
    """Return percentiles of tonight's and of the backlog's images, and the exposures that were late."""
    live = [image for image in images if image.transfer_s < _NOT_LIVE_S]
    groups = [[image for image in live if image.is_backlog is is_backlog] for is_backlog in (False, True)]
    tonight, backlog = (tuple(_spreads(group, required_s, goal_s)) for group in groups)
    return Latency(
        required_s, goal_s, tuple(live), len(images) - len(live), tonight, backlog,
        tuple(late_exposures(live, required_s)), sum(image.end is None for image in live),
    )  # fmt: skip


def _spreads(images: Sequence[ImageTimes], required_s: float, goal_s: float) -> list[Spread]:
    durations = {
        "shutter to received": [image.transfer_s for image in images],
        "received to alert": [image.processing_s for image in images],
        "shutter to alert": [image.transfer_s + image.processing_s for image in images],
    }
    doubled = {"shutter to alert": 2.0}  # transfer and processing may each take the limit
    spreads = []
    for name, values in durations.items():
        known = np.array([value for value in values if math.isfinite(value)])
        if known.size:
            p50, p95, p99 = (float(value) for value in np.percentile(known, (50, 95, 99)))
            factor = doubled.get(name, 1.0)
            kept = [float(np.mean(known <= factor * limit)) for limit in (goal_s, required_s)]
            spreads.append(Spread(name, int(known.size), p50, p95, p99, *kept))
    return spreads


_WORDS = {"transfer": "received late", "queue": "queued", "work": "worked on", "publication": "published late"}


def late_exposures(images: Sequence[ImageTimes], required_s: float) -> list[LateExposure]:
    """Return the exposures that came, or were processed, later than required, with the step that took longest."""
    slowest: dict[int, ImageTimes] = {}
    for image in images:
        is_late = image.transfer_s > required_s or image.processing_s > required_s
        if is_late and (image.exposure not in slowest or _total(image) > _total(slowest[image.exposure])):
            slowest[image.exposure] = image
    return [_late(image) for _, image in sorted(slowest.items())]


def _total(image: ImageTimes) -> float:
    return image.transfer_s + float(np.nan_to_num(image.processing_s))


def _late(image: ImageTimes) -> LateExposure:
    known = {name: seconds for name, seconds in image.steps.items() if math.isfinite(seconds)}
    worst = max(known, key=lambda name: known[name])
    words = _WORDS[worst]
    if worst == "queue" and image.is_retried:
        words = "queued, and tried more than once"
    if image.alerted is not None and math.isnan(image.worked_s) and image.processing_s > image.transfer_s:
        words = "not known: it was processed again since"
    shutter = times.isot_utc(ids.exposure_start(image.exposure))
    return LateExposure(image.exposure, shutter, image.transfer_s + image.processing_s, words, known)


def latency_lines(latency: Latency | None) -> list[str]:
    """Return it as lines of text."""
    if latency is None:
        return []
    lines = []
    if latency.n_afterwards:
        lines.append(
            f"{latency.n_afterwards} detector images were taken in more than a day after their exposure: no latency"
        )
    for title, spreads in (("tonight's", latency.tonight), ("the backlog's", latency.backlog)):
        if spreads:
            lines.append(f"latency of {title} images, minutes:{'p50':>9}{'p95':>9}{'p99':>9}   within goal, required")
            lines += [f"  {_spread_line(spread)}" for spread in spreads]
    if latency.n_waiting:
        lines.append(f"  {latency.n_waiting} images have no alert: failed, held or waiting")
    if latency.late:
        lines.append(f"{len(latency.late)} exposures were late ({latency.required_s / 60:g} minutes required):")
        lines += [f"  {_late_line(late)}" for late in latency.late[:20]]
        if len(latency.late) > 20:
            lines.append(f"  and {len(latency.late) - 20} more")
    return lines


def _spread_line(spread: Spread) -> str:
    minutes = "".join(f"{value / 60:>9.2f}" for value in (spread.p50, spread.p95, spread.p99))
    verdict = "" if spread.is_met else "  MISSED"
    return f"{spread.name:<33}{minutes}   {spread.within_goal:.1%}, {spread.within_required:.1%} of {spread.n}{verdict}"


def _late_line(late: LateExposure) -> str:
    total = "no end yet" if math.isnan(late.seconds) else f"{late.seconds / 60:.1f} min"
    parts = ", ".join(f"{name} {seconds / 60:.1f}" for name, seconds in late.steps.items())
    return f"{late.exposure} {late.time_utc[11:19]}: {total}, {late.step} ({parts})"


def as_json(latency: Latency | None) -> dict[str, Any] | None:
    """Return it as JSON-able values."""
    if latency is None:
        return None
    return {
        "required_s": latency.required_s,
        "goal_s": latency.goal_s,
        "taken_in_afterwards": latency.n_afterwards,
        "without_alert": latency.n_waiting,
        "tonight": [vars(spread) for spread in latency.tonight],
        "backlog": [vars(spread) for spread in latency.backlog],
        "late": [vars(late) for late in latency.late],
    }
