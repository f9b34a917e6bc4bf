"""The pulse of a survey: what those who watch ask of the ledger, in a few cheap questions.

Every question is bounded by nights or by a number of exposures, so that it costs the same in the third year as on the
first day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from sqlalchemy import Row, and_, case, func, select

from gueststar.store.ledger import Ledger
from gueststar.store.ledger_rows import ExposureState, FileStatus, JobState
from gueststar.store.tables import EXPECTED_EXPOSURES, EXPOSURE_DETECTORS, EXPOSURES, FILES, JOBS

SHOWN_METRICS = (
    "fwhm_arcsec", "zero_point", "cloud_extinction_mag", "limiting_mag", "n_candidates", "n_alerts",
    "astrometric_rms_mas",
)  # fmt: skip
"""Measurements of a detector image that are shown while the night runs."""

_OPEN_NIGHTS = 30
"""Nights of the past in which exposures are looked for that still wait."""


@dataclass(frozen=True)
class FieldPulse:
    """The exposures of one field in one filter in a night, by what became of them."""

    field: int | None
    band: str
    received: int
    processed: int
    failed: int
    held: int


@dataclass(frozen=True)
class ExposurePulse:
    """One exposure as those who watch see it. Times are Unix seconds, except the start."""

    id: int
    day_obs: int
    mjd_start: float
    """MJD TAI."""
    exposure_s: float
    observation_type: str
    program: int
    field: int | None
    band: str
    state: ExposureState
    reason: str
    received: float
    finished: float | None
    """When the last of its units of work was settled; None while one waits or runs."""
    n_units: int
    """Detector images."""
    units: tuple[UnitPulse, ...] = ()


@dataclass(frozen=True)
class UnitPulse:
    """The furthest work on one detector image."""

    detector: int
    kind: str
    state: JobState
    reason: str
    metrics: dict[str, float]


class Pulse:
    """What those who watch ask of a ledger; AccessDenied for a reader's."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger.of_operator()

    def last_night(self) -> int | None:
        """Return the last night with an exposure; None where there is none."""
        return self._one(select(func.max(EXPOSURES.c.day_obs)))

    def exposures(self, night: int) -> dict[ExposureState, int]:
        """Return the number of science exposures of a night by state."""
        mine = and_(EXPOSURES.c.day_obs == night, EXPOSURES.c.observation_type == "science")
        rows = self._all(select(EXPOSURES.c.state, func.count()).where(mine).group_by(EXPOSURES.c.state))
        return {ExposureState(state): int(n) for state, n in rows}

    def fields(self, night: int) -> list[FieldPulse]:
        """Return the science exposures of a night by field and filter, in the order of their first exposures."""
        mine = and_(EXPOSURES.c.day_obs == night, EXPOSURES.c.observation_type == "science")
        key = (EXPOSURES.c.field, func.coalesce(EXPOSURES.c.band, ""))
        of_state = [
            func.sum(case((EXPOSURES.c.state == state, 1), else_=0))
            for state in (ExposureState.PROCESSED, ExposureState.FAILED, ExposureState.HELD)
        ]
        query = (
            select(*key, func.count(), *of_state).where(mine).group_by(*key).order_by(func.min(EXPOSURES.c.mjd_start))
        )
        return [FieldPulse(field, band, *(int(n) for n in numbers)) for field, band, *numbers in self._all(query)]

    def refused(self, night: int) -> int:
        """Return the number of a night's files that could not become exposures, as far as they told their night."""
        mine = and_(FILES.c.day_obs == night, FILES.c.status == FileStatus.REFUSED)
        return int(self._one(select(func.count()).select_from(FILES).where(mine)) or 0)

    def last_files(self, n: int) -> list[tuple[FileStatus, str]]:
        """Return (status, reason) of the last received files, newest first."""
        query = select(FILES.c.status, FILES.c.reason).order_by(FILES.c.id.desc()).limit(n)
        return [(FileStatus(status), reason) for status, reason in self._all(query)]

    def queue(self) -> dict[int, int]:
        """Return priority -> number of units of work that wait."""
        query = select(JOBS.c.priority, func.count()).where(JOBS.c.state == JobState.PENDING).group_by(JOBS.c.priority)
        return {int(priority): int(n) for priority, n in self._all(query)}

    def work(self, night: int) -> dict[tuple[str, JobState], tuple[int, float]]:
        """Return (kind, state) -> number of units of work of a night, and the CPU seconds they took."""
        cpu = func.coalesce(func.sum(JOBS.c.cpu_s), 0.0)
        query = select(JOBS.c.kind, JOBS.c.state, func.count(), cpu).where(JOBS.c.day_obs == night)
        rows = self._all(query.group_by(JOBS.c.kind, JOBS.c.state))
        return {(kind, JobState(state)): (int(n), float(seconds)) for kind, state, n, seconds in rows}

    def quarantined(self, night: int) -> list[tuple[str, str, int]]:
        """Return (kind, reason, number) of the units of work of a night that were set aside."""
        mine = and_(JOBS.c.day_obs == night, JOBS.c.state == JobState.QUARANTINED)
        query = select(JOBS.c.kind, JOBS.c.reason, func.count()).where(mine).group_by(JOBS.c.kind, JOBS.c.reason)
        return [(kind, reason, int(n)) for kind, reason, n in self._all(query.order_by(func.count().desc()))]

    def oldest_waiting(self, night: int) -> tuple[int, float, int] | None:
        """Return (exposure, time received, how many) of the science exposures that have not reached their end.

        Those of the last thirty days up to a night count; None if there is none.
        """
        mine = and_(
            EXPOSURES.c.day_obs > _days_before(night), EXPOSURES.c.observation_type == "science",
            EXPOSURES.c.state == ExposureState.RECEIVED,
        )  # fmt: skip
        n = int(self._one(select(func.count()).select_from(EXPOSURES).where(mine)) or 0)
        query = select(EXPOSURES.c.id, EXPOSURES.c.received).where(mine).order_by(EXPOSURES.c.received).limit(1)
        rows = self._all(query)
        return (int(rows[0].id), float(rows[0].received), n) if rows else None

    def n_expected(self, night: int, *, before_mjd: float) -> tuple[int, float | None]:
        """Return how many science exposures a night should have by a moment (MJD TAI), and the start of the last."""
        mine = and_(
            EXPECTED_EXPOSURES.c.day_obs == night, EXPECTED_EXPOSURES.c.observation_type == "science",
            EXPECTED_EXPOSURES.c.mjd_start <= before_mjd,
        )  # fmt: skip
        last = func.max(EXPECTED_EXPOSURES.c.mjd_start)
        row = self._all(select(func.count(), last).select_from(EXPECTED_EXPOSURES).where(mine))[0]
        return int(row[0]), row[1]

    def last_received(self, night: int) -> float | None:
        """Return when the last exposure of a night was received, Unix time."""
        return self._one(select(func.max(EXPOSURES.c.received)).where(EXPOSURES.c.day_obs == night))

    def latencies(self, night: int, *, since: float) -> list[tuple[int, float, float, float, float]]:
        """Return (exposure, MJD TAI of its start, seconds of exposure, received, finished) of processed exposures.

        Those of a night that were finished since a Unix time, in that order.
        """
        finished = func.max(JOBS.c.finished)
        mine = and_(
            EXPOSURES.c.day_obs == night, EXPOSURES.c.observation_type == "science",
            EXPOSURES.c.state == ExposureState.PROCESSED,
        )  # fmt: skip
        query = (
            select(EXPOSURES.c.id, EXPOSURES.c.mjd_start, EXPOSURES.c.exposure_s, EXPOSURES.c.received, finished)
            .join(JOBS, and_(JOBS.c.exposure_id == EXPOSURES.c.id, JOBS.c.kind.in_(PROMPT_STAGES)))
            .where(mine)
            .group_by(EXPOSURES.c.id, EXPOSURES.c.mjd_start, EXPOSURES.c.exposure_s, EXPOSURES.c.received)
            .having(finished >= since)
            .order_by(finished)
        )
        return [tuple(row) for row in self._all(query)]

    def last_exposures(self, night: int, n: int) -> list[ExposurePulse]:
        """Return the last received science exposures of a night with their detector images, newest first."""
        mine = and_(EXPOSURES.c.day_obs == night, EXPOSURES.c.observation_type == "science")
        rows = self._all(select(EXPOSURES).where(mine).order_by(EXPOSURES.c.received.desc()).limit(n))
        numbers = [row.id for row in rows]
        jobs: dict[int, list[Any]] = {}
        for job in self._all(_units_of(numbers)):
            jobs.setdefault(job.exposure_id, []).append(job)
        detectors = self._all(
            select(EXPOSURE_DETECTORS.c.exposure_id, func.count())
            .where(EXPOSURE_DETECTORS.c.exposure_id.in_(numbers))
            .group_by(EXPOSURE_DETECTORS.c.exposure_id)
        )
        n_units = {exposure: int(number) for exposure, number in detectors}
        return [_exposure_of(row, jobs.get(row.id, []), n_units.get(row.id, 0)) for row in rows]

    def _all(self, query: Any) -> Sequence[Any]:
        with self._ledger.reading() as connection:
            return connection.execute(query).all()

    def _one(self, query: Any) -> Any:
        with self._ledger.reading() as connection:
            return connection.scalar(query)


