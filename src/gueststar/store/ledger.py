"""The ledger: every received file and exposure and every unit of work has a row and a fate.

It is the truth about what was asked and what became of it, on SQLite or PostgreSQL. Every verb is one
transaction; several processes may use it, and it survives any of them being killed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Engine, Row, exists, func, select, text, update
from sqlalchemy.exc import IntegrityError

from gueststar.core.errors import ConfigError
from gueststar.core.ids import content_id
from gueststar.model.exposure import ExposureInfo
from gueststar.model.rights import Program
from gueststar.store import ledger_jobs
from gueststar.store.ledger_rows import (
    Account,
    Event,
    ExposureRow,
    ExposureState,
    Field,
    FileRow,
    FileStatus,
    Job,
    JobState,
)
from gueststar.store.sql import connect, plain_json, reading, told_as_transient, transaction
from gueststar.store.tables import EVENTS, EXPOSURE_DETECTORS, EXPOSURES, FIELDS, FILES, JOBS, migrate

__all__ = ["Account", "Event", "ExposureRow", "ExposureState", "Field", "FileRow", "FileStatus", "Job", "JobState", "Ledger"]  # fmt: skip  # noqa: E501

FIRST_FIELD_NUMBER = 1_000_000
"""Numbers of fields that no header names have seven digits; survey's own numberings are smaller."""

FAILED_ATTEMPT = "failed attempt"
"""Kind of the diary's entries on attempts that failed for reasons that may pass; their subject is the job."""

_CELL_TOLERANCES = 4.0
"""Width of the parts of the sky that such numbers tell apart, in tolerances of pointing."""

_INFO_COLUMNS = tuple(item.name for item in fields(ExposureInfo))


