"""Jobs in the ledger: each function is one step inside a transaction."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, case, func, select, update
from sqlalchemy.exc import IntegrityError

from gueststar.core.errors import ConfigError
from gueststar.core.ids import content_id
from gueststar.store.ledger_rows import Job, JobState
from gueststar.store.tables import JOBS

_CRASHED = "the worker died while it ran"
_INTERRUPTED = "interrupted while it ran"


def job_id(kind: str, key: Mapping[str, Any]) -> int:
    """Return the id that a job of this kind and key always has."""
    return content_id(kind, json.dumps(key, sort_keys=True))


def submit(connection: Connection, kind: str, key: Mapping[str, Any], values: Mapping[str, Any]) -> int:
    """Add a pending job unless it exists; return its id."""
    number = job_id(kind, key)
    if connection.scalar(select(JOBS.c.id).where(JOBS.c.id == number)) is None:
        row = {"id": number, "kind": kind, "key": dict(key), "state": JobState.PENDING, "submitted": time.time()}
        try:
            with connection.begin_nested():
                connection.execute(JOBS.insert().values(**row, **values))
        except IntegrityError:  # another process submitted it a moment ago
            pass
    return number


def start(connection: Connection, number: int, worker: str) -> bool:
    """Make a pending job running and count the attempt; False if it was not pending."""
    result = connection.execute(
        update(JOBS)
        .where(JOBS.c.id == number, JOBS.c.state == JobState.PENDING)
        .values(
            state=JobState.RUNNING, attempts=JOBS.c.attempts + 1, worker=worker, started=time.time(),
            finished=None, reason="", error_kind="", traceback="",
        )
    )  # fmt: skip
    return result.rowcount == 1


def settle(connection: Connection, number: int, state: JobState | ColumnElement[str], **values: Any) -> JobState:
    """Give a job its new state and what is known; return the state. ConfigError if there is no such job."""
    connection.execute(update(JOBS).where(JOBS.c.id == number).values(state=state, finished=time.time(), **values))
    settled = connection.scalar(select(JOBS.c.state).where(JOBS.c.id == number))
    if settled is None:
        raise ConfigError(f"the ledger has no job {number}")
    return JobState(settled)


def failed_attempt(connection: Connection, number: int) -> dict[str, Any]:
    """Return what the diary says of an attempt that failed: which job it was, and which attempt."""
    names = ("kind", "exposure_id", "detector", "day_obs", "attempts", "worker")
    row = connection.execute(select(*(JOBS.c[name] for name in names)).where(JOBS.c.id == number)).first()
    if row is None:
        raise ConfigError(f"the ledger has no job {number}")
    kind, exposure, detector, night, attempt, worker = row
    told = {"kind": kind, "exposure": exposure, "detector": detector, "attempt": attempt, "worker": worker}
    return told if night is None else {**told, "night": night}


def retry_or_quarantine() -> ColumnElement[str]:
    """Return the state of a job whose attempt failed but might succeed: pending while attempts are left."""
    return case((JOBS.c.attempts < JOBS.c.max_attempts, JobState.PENDING.value), else_=JobState.QUARANTINED.value)


def reset_running(
    connection: Connection, worker: str | None, *, is_counted: bool = True, but: Collection[int] = ()
) -> int:
    """Settle the jobs whose worker died, ``but`` some: pending again, or quarantined; return how many there were.

    Where the attempt does not count (whoever handed out the work died, not the worker) all are pending again.
    """
    lost = and_(JOBS.c.state == JobState.RUNNING, JOBS.c.id.not_in(but))
    if worker is not None:
        lost = and_(lost, JOBS.c.worker == worker)
    if not is_counted:
        values: dict[str, Any] = {"state": JobState.PENDING, "attempts": JOBS.c.attempts - 1, "reason": _INTERRUPTED}
        return connection.execute(update(JOBS).where(lost).values(**values)).rowcount
    values = {"state": retry_or_quarantine(), "reason": _CRASHED, "error_kind": "crash", "finished": time.time()}
    return connection.execute(update(JOBS).where(lost).values(**values)).rowcount


def put_off(connection: Connection, number: int, reason: str, not_before: float | None) -> None:
    """Make a running job pending again, the attempt not counted."""
    values = {
        "state": JobState.PENDING, "attempts": JOBS.c.attempts - 1, "reason": reason, "not_before": not_before,
    }  # fmt: skip
    running = and_(JOBS.c.id == number, JOBS.c.state == JobState.RUNNING)
    connection.execute(update(JOBS).where(running).values(**values))


def release(connection: Connection, number: int, config: Any) -> None:
    """Make a held, failed or quarantined job pending with all its attempts before it; None keeps its parameters."""
    idle = (JobState.HELD, JobState.FAILED, JobState.QUARANTINED)
    values: dict[str, Any] = {"state": JobState.PENDING, "attempts": 0, "finished": None}
    if config is not None:
        values["config"] = config
    connection.execute(update(JOBS).where(JOBS.c.id == number, JOBS.c.state.in_(idle)).values(**values))


def redo(connection: Connection, number: int, before: float, config: Any) -> bool:
    """Make a job that was done before a time pending, with other parameters; False if it was not done then."""
    done_then = and_(JOBS.c.id == number, JOBS.c.state == JobState.DONE, JOBS.c.finished < before)
    values = {"state": JobState.PENDING, "attempts": 0, "finished": None, "config": config}
    done = connection.execute(update(JOBS).where(done_then).values(**values))
    return done.rowcount == 1


def supply(connection: Connection, number: int, inputs: Any) -> bool:
    """Give other inputs to a job that is not done or running and make it pending; False if it is."""
    idle = (JobState.PENDING, JobState.HELD, JobState.FAILED, JobState.QUARANTINED)
    values = {"state": JobState.PENDING, "attempts": 0, "finished": None, "reason": "", "inputs": inputs}
    done = connection.execute(update(JOBS).where(JOBS.c.id == number, JOBS.c.state.in_(idle)).values(**values))
    return done.rowcount == 1


def jobs(connection: Connection, conditions: list[ColumnElement[bool]], *, is_lean: bool = False) -> list[Job]:
    """Return the jobs that meet all conditions, in the order of submission.

    ``is_lean``: without their parameters, and of the metrics of work on images only what is not nested (and
    `LEAN_NESTED`): a large night has tens of thousands.
    """
    columns = [column for column in JOBS.c if not (is_lean and column.name == "config")]
    query = select(*columns).where(*conditions).order_by(JOBS.c.submitted, JOBS.c.id)
    if is_lean:
        query = query.execution_options(yield_per=500)
        return [_lean(job_of(row)) for row in connection.execute(query)]
    return [job_of(row) for row in connection.execute(query)]


LEAN_NESTED = frozenset({"steps", "streaks", "vetting", "injected_scores", "entered"})
"""Nested metrics of work on images that the account of a night needs."""

_OF_IMAGES = frozenset({"science", "difference", "association"})


def _lean(job: Job) -> Job:
    if job.kind not in _OF_IMAGES:
        return job
    kept = {
        name: value for name, value in job.metrics.items()
        if name in LEAN_NESTED or not isinstance(value, dict | list)
    }  # fmt: skip
    return replace(job, metrics=kept)


def measurements(
    connection: Connection, kind: str, name: str, *, before: int, n_nights: int
) -> list[tuple[int, int, int, float]]:
    """Return (exposure, detector, night, value) of a numeric metric of done jobs of the last nights before a night.

    Jobs on a user's own products do not count: their units and calibration are not the camera's.
    """
    is_own = JOBS.c.inputs["entered"].as_string().is_(None)
    done = and_(JOBS.c.kind == kind, JOBS.c.state == JobState.DONE, is_own)
    nights = select(JOBS.c.day_obs).where(done, JOBS.c.day_obs < before).distinct()
    latest = list(connection.scalars(nights.order_by(JOBS.c.day_obs.desc()).limit(n_nights)))
    query = (
        select(JOBS.c.exposure_id, JOBS.c.detector, JOBS.c.day_obs, JOBS.c.metrics[name].as_float())
        .where(done, JOBS.c.day_obs.in_(latest))
        .order_by(JOBS.c.exposure_id, JOBS.c.detector)
    )
    return [
        (exposure, detector, night, value)
        for exposure, detector, night, value in connection.execute(query)
        if None not in (exposure, detector, value)
    ]


def counts(connection: Connection, conditions: list[ColumnElement[bool]]) -> dict[tuple[str, JobState], int]:
    """Return how many jobs there are by (kind, state)."""
    query = select(JOBS.c.kind, JOBS.c.state, func.count()).where(*conditions).group_by(JOBS.c.kind, JOBS.c.state)
    return {(kind, JobState(state)): number for kind, state, number in connection.execute(query)}


def job_of(row: Row[Any]) -> Job:
    """Return a row of the table as a Job."""
    values = dict(row._mapping)
    values["state"] = JobState(values["state"])
    for name in ("metrics", "config"):
        values[name] = values.get(name) or {}
    return Job(**values)
