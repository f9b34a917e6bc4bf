"""What is known of the survey at a moment: one value from which status, page, figures and alarms are made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from gueststar.operations.rules.contract import Priority
from gueststar.operations.watch.disks import DiskFacts
from gueststar.store.alarms import Alarm
from gueststar.store.ledger_rows import ExposureState, JobState
from gueststar.store.operation_settings import OperationSettings
from gueststar.store.operator_state import OperatorState
from gueststar.store.pulse import ExposurePulse, FieldPulse

SILENT_AFTER_S = 60.0
"""An operator whose last beat is older is gone or stuck."""

PRIORITY_NAMES = {priority.value: priority.name.lower() for priority in Priority}


class Standing(IntEnum):
    """How the survey stands, in one number: the exit status of `gueststar status`."""

    FINE = 0
    ALARMS = 1
    """Alarms are open."""
    SILENT = 3
    """The operator does not run."""


@dataclass(frozen=True)
class Latency:
    """How long one exposure took. Seconds."""

    exposure: int
    finished: float
    """Unix time."""
    to_received: float | None
    """From the end of the exposure to receipt; None where that tells nothing (data of another time)."""
    to_done: float
    """From receipt to the end of the last unit of work."""


@dataclass(frozen=True)
class Work:
    """Units of work of a night of one kind and state."""

    kind: str
    state: JobState
    n: int
    cpu_s: float


@dataclass(frozen=True)
class Sample:
    """What changes through a night, at one moment: kept for some hours, so that trends can be told."""

    time: float
    """Unix."""
    waiting: int
    """Units of work that wait."""
    landing: int
    """Files that wait to be taken in."""
    received: int
    """Science exposures of the night."""
    alerts_waiting: int
    operator_pid: int | None
    worker_pids: tuple[tuple[str, int], ...] = ()
    """(worker, process)."""


@dataclass(frozen=True)
class Facts:
    """What is known of the survey now. Times are Unix seconds."""

    survey: str
    now: float
    """By the operator's clock if it runs, else by the machine's."""
    settings: OperationSettings
    operator: OperatorState | None
    beat_age_s: float | None
    """Since the operator's last beat; None: it never ran here."""
    is_operator_gone: bool
    """Its process is not there any more, or its beat is too old."""
    database: str = ""
    """Why the database does not work; empty if it does. Then what follows is what could be had without it."""
    night: int | None = None
    """The night that is told of: the operator's, or the last one with exposures."""
    exposures: Mapping[ExposureState, int] = field(default_factory=dict)
    """Science exposures of the night."""
    expected: int = 0
    """Science exposures that lists of expected ones name up to now."""
    last_expected: float | None = None
    """When the last of them was to begin."""
    refused: int = 0
    fields: tuple[FieldPulse, ...] = ()
    work: tuple[Work, ...] = ()
    queue: Mapping[str, int] = field(default_factory=dict)
    """Priority -> units of work that wait."""
    oldest_waiting: tuple[int, float, int] | None = None
    """(exposure, time received, how many wait)."""
    last_received: float | None = None
    latencies: tuple[Latency, ...] = ()
    """Of the exposures of the last hours, in the order of their end."""
    recent: tuple[ExposurePulse, ...] = ()
    """The last exposures, newest first."""
    last_files: tuple[tuple[str, str], ...] = ()
    """(status, reason) of the last received files, newest first."""
    quarantined: tuple[tuple[str, str, int], ...] = ()
    """(kind, reason, number)."""
    disks: tuple[DiskFacts, ...] = ()
    landing_away: Mapping[str, str] = field(default_factory=dict)
    """Landing place -> why it cannot be read."""
    has_stream: bool = False
    stream: Mapping[str, int] = field(default_factory=dict)
    """Fate -> alerts of the night, in the full stream."""
    sun_altitude_deg: float | None = None
    orbits_age_days: float | None = None
    certificates: Mapping[str, float] = field(default_factory=dict)
    """File -> when the first of its certificates ends."""
    alarms: tuple[Alarm, ...] = ()
    """Those that are open."""
    messages_waiting: int = 0
    """Messages that could not be delivered yet."""
    message_since: float | None = None
    """When the first of them was written."""
    messages_trouble: str = ""
    history: tuple[Sample, ...] = ()
    """Of the last hours, oldest first."""
    log: tuple[str, ...] = ()
    """The last lines of the log, newest first."""

    @property
    def standing(self) -> Standing:
        """How the survey stands."""
        if self.is_operator_gone:
            return Standing.SILENT
        return Standing.ALARMS if self.alarms else Standing.FINE

    @property
    def received(self) -> int:
        """Science exposures received in the night."""
        return sum(self.exposures.values())

    @property
    def waiting(self) -> int:
        """Units of work that wait, by the ledger or, while it is down, by the operator."""
        own = sum(self.operator.queued.values()) if self.operator is not None else 0
        return max(sum(self.queue.values()), own)


def sample_of(facts: Facts) -> Sample:
    """Return what of the facts is kept."""
    state = facts.operator
    workers = () if state is None else tuple((one.name, one.pid) for one in state.workers if one.pid is not None)
    return Sample(
        facts.now, facts.waiting, sum(state.landing.values()) if state else 0, facts.received,
        facts.stream.get("waiting", 0), state.pid if state else None, workers,
    )  # fmt: skip


def as_json(facts: Facts) -> dict[str, Any]:
    """Return the facts as plain values."""
    told = {item.name: _plain(getattr(facts, item.name)) for item in dataclasses.fields(facts)}
    del told["settings"]
    operation = facts.settings
    limits = {"latency_required_s": operation.latency_required_s, "latency_goal_s": operation.latency_goal_s}
    return {"standing": facts.standing.name.lower(), "limits": limits, **told}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value.model_dump(mode="json") if isinstance(value, OperatorState) else value