PROMPT_STAGES = ("science", "difference", "association")
"""Kinds of work from pixels to alerts, in order."""


def _units_of(numbers: Sequence[int]) -> Any:
    metrics = [JOBS.c.metrics[name].as_float().label(name) for name in SHOWN_METRICS]
    columns = (JOBS.c.exposure_id, JOBS.c.detector, JOBS.c.kind, JOBS.c.state, JOBS.c.reason, JOBS.c.finished)
    return select(*columns, *metrics).where(JOBS.c.exposure_id.in_(numbers), JOBS.c.kind.in_(PROMPT_STAGES))


def _exposure_of(row: Row[Any], jobs: Sequence[Row[Any]], n_units: int) -> ExposurePulse:
    by_detector: dict[int, list[Row[Any]]] = {}
    for job in sorted(jobs, key=lambda job: PROMPT_STAGES.index(job.kind)):
        by_detector.setdefault(job.detector, []).append(job)
    is_open = any(job.state in (JobState.PENDING, JobState.RUNNING) for job in jobs) or not jobs
    return ExposurePulse(
        row.id, row.day_obs, row.mjd_start, row.exposure_s, row.observation_type, row.program, row.field,
        row.band or "", ExposureState(row.state), row.reason, row.received,
        None if is_open else max((job.finished or 0.0 for job in jobs), default=None), n_units,
        tuple(_unit_of(detector, mine) for detector, mine in sorted(by_detector.items())),
    )  # fmt: skip


def _unit_of(detector: int, jobs: Sequence[Row[Any]]) -> UnitPulse:
    metrics: dict[str, float] = {}
    for job in jobs:
        metrics |= {name: float(job._mapping[name]) for name in SHOWN_METRICS if job._mapping[name] is not None}
    last = jobs[-1]
    return UnitPulse(detector, last.kind, JobState(last.state), last.reason, metrics)


def _days_before(night: int) -> int:
    """Return a night (YYYYMMDD) some nights before another one."""
    day = date(night // 10000, night // 100 % 100, night % 100) - timedelta(days=_OPEN_NIGHTS)
    return day.year * 10000 + day.month * 100 + day.day
