"""The account of a night: what became of every detector image that was received.

Received = processed + failed + held, to the last detector; anything else is unexplained and makes the
report fail. The fate of a detector image is read from its jobs, the furthest stage first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from gueststar.store.ledger import ExposureRow, ExposureState, FileStatus, Job, JobState, Ledger


class Fate(StrEnum):
    """What became of one detector of one exposure."""

    PROCESSED = "processed"
    FAILED = "failed"
    HELD = "held"
    PENDING = "pending"
    """Work is waiting or was interrupted: run the same command again."""
    UNEXPLAINED = "unexplained"
    """Received, but no job says anything of it."""


RAW = "raw"
"""Origin of what the camera wrote."""


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
    origin: str = RAW
    """What it came in as: raw, or a user's own products."""


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

    def origins(self) -> list[tuple[str, int]]:
        """Return (origin, number of detector images), most frequent first."""
        return Counter(unit.origin for unit in self.units).most_common()

    def reasons(self) -> list[tuple[str, str, int]]:
        """Return (fate, reason, number of detector images), most frequent first."""
        found = Counter((u.fate.value, u.reason) for u in self.units if u.reason)
        return [(fate, reason, n) for (fate, reason), n in found.most_common()]


STAGE_ORDER = ("association", "difference", "science", "entry")
"""Kinds of jobs of a science detector image, last first; entry: a user's own catalog, which is only stored."""


def account_of(
    ledger: Ledger, night: int, *, jobs: Sequence[Job] | None = None, night_at: Callable[[float], int] | None = None
) -> NightAccount:
    """Return the account of a night; ``jobs``: those of the night, where they are read already.

    ``night_at`` returns the survey's night at a Unix time: a refused file that does not tell its night, and came when
    nothing else did, belongs to the one in which it came.
    """
    rows = ledger.exposures(day_obs=night)
    jobs = ledger.jobs(day_obs=night) if jobs is None else jobs
    by_unit: dict[tuple[int, int], dict[str, Job]] = {}
    for job in jobs:
        if job.exposure_id is not None and job.detector is not None:
            by_unit.setdefault((job.exposure_id, job.detector), {})[job.kind] = job
    calibrations = [job for job in jobs if job.kind == "calibration"]
    units = []
    for row in rows:
        for detector in row.detectors:
            if row.info.observation_type == "science":
                units.append(_science_unit(row, detector, by_unit.get((row.id, detector), {})))
            else:
                units.append(_calibration_unit(row, detector, calibrations))
    return NightAccount(night, tuple(units), _refused_files(ledger, night, night_at))


NEAR_S = 43200.0
"""A refused file that does not tell its night belongs to the nights whose files came this near to it in time."""


def _refused_files(ledger: Ledger, night: int, night_at: Callable[[float], int] | None) -> tuple[tuple[str, str], ...]:
    """Return (path, reason) of the night's refused files, and of those too damaged to tell whose they are."""
    times = [file.received for file in ledger.files(day_obs=night)]
    refused = []
    for file in ledger.files(status=FileStatus.REFUSED):
        if times:
            is_near = min(times) - NEAR_S < file.received < max(times) + NEAR_S
        else:
            is_near = night_at is not None and night_at(file.received) == night
        if file.day_obs == night:
            refused.append((file.path, file.reason))
        elif file.day_obs is None and is_near:
            refused.append((file.path, f"{file.reason} (it tells no night)"))
    return tuple(refused)


def _science_unit(row: ExposureRow, detector: int, jobs: dict[str, Job]) -> Unit:
    metrics: dict[str, object] = {}
    for kind in reversed(STAGE_ORDER):
        if kind in jobs:
            metrics |= jobs[kind].metrics
            metrics["cpu_s"] = float(str(metrics.get("cpu_s", 0.0))) + (jobs[kind].cpu_s or 0.0)
    for kind in STAGE_ORDER:
        if kind in jobs:
            fate, reason = _fate(jobs[kind])
            return Unit(row, detector, fate, kind, reason, metrics, _origin(jobs))
    fate = Fate.HELD if row.state is ExposureState.HELD else Fate.UNEXPLAINED
    reason = row.reason or "no job was ever made for it: run gueststar process"
    return Unit(row, detector, fate, "", reason, metrics)


def _origin(jobs: dict[str, Job]) -> str:
    """Return as what an image came in: raw, unless a stage's input was a user's own product."""
    entered = [
        str(job.inputs["entered"])
        for kind in reversed(STAGE_ORDER)
        if (job := jobs.get(kind)) is not None and isinstance(job.inputs, dict) and "entered" in job.inputs
    ]
    is_raw = "science" in jobs and "science_image" not in entered
    return " and ".join([RAW, *entered] if is_raw else entered) or RAW


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
