"""What the rules of operation ask of the ledger, in one query each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, func, select

from gueststar.model.rights import Program
from gueststar.store.ledger import Ledger
from gueststar.store.ledger_rows import Event, JobState
from gueststar.store.tables import EVENTS, EXPOSURES, JOBS

CALIBRATION_TYPES = ("bias", "dark", "flat")


class FrameSet(NamedTuple):
    """The calibration frames of one kind in a night."""

    night: int
    kind: str
    n_frames: int
    last_received: float
    """Unix time."""


class CalibratedImage(NamedTuple):
    """What was measured on a calibrated image."""

    exposure_id: int
    detector: int
    day_obs: int
    mjd_start: float
    exposure_s: float
    metrics: dict[str, Any]


class OperationFacts:
    """Questions of the rules to a ledger; AccessDenied for a reader's."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger.of_operator()

    def received(self, *, since_night: int) -> dict[int, int]:
        """Return night -> science exposures received."""
        wanted = and_(EXPOSURES.c.day_obs >= since_night, EXPOSURES.c.observation_type == "science")
        query = select(EXPOSURES.c.day_obs, func.count()).where(wanted).group_by(EXPOSURES.c.day_obs)
        with self._ledger.reading() as connection:
            return {int(night): int(n) for night, n in connection.execute(query)}

    def frame_sets(self, *, since_night: int) -> list[FrameSet]:
        """Return the calibration frames of every night and kind."""
        night, kind = EXPOSURES.c.day_obs, EXPOSURES.c.observation_type
        wanted = and_(night >= since_night, kind.in_(CALIBRATION_TYPES))
        query = select(night, kind, func.count(), func.max(EXPOSURES.c.received)).where(wanted)
        with self._ledger.reading() as connection:
            rows = connection.execute(query.group_by(night, kind).order_by(night, kind))
            return [FrameSet(int(row[0]), str(row[1]), int(row[2]), float(row[3])) for row in rows]

    def kinds_of_frames(self) -> frozenset[tuple[str, str | None]]:
        """Return the kinds of calibration frames that were ever received, with the glass of flats."""
        kind = EXPOSURES.c.observation_type
        query = select(kind, EXPOSURES.c.physical_filter).where(kind.in_(CALIBRATION_TYPES)).distinct()
        with self._ledger.reading() as connection:
            return frozenset((str(row[0]), row[1] if row[0] == "flat" else None) for row in connection.execute(query))

    def places_calibrated(self, *, after: float) -> list[tuple[int, str]]:
        """Return field and band of exposures of which an image was worked on after a (Unix) time, whatever came of it.

        It is found by the time alone: in a survey of years nearly every job is done.
        """
        joined = JOBS.join(EXPOSURES, EXPOSURES.c.id == JOBS.c.exposure_id)
        query = (
            select(EXPOSURES.c.field, EXPOSURES.c.band)
            .select_from(joined)
            .where(JOBS.c.kind == "science", JOBS.c.finished > after, *_referable())
            .distinct()
        )
        with self._ledger.reading() as connection:
            return sorted((int(field), str(band)) for field, band in connection.execute(query))

    def calibrated_images(
        self, field: int, band: str, *, detectors: Sequence[int] | None = None
    ) -> list[CalibratedImage]:
        """Return what was measured on the calibrated images of a field in a band that may enter a reference.

        ``detectors``: of these only.
        """
        wanted = [] if detectors is None else [JOBS.c.detector.in_(detectors)]
        query = (
            select(
                JOBS.c.exposure_id, JOBS.c.detector, EXPOSURES.c.day_obs, EXPOSURES.c.mjd_start,
                EXPOSURES.c.exposure_s, JOBS.c.metrics, JOBS.c.state,
            )
            .select_from(JOBS.join(EXPOSURES, EXPOSURES.c.id == JOBS.c.exposure_id))
            .where(EXPOSURES.c.field == field, EXPOSURES.c.band == band, *_referable())
            .where(JOBS.c.kind == "science", *wanted)
            .order_by(JOBS.c.exposure_id, JOBS.c.detector)
        )  # fmt: skip
        with (
            self._ledger.reading() as connection
        ):  # asked for the state, SQLite would go through all jobs that are done
            done = [row for row in connection.execute(query) if row.state == JobState.DONE]
        return [CalibratedImage(*row[:5], metrics=row.metrics or {}) for row in done]

    def last_of_each(self, what: str) -> list[Event]:
        """Return the last entry of the diary of every subject."""
        newest = select(func.max(EVENTS.c.id)).where(EVENTS.c.what == what).group_by(EVENTS.c.subject)
        return self._events(select(EVENTS).where(EVENTS.c.id.in_(newest)).order_by(EVENTS.c.id))

    def in_state(self, what: str, state: str) -> list[Event]:
        """Return the entries of the diary of a kind whose data name a ``state``, oldest first."""
        is_wanted = EVENTS.c.data["state"].as_string() == state
        return self._events(select(EVENTS).where(EVENTS.c.what == what, is_wanted).order_by(EVENTS.c.id))

    def first_and_last(self, what: str) -> tuple[Event, Event] | None:
        """Return the first and the last entry of the diary of a kind; None: there is none."""
        oldest, newest = (
            select(end(EVENTS.c.id)).where(EVENTS.c.what == what).scalar_subquery() for end in (func.min, func.max)
        )
        found = self._events(select(EVENTS).where(EVENTS.c.id.in_((oldest, newest))).order_by(EVENTS.c.id))
        return (found[0], found[-1]) if found else None

    def _events(self, query: Any) -> list[Event]:
        with self._ledger.reading() as connection:
            return [Event(**{**row._mapping, "data": row.data or {}}) for row in connection.execute(query)]


def _referable() -> Iterable[ColumnElement[bool]]:
    """Return the conditions of exposures that may enter a reference."""
    is_placed = and_(EXPOSURES.c.field.is_not(None), EXPOSURES.c.band.is_not(None))
    return EXPOSURES.c.program != int(Program.ENGINEERING), is_placed