class Ledger:
    """The ledger in the database at ``url``."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine: Engine = connect(url)
        self._reader: Engine = reading(self._engine)
        with told_as_transient():
            migrate(self._engine)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Run the body of a ``with`` statement in one transaction: for the store's own modules."""
        with transaction(self._engine) as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Run the body of a ``with`` statement in one transaction that only reads: for the store's own modules."""
        with transaction(self._reader) as connection:
            yield connection

    def of_operator(self) -> Ledger:
        """Return this ledger to modules of the store whose tables are the operator's alone; a reader's refuses."""
        return self

    def close(self) -> None:
        """Close the connections to the database."""
        self._engine.dispose()

    # Files

    def record_file(
        self,
        path: str,
        sha256: str,
        status: FileStatus,
        *,
        reason: str = "",
        pixel_checksum: str | None = None,
        exposure_id: int | None = None,
        day_obs: int | None = None,
        received: float | None = None,
    ) -> int:
        """Write down what became of a received file; return the row's id.

        The same bytes from the same path are one row: ``already`` never overwrites ``ingested``. ``received`` is when
        the file was there, whole (Unix time; None: now).
        """
        now = time.time()
        facts = {"pixel_checksum": pixel_checksum, "exposure_id": exposure_id, "day_obs": day_obs}
        with self.writing() as connection:
            known = connection.execute(
                select(FILES.c.id, FILES.c.status).where(FILES.c.sha256 == sha256, FILES.c.path == path)
            ).first()
            if known is None:
                row = {"path": path, "sha256": sha256, "status": status, "reason": reason, **facts}
                times = {"received": now if received is None else received, "last_seen": now}
                inserted = connection.execute(FILES.insert().values(**times, **row))
                return int(inserted.inserted_primary_key[0])  # type: ignore[index]
            values: dict[str, Any] = {"last_seen": now}
            if not (known.status == FileStatus.INGESTED and status == FileStatus.ALREADY):
                values |= {"status": status, "reason": reason, **{k: v for k, v in facts.items() if v is not None}}
            connection.execute(update(FILES).where(FILES.c.id == known.id).values(**values))
            return int(known.id)

    def files(
        self,
        *,
        status: FileStatus | None = None,
        day_obs: int | None = None,
        sha256: str | None = None,
        exposure_id: int | None = None,
        since: float | None = None,
    ) -> list[FileRow]:
        """Return received files, oldest first; ``since`` is Unix time."""
        conditions = _equal(FILES, status=status, day_obs=day_obs, sha256=sha256, exposure_id=exposure_id)
        if since is not None:
            conditions.append(FILES.c.last_seen >= since)
        with self.reading() as connection:
            rows = connection.execute(select(FILES).where(*conditions).order_by(FILES.c.id))
            return [FileRow(**{**row._mapping, "status": FileStatus(row.status)}) for row in rows]

    # Exposures

    def add_exposure(
        self,
        info: ExposureInfo,
        *,
        detectors: Mapping[int, str] | Iterable[int] = (),
        received: float | None = None,
    ) -> int:
        """Write down an exposure and detectors of it (detector -> pixel checksum); return its id.

        Doing so again adds the detectors that were not there; facts and state stay as they were. ``received`` is when
        the first of its files was there, whole (Unix time; None: now).
        """
        checksums = dict(detectors) if isinstance(detectors, Mapping) else dict.fromkeys(detectors, "")
        with self.writing() as connection:
            _insert_new(connection, EXPOSURES, {"id": info.exposure_id}, _exposure_values(info, received))
            for detector, checksum in checksums.items():
                key = {"exposure_id": info.exposure_id, "detector": detector}
                _insert_new(connection, EXPOSURE_DETECTORS, key, {"pixel_checksum": checksum})
        return info.exposure_id

    def exposures(
        self,
        *,
        day_obs: int | None = None,
        state: ExposureState | None = None,
        observation_type: str | None = None,
        field: int | None = None,
        band: str | None = None,
        program: Program | None = None,
    ) -> list[ExposureRow]:
        """Return exposures in the order of their time."""
        conditions = _equal(
            EXPOSURES, day_obs=day_obs, state=state, observation_type=observation_type, field=field, band=band,
            program=None if program is None else int(program),
        )  # fmt: skip
        return self._exposures(conditions)

    def nights(self) -> list[int]:
        """Return the nights with exposures, in order."""
        with self.reading() as connection:
            return sorted(int(night) for night in connection.execute(select(EXPOSURES.c.day_obs).distinct()).scalars())

    def exposure(self, exposure_id: int) -> ExposureRow | None:
        """Return one exposure, or None if it was never received."""
        return next(iter(self._exposures([EXPOSURES.c.id == exposure_id])), None)

    def _exposures(self, conditions: list[ColumnElement[bool]]) -> list[ExposureRow]:
        parts = select(EXPOSURE_DETECTORS.c.exposure_id, EXPOSURE_DETECTORS.c.detector).join(
            EXPOSURES, EXPOSURES.c.id == EXPOSURE_DETECTORS.c.exposure_id
        )
        with self.reading() as connection:
            rows = connection.execute(select(EXPOSURES).where(*conditions).order_by(EXPOSURES.c.id)).all()
            detectors: dict[int, list[int]] = {}
            for exposure_id, detector in connection.execute(parts.where(*conditions)):
                detectors.setdefault(exposure_id, []).append(detector)
        return [_exposure_of(row, detectors.get(row.id, [])) for row in rows]

    def pixel_checksums(self, exposure_id: int) -> dict[int, str]:
        """Return detector -> checksum of its decoded pixels, of the detectors received so far."""
        query = select(EXPOSURE_DETECTORS.c.detector, EXPOSURE_DETECTORS.c.pixel_checksum)
        with self.reading() as connection:
            rows = connection.execute(query.where(EXPOSURE_DETECTORS.c.exposure_id == exposure_id))
            return {row.detector: row.pixel_checksum for row in rows}

    def set_exposure_state(self, exposure_id: int, state: ExposureState, reason: str = "") -> None:
        """Write down an exposure's fate; ConfigError if it was never received."""
        with self.writing() as connection:
            values = {"state": state, "reason": reason}
            changed = connection.execute(update(EXPOSURES).where(EXPOSURES.c.id == exposure_id).values(**values))
        if changed.rowcount == 0:
            raise ConfigError(f"the ledger has no exposure {exposure_id}")

    def settle_exposure(self, exposure_id: int) -> ExposureState:
        """Derive an exposure's fate from its jobs, write it down and return it.

        Received while a job waits or runs; else failed if none succeeded and one failed; else held if
        none succeeded; else processed, the reason telling how many of its jobs did not succeed.
        """
        row = select(EXPOSURES.c.id).where(EXPOSURES.c.id == exposure_id).with_for_update()
        with self.writing() as connection:
            if connection.execute(row).first() is None:  # taken first: two processes may settle at once
                raise ConfigError(f"the ledger has no exposure {exposure_id}")
            found = ledger_jobs.jobs(connection, [JOBS.c.exposure_id == exposure_id])
            state, reason = _fate_of(found)
            values = {"state": state, "reason": reason}
            connection.execute(update(EXPOSURES).where(EXPOSURES.c.id == exposure_id).values(**values))
        return state

    # Fields

    def add_field(self, field: Field) -> None:
        """Write down a field of the survey's own numbering, or correct its centre."""
        values = asdict(field)
        with self.writing() as connection:
            _insert_new(connection, FIELDS, {"id": values.pop("id")}, values)
            connection.execute(update(FIELDS).where(FIELDS.c.id == field.id).values(**values))

    def fields(self) -> list[Field]:
        """Return all fields by number."""
        with self.reading() as connection:
            return [Field(**row._mapping) for row in connection.execute(select(FIELDS).order_by(FIELDS.c.id))]

    def field(self, field_id: int) -> Field | None:
        """Return one field, or None."""
        with self.reading() as connection:
            row = connection.execute(select(FIELDS).where(FIELDS.c.id == field_id)).first()
            return Field(**row._mapping) if row else None

    def assign_field(self, *, ra: float, dec: float, tolerance_deg: float, name: str = "") -> Field:
        """Return the field whose centre is nearest within ``tolerance_deg``, or a new one there.

        Its number is made of its place (`_field_number`), not counted: it stands in packets, and a counter would tell
        how many fields there are and in which order they were first visited, those of closed exposures included.
        """
        with self.writing() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(7291807)"))
            near = select(FIELDS).where(FIELDS.c.dec.between(dec - tolerance_deg, dec + tolerance_deg))
            candidates = [Field(**row._mapping) for row in connection.execute(near)]
            by_distance = [(separation_deg(f.ra, f.dec, ra, dec), f) for f in candidates]
            nearest = min(by_distance, key=lambda pair: pair[0], default=(math.inf, None))
            if nearest[1] is not None and nearest[0] <= tolerance_deg:
                return nearest[1]
            taken = set(connection.execute(select(FIELDS.c.id)).scalars())
            created = Field(_field_number(ra, dec, tolerance_deg, taken), ra, dec, name)
            connection.execute(FIELDS.insert().values(**asdict(created)))
            return created

    # Jobs

    def submit(
        self,
        kind: str,
        key: Mapping[str, Any],
        *,
        exposure_id: int | None = None,
        detector: int | None = None,
        day_obs: int | None = None,
        config: Mapping[str, Any] | None = None,
        inputs: Any = None,
        max_attempts: int = 3,
        priority: int = 50,
    ) -> int:
        """Ask for a unit of work; return its id. Asking twice is the same as once.

        ``key`` is JSON-able and tells the unit from all others of its kind. Lower priorities come first.
        """
        values = {
            "exposure_id": exposure_id, "detector": detector, "day_obs": day_obs, "inputs": plain_json(inputs),
            "config": None if config is None else plain_json(config), "max_attempts": max_attempts,
            "priority": priority,
        }  # fmt: skip
        with self.writing() as connection:
            return ledger_jobs.submit(connection, kind, key, values)

    @staticmethod
    def job_id(kind: str, key: Mapping[str, Any]) -> int:
        """Return the id that a job of this kind and key has, whether it was submitted yet or not."""
        return ledger_jobs.job_id(kind, key)

    def start(self, job_id: int, *, worker: str = "") -> bool:
        """Take a pending job: it is running and one attempt is counted. False: it was not pending."""
        with self.writing() as connection:
            return ledger_jobs.start(connection, job_id, worker)

    def finish(
        self,
        job_id: int,
        metrics: Mapping[str, Any] | None = None,
        *,
        inputs: Any = None,
        cpu_s: float | None = None,
        peak_rss_mb: float | None = None,
    ) -> None:
        """Write down that a job is done, with what it measured and (if not told at submission) what it used."""
        values = {"metrics": plain_json(metrics or {}), "cpu_s": cpu_s, "peak_rss_mb": peak_rss_mb}
        if inputs is not None:
            values["inputs"] = plain_json(inputs)
        with self.writing() as connection:
            ledger_jobs.settle(connection, job_id, JobState.DONE, reason="", error_kind="", traceback="", **values)

    def fail(
        self,
        job_id: int,
        reason: str,
        error_kind: str = "",
        *,
        is_retryable: bool = False,
        traceback: str = "",
        metrics: Mapping[str, Any] | None = None,
        not_before: float | None = None,
    ) -> JobState:
        """Write down that an attempt failed; return the job's new state.

        A retryable failure makes it pending until its attempts are used up, then quarantined; any other
        failed. It is not to be tried again before ``not_before`` (Unix time). The diary keeps every attempt that may be
        made again (`FAILED_ATTEMPT`): the job itself forgets them.
        """
        state = ledger_jobs.retry_or_quarantine() if is_retryable else JobState.FAILED
        values: dict[str, Any] = {
            "reason": reason, "error_kind": error_kind, "traceback": traceback, "not_before": not_before,
        }  # fmt: skip
        if metrics is not None:
            values["metrics"] = plain_json(metrics)
        with self.writing() as connection:
            if is_retryable:
                told = ledger_jobs.failed_attempt(connection, job_id)
                row = {"time": time.time(), "what": FAILED_ATTEMPT, "subject": str(job_id), "text": reason}
                connection.execute(EVENTS.insert().values(**row, data=told | {"error_kind": error_kind}))
            return ledger_jobs.settle(connection, job_id, state, **values)

    def hold(self, job_id: int, reason: str) -> None:
        """Set a job aside until something it needs exists."""
        with self.writing() as connection:
            ledger_jobs.settle(connection, job_id, JobState.HELD, reason=reason)

    def release(self, job_id: int, config: Mapping[str, Any] | None = None) -> None:
        """Make a held, failed or quarantined job pending again, with all its attempts before it.

        ``config`` are the parameters of now, where the job has any.
        """
        with self.writing() as connection:
            ledger_jobs.release(connection, job_id, None if config is None else plain_json(config))

    def redo(self, job_id: int, *, before: float, config: Mapping[str, Any] | None = None) -> bool:
        """Make a job that was done before a (Unix) time pending again: what it yields becomes a new version.

        ``config`` are the parameters of now. False if it was not done, or later.
        """
        with self.writing() as connection:
            return ledger_jobs.redo(connection, job_id, before, None if config is None else plain_json(config))

    def supply(self, job_id: int, inputs: Any) -> bool:
        """Give a job other inputs to work from and make it pending; False if it is done or runs already."""
        with self.writing() as connection:
            return ledger_jobs.supply(connection, job_id, plain_json(inputs))

    def reset_running(self, *, worker: str | None = None, is_counted: bool = True, but: Collection[int] = ()) -> int:
        """After a crash: make running jobs (of one worker, or all, ``but`` some) pending, or quarantined.

        Returns how many. Where the units cannot have caused it (not ``is_counted``) the attempt does not count.
        """
        with self.writing() as connection:
            return ledger_jobs.reset_running(connection, worker, is_counted=is_counted, but=but)

    def put_off(self, job_id: int, reason: str, *, not_before: float | None = None) -> None:
        """Make a running job pending again without counting the attempt: the world failed, not the unit."""
        with self.writing() as connection:
            ledger_jobs.put_off(connection, job_id, reason, not_before)

    def job(self, job_id: int) -> Job | None:
        """Return one job, or None."""
        with self.reading() as connection:
            return next(iter(ledger_jobs.jobs(connection, [JOBS.c.id == job_id])), None)

    def jobs(
        self,
        *,
        kind: str | None = None,
        state: JobState | None = None,
        day_obs: int | None = None,
        exposure_id: int | None = None,
        detector: int | None = None,
        exposures: Collection[int] | None = None,
        is_lean: bool = False,
    ) -> list[Job]:
        """Return jobs (of any of ``exposures``) in the order of submission.

        ``is_lean``: without their parameters and most nested metrics.
        """
        conditions = _equal(JOBS, kind=kind, state=state, day_obs=day_obs, exposure_id=exposure_id, detector=detector)
        if exposures is not None:
            conditions.append(JOBS.c.exposure_id.in_(list(exposures)))
        with self.reading() as connection:
            return ledger_jobs.jobs(connection, conditions, is_lean=is_lean)

    def measurements(self, kind: str, name: str, *, before: int, n_nights: int) -> list[tuple[int, int, int, float]]:
        """Return (exposure, detector, night, value) of a numeric metric of done jobs, of the last nights before one."""
        with self.reading() as connection:
            return ledger_jobs.measurements(connection, kind, name, before=before, n_nights=n_nights)

    def job_counts(self, *, day_obs: int | None = None) -> dict[tuple[str, JobState], int]:
        """Return the number of jobs by (kind, state)."""
        with self.reading() as connection:
            return ledger_jobs.counts(connection, _equal(JOBS, day_obs=day_obs))

    def last_finished(self, kind: str) -> dict[int, float]:
        """Return night -> when the last job of a kind ended, Unix time."""
        query = select(JOBS.c.day_obs, func.max(JOBS.c.finished)).where(
            JOBS.c.kind == kind, JOBS.c.day_obs.is_not(None)
        )
        with self.reading() as connection:
            rows = connection.execute(query.group_by(JOBS.c.day_obs))
            return {night: finished for night, finished in rows if finished is not None}

    # Diary and account

    def event(self, what: str, subject: str = "", text: str = "", **data: Any) -> None:
        """Write an entry into the diary."""
        values = {"time": time.time(), "what": what, "subject": subject, "text": text, "data": plain_json(data)}
        with self.writing() as connection:
            connection.execute(EVENTS.insert().values(**values))

    def events(self, *, what: str | None = None, subject: str | None = None, since: float | None = None) -> list[Event]:
        """Return entries of the diary, oldest first; ``since`` is Unix time."""
        conditions = _equal(EVENTS, what=what, subject=subject)
        if since is not None:
            conditions.append(EVENTS.c.time >= since)
        with self.reading() as connection:
            rows = connection.execute(select(EVENTS).where(*conditions).order_by(EVENTS.c.id))
            return [Event(**{**row._mapping, "data": row.data or {}}) for row in rows]

    def balance(self, day_obs: int | None = None, *, observation_type: str | None = "science") -> Account:
        """Return the account of a night (None: of everything)."""
        conditions = _equal(EXPOSURES, day_obs=day_obs, observation_type=observation_type)
        waiting = exists().where(
            JOBS.c.exposure_id == EXPOSURES.c.id, JOBS.c.state.in_((JobState.PENDING, JobState.RUNNING))
        )
        refused = _equal(FILES, day_obs=day_obs, status=FileStatus.REFUSED)
        query = select(EXPOSURES.c.id, EXPOSURES.c.state, EXPOSURES.c.reason, waiting.label("is_waiting"))
        with self.reading() as connection:
            rows = connection.execute(query.where(*conditions)).all()
            n_refused = connection.scalar(select(func.count()).select_from(FILES).where(*refused)) or 0
        number = {state: sum(row.state == state for row in rows) for state in ExposureState}
        open_rows = [row for row in rows if row.state == ExposureState.RECEIVED]
        lost = tuple(row.id for row in open_rows if not row.is_waiting)
        reasons: dict[str, int] = {}
        for row in rows:
            if row.state in (ExposureState.FAILED, ExposureState.HELD):
                reasons[row.reason] = reasons.get(row.reason, 0) + 1
        return Account(
            day_obs, len(rows), number[ExposureState.PROCESSED], number[ExposureState.FAILED],
            number[ExposureState.HELD], len(open_rows) - len(lost), len(lost), lost, int(n_refused), reasons,
        )  # fmt: skip


