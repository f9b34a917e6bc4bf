"""The account of a night: what became of every detector image that was received.

Received = processed + failed + held, to the last detector; anything else is unexplained and makes the
report fail. The fate of a detector image is read from its jobs, the furthest stage first.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from gueststar.store.ledger import ExposureRow, ExposureState, Job, JobState, Ledger


class Fate(StrEnum):
    """What became of one detector of one exposure."""

    PROCESSED = "processed"
    FAILED = "failed"
    HELD = "held"
    PENDING = "pending"
    """Work is waiting or was interrupted: run the same command again."""
    UNEXPLAINED = "unexplained"
    """Received, but no job says anything of it."""


@dataclass(frozen=True)
class Unit:
    """One detector of one received exposure and its fate."""

    exposure: ExposureRow
    detector: int
    fate: Fate
    stage: str
    """The stage that decided."""
    reason: str
    metrics: dict[str, object]
    """All metrics of its jobs, later stages on top."""


@dataclass(frozen=True)
class NightAccount:
    """Every unit of a night, and the files that were refused."""

    day_obs: int
    units: tuple[Unit, ...]
    refused: tuple[tuple[str, str], ...]
    """(path, reason) of files that could not become exposures."""

    def count(self, fate: Fate, observation_type: str | None = None) -> int:
        """Return how many detector images have this fate."""
        return sum(
            unit.fate is fate and observation_type in (None, unit.exposure.info.observation_type) for unit in self.units
        )

    @property
    def is_balanced(self) -> bool:
        """Whether nothing is unexplained or left waiting."""
        return self.count(Fate.UNEXPLAINED) == 0 and self.count(Fate.PENDING) == 0

    def reasons(self) -> list[tuple[str, str, int]]:
        """Return (fate, reason, number of detector images), most frequent first."""
        found = Counter((u.fate.value, u.reason) for u in self.units if u.reason)
        return [(fate, reason, n) for (fate, reason), n in found.most_common()]


STAGE_ORDER = ("association", "difference", "science")
"""Kinds of jobs of a science detector image, last first."""


def account_of(ledger: Ledger, night: int) -> NightAccount:
    """Return the account of a night."""
    rows = ledger.exposures(day_obs=night)
    by_unit: dict[tuple[int, int], dict[str, Job]] = {}
    for job in ledger.jobs(day_obs=night):
        if job.exposure_id is not None and job.detector is not None:
            by_unit.setdefault((job.exposure_id, job.detector), {})[job.kind] = job
    calibrations = ledger.jobs(kind="calibration", day_obs=night)
    units = []
    for row in rows:
        for detector in row.detectors:
            if row.info.observation_type == "science":
                units.append(_science_unit(row, detector, by_unit.get((row.id, detector), {})))
            else:
                units.append(_calibration_unit(row, detector, calibrations))
    refused = tuple((f.path, f.reason) for f in ledger.files(day_obs=night) if f.status == "refused")
    return NightAccount(night, tuple(units), refused)


def _science_unit(row: ExposureRow, detector: int, jobs: dict[str, Job]) -> Unit:
    metrics: dict[str, object] = {}
    for kind in reversed(STAGE_ORDER):
        if kind in jobs:
            metrics |= jobs[kind].metrics
            metrics["cpu_s"] = float(str(metrics.get("cpu_s", 0.0))) + (jobs[kind].cpu_s or 0.0)
    for kind in STAGE_ORDER:
        if kind in jobs:
            fate, reason = _fate(jobs[kind])
            return Unit(row, detector, fate, kind, reason, metrics)
    fate = Fate.HELD if row.state is ExposureState.HELD else Fate.UNEXPLAINED
    reason = row.reason or "no job was ever made for it: run gueststar process"
    return Unit(row, detector, fate, "", reason, metrics)


def _fate(job: Job) -> tuple[Fate, str]:
    if job.state is JobState.DONE:
        return Fate.PROCESSED, ""
    if job.state is JobState.HELD:
        return Fate.HELD, job.reason
    if job.state is JobState.QUARANTINED:
        return Fate.FAILED, f"quarantined after {job.attempts} attempts: {job.reason}"
    if job.state is JobState.FAILED:
        return Fate.FAILED, job.reason
    return Fate.PENDING, "work is waiting: run gueststar process again"


def _calibration_unit(row: ExposureRow, detector: int, jobs: list[Job]) -> Unit:
    mine = [
        job for job in jobs
        if job.detector == detector
        and job.key.get("kind") == row.info.observation_type
        and row.id in job.key.get("frames", ())
    ]  # fmt: skip
    if not mine:
        return Unit(row, detector, Fate.UNEXPLAINED, "", "no master was asked for: run gueststar process", {})
    job = mine[-1]
    fate, reason = _fate(job)
    return Unit(row, detector, fate, "calibration", reason, job.metrics)
