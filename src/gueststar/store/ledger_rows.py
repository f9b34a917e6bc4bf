"""What the ledger tells: jobs, exposures, files, fields, events and the account of a night."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from gueststar.model.exposure import ExposureInfo


class JobState(StrEnum):
    """Where a unit of work stands."""

    PENDING = "pending"
    """Submitted, or to be tried again."""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    """For a reason that another attempt would not change."""
    HELD = "held"
    """Set aside until something it needs exists, or a person decides."""
    QUARANTINED = "quarantined"
    """Tried as often as allowed; it will not be tried again by itself."""


class ExposureState(StrEnum):
    """Where an exposure stands."""

    RECEIVED = "received"
    PROCESSED = "processed"
    FAILED = "failed"
    HELD = "held"


class FileStatus(StrEnum):
    """What became of a received file."""

    INGESTED = "ingested"
    ALREADY = "already"
    """Its pixels were there before."""
    REFUSED = "refused"


@dataclass(frozen=True)
class Job:
    """A unit of work and what became of it. Times are Unix seconds."""

    id: int
    kind: str
    key: dict[str, Any]
    exposure_id: int | None
    detector: int | None
    day_obs: int | None
    state: JobState
    attempts: int
    max_attempts: int
    reason: str
    error_kind: str
    traceback: str
    metrics: dict[str, Any]
    config: dict[str, Any]
    inputs: Any
    worker: str
    submitted: float
    started: float | None
    finished: float | None
    cpu_s: float | None
    peak_rss_mb: float | None
    priority: int = 50
    """Lower comes first."""
    not_before: float | None = None
    """It is not tried (again) before this time."""


@dataclass(frozen=True)
class ExposureRow:
    """A received exposure: its facts, its detectors and its fate."""

    info: ExposureInfo
    state: ExposureState
    reason: str
    detectors: tuple[int, ...]
    received: float

    @property
    def id(self) -> int:
        """The exposure's id."""
        return self.info.exposure_id


@dataclass(frozen=True)
class FileRow:
    """A received file."""

    id: int
    path: str
    sha256: str
    pixel_checksum: str | None
    status: FileStatus
    reason: str
    exposure_id: int | None
    day_obs: int | None
    received: float
    last_seen: float


@dataclass(frozen=True)
class Field:
    """A pointing that the survey repeats; centre in degrees ICRS."""

    id: int
    ra: float
    dec: float
    name: str = ""


@dataclass(frozen=True)
class Event:
    """Something that happened, for the night's diary."""

    id: int
    time: float
    what: str
    subject: str
    text: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Account:
    """The balance of a night: every received exposure is in exactly one of the other numbers."""

    day_obs: int | None
    received: int
    processed: int
    failed: int
    held: int
    pending: int
    """Received, with work waiting or running."""
    unexplained: int
    """Received, but nothing is waiting or running for it: nobody would ever look at it again."""
    unexplained_ids: tuple[int, ...] = ()
    refused_files: int = 0
    """Files of this night (as far as their headers told one) that could not be ingested."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Reason -> number of failed and held exposures."""

    @property
    def is_balanced(self) -> bool:
        """Whether every received exposure is accounted for."""
        return self.unexplained == 0 and self.received == self.processed + self.failed + self.held + self.pending