def _fate_of(jobs: list[Job]) -> tuple[ExposureState, str]:
    """Return what an exposure's jobs make of it, and why."""
    by_state = {state: [job for job in jobs if job.state is state] for state in JobState}
    lost = by_state[JobState.FAILED] + by_state[JobState.QUARANTINED]
    fruitless = lost + by_state[JobState.HELD]
    if not jobs or by_state[JobState.PENDING] or by_state[JobState.RUNNING]:
        return ExposureState.RECEIVED, ""
    if not by_state[JobState.DONE]:
        return ExposureState.FAILED if lost else ExposureState.HELD, fruitless[0].reason
    if fruitless:
        return ExposureState.PROCESSED, f"{len(fruitless)} of {len(jobs)} jobs without result: {fruitless[0].reason}"
    return ExposureState.PROCESSED, ""


def _field_number(ra: float, dec: float, tolerance_deg: float, taken: set[int]) -> int:
    """Return a number of seven digits that follows from the part of the sky (several tolerances wide) of a centre."""
    from gueststar.core.healpix import healpix_key, pixel_of_key  # imports astropy, which few need

    order = int(np.clip(np.floor(np.log2(58.6 / (_CELL_TOLERANCES * max(tolerance_deg, 1e-6)))), 0, 20))
    cell = int(pixel_of_key(healpix_key(ra=[ra], dec=[dec]), order)[0])
    number = FIRST_FIELD_NUMBER + content_id("field", order, cell) % (10 * FIRST_FIELD_NUMBER - FIRST_FIELD_NUMBER)
    while number in taken:
        number += 1
    return number


