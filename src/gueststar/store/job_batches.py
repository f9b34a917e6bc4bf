"""Many jobs in one transaction: what a night's bookkeeping costs is its transactions, not its rows."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from gueststar.core.errors import ConfigError
from gueststar.store import ledger_jobs
from gueststar.store.ledger import Ledger
from gueststar.store.ledger_rows import JobState
from gueststar.store.sql import plain_json
from gueststar.store.tables import JOBS

_MOST = 500
"""Rows named in one statement: databases limit their number."""


@dataclass(frozen=True)
class JobRequest:
    """A unit of work that is asked for; see `Ledger.submit`."""

    kind: str
    key: Mapping[str, Any]
    exposure_id: int | None = None
    detector: int | None = None
    day_obs: int | None = None
    config: Mapping[str, Any] | None = None
    inputs: Any = None
    max_attempts: int = 3
    priority: int = 50
    not_before: float | None = None


@dataclass(frozen=True)
class JobEnding:
    """How an attempt at a job ended; see `Ledger.finish`, `Ledger.fail` and `Ledger.hold`."""

    job_id: int
    state: JobState
    """DONE, HELD or FAILED."""
    reason: str = ""
    error_kind: str = ""
    traceback: str = ""
    is_retryable: bool = False
    """A failed one is pending again until its attempts are used up, then quarantined."""
    metrics: Mapping[str, Any] | None = None
    cpu_s: float | None = None
    peak_rss_mb: float | None = None
    not_before: float | None = None
    """Unix time before which a failed one is not tried again."""


class JobBatches:
    """The verbs of the ledger on jobs, for many at a time."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def submit(self, requests: Iterable[JobRequest]) -> list[int]:
        """Ask for units of work; return their ids in the same order. Asking twice is the same as once."""
        rows = [_row_of(request) for request in requests]
        if not rows:
            return []
        with self.ledger.writing() as connection:
            insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            connection.execute(insert(JOBS).on_conflict_do_nothing(index_elements=["id"]), rows)
        return [row["id"] for row in rows]

    def start(self, job_ids: Sequence[int], *, worker: str = "") -> list[int]:
        """Take those of some jobs that are pending: they run, and one attempt of each is counted; return them."""
        started: set[int] = set()
        with self.ledger.writing() as connection:
            for first in range(0, len(job_ids), _MOST):
                part = job_ids[first : first + _MOST]
                taken = connection.execute(
                    update(JOBS)
                    .where(JOBS.c.id.in_(part), JOBS.c.state == JobState.PENDING)
                    .values(
                        state=JobState.RUNNING, attempts=JOBS.c.attempts + 1, worker=worker, started=time.time(),
                        finished=None, reason="", error_kind="", traceback="",
                    )
                    .returning(JOBS.c.id)
                )  # fmt: skip
                started.update(taken.scalars())
        return [job_id for job_id in job_ids if job_id in started]

    def settle(self, endings: Sequence[JobEnding]) -> dict[int, JobState]:
        """Write down how attempts ended; return each job's new state.

        Raises ConfigError, and writes nothing, where the ledger has no such job.
        """
        settled: dict[int, JobState] = {}
        done = [ending for ending in endings if ending.state is JobState.DONE]
        with self.ledger.writing() as connection:
            _finish(connection, done)
            settled |= {ending.job_id: JobState.DONE for ending in done}
            for ending in endings:
                if ending.job_id not in settled:
                    settled[ending.job_id] = _settle(connection, ending)
        return settled


def _row_of(request: JobRequest) -> dict[str, Any]:
    return {
        "id": ledger_jobs.job_id(request.kind, request.key), "kind": request.kind, "key": dict(request.key),
        "exposure_id": request.exposure_id, "detector": request.detector, "day_obs": request.day_obs,
        "config": None if request.config is None else plain_json(request.config),
        "inputs": plain_json(request.inputs), "max_attempts": request.max_attempts, "priority": request.priority,
        "not_before": request.not_before, "state": JobState.PENDING, "submitted": time.time(), "attempts": 0,
        "reason": "", "error_kind": "", "traceback": "", "worker": "",
    }  # fmt: skip


def _finish(connection: Connection, endings: Sequence[JobEnding]) -> None:
    if not endings:
        return
    rows = [
        {
            "b_id": ending.job_id, "metrics": plain_json(ending.metrics or {}), "cpu_s": ending.cpu_s,
            "peak_rss_mb": ending.peak_rss_mb, "finished": time.time(), "state": JobState.DONE, "reason": "",
            "error_kind": "", "traceback": "",
        }
        for ending in endings
    ]  # fmt: skip
    columns: dict[str, Any] = {name: bindparam(name) for name in rows[0] if name != "b_id"}
    changed = connection.execute(update(JOBS).where(JOBS.c.id == bindparam("b_id")).values(columns), rows)
    if changed.rowcount >= 0 and changed.rowcount != len(rows):
        known = set(connection.scalars(select(JOBS.c.id).where(JOBS.c.id.in_([row["b_id"] for row in rows]))))
        lost = [ending.job_id for ending in endings if ending.job_id not in known]
        if lost:
            raise ConfigError(f"the ledger has no job {lost[0]}")


def _settle(connection: Connection, ending: JobEnding) -> JobState:
    if ending.state is JobState.HELD:
        return ledger_jobs.settle(connection, ending.job_id, JobState.HELD, reason=ending.reason)
    state = ledger_jobs.retry_or_quarantine() if ending.is_retryable else ending.state
    values: dict[str, Any] = {"reason": ending.reason, "error_kind": ending.error_kind, "traceback": ending.traceback}
    if ending.metrics is not None:
        values["metrics"] = plain_json(ending.metrics)
    return ledger_jobs.settle(connection, ending.job_id, state, not_before=ending.not_before, **values)