def separation_deg(ra1: float, dec1: float, ra2: float, dec2: float) -> float:
    """Return the angle between two sky positions, all in degrees (haversine)."""
    a1, d1, a2, d2 = (math.radians(value) for value in (ra1, dec1, ra2, dec2))
    h = math.sin((d2 - d1) / 2) ** 2 + math.cos(d1) * math.cos(d2) * math.sin((a2 - a1) / 2) ** 2
    return math.degrees(2.0 * math.asin(min(1.0, math.sqrt(h))))


def _equal(table: Any, **values: Any) -> list[ColumnElement[bool]]:
    return [table.c[name] == value for name, value in values.items() if value is not None]


def _insert_new(connection: Connection, table: Any, key: dict[str, Any], values: dict[str, Any]) -> None:
    """Insert a row unless one with this key is there, also when another process does the same."""
    if connection.execute(select(table).where(*_equal(table, **key))).first() is None:
        try:
            with connection.begin_nested():
                connection.execute(table.insert().values(**key, **values))
        except IntegrityError:
            if connection.execute(select(table).where(*_equal(table, **key))).first() is None:
                raise


def _exposure_values(info: ExposureInfo, received: float | None) -> dict[str, Any]:
    values = {**asdict(info), "program": int(info.program)}
    return {**values, "state": ExposureState.RECEIVED, "received": time.time() if received is None else received}


def _exposure_of(row: Row[Any], detectors: list[int]) -> ExposureRow:
    values = {name: row._mapping[name] for name in _INFO_COLUMNS}
    info = ExposureInfo(**{**values, "program": Program(values["program"])})
    return ExposureRow(info, ExposureState(row.state), row.reason, tuple(sorted(detectors)), row.received)
