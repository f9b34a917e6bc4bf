"""Alarms in the ledger: what is wrong, since when, who knows of it, and when it was over."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, select, text, update

from gueststar.core.errors import ConfigError
from gueststar.store.ledger import Ledger
from gueststar.store.tables import ALARMS

Severity = Literal["notice", "warning", "critical"]

SEVERITIES: tuple[Severity, ...] = ("notice", "warning", "critical")
"""From the least to the worst."""

_A_MOMENT_S = 1e-3


@dataclass(frozen=True)
class Alarm:
    """One thing that is, or was, wrong. Times are Unix seconds."""

    id: int
    kind: str
    """What is wrong, a word of the playbook."""
    subject: str
    """With what: a disk, a night, a stage; may be empty."""
    severity: Severity
    text: str
    opened: float
    last_seen: float
    n_seen: int
    sent: float | None = None
    """When people were last told; after ``closed``: they were told that it is over."""
    acknowledged: str | None = None
    """Who takes care of it: it is not sent again."""
    closed: float | None = None

    @property
    def name(self) -> str:
        """Kind and subject, as a person reads them."""
        return f"{self.kind} {self.subject}".strip()


class Alarms:
    """The alarms of a ledger; AccessDenied for a reader's."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger.of_operator()

    def see(
        self, kind: str, subject: str, severity: Severity, told: str, *, now: float, calm_s: float = 0.0
    ) -> Alarm:  # fmt: skip
        """Open an alarm, or count it again where one of this kind and subject is open; return it.

        One that was closed less than ``calm_s`` ago, and of whose end nobody was told, is open again. One that becomes
        worse is news: it is sent again, also where somebody had acknowledged it.
        """
        with self._ledger.writing() as connection:
            if connection.dialect.name == "postgresql":  # two processes may see the same thing at once
                connection.execute(text("SELECT pg_advisory_xact_lock(7291808)"))
            known = _open_one(connection, kind, subject) or _just_closed(connection, kind, subject, now - calm_s)
            if known is None:
                row = {
                    "kind": kind, "subject": subject, "severity": severity, "text": told, "opened": now,
                    "last_seen": now, "n_seen": 1,
                }  # fmt: skip
                inserted = connection.execute(ALARMS.insert().values(**row))
                return _alarm_of(_row(connection, int(inserted.inserted_primary_key[0])))  # type: ignore[index]
            values: dict[str, Any] = {
                "last_seen": max(now, known.last_seen),
                "n_seen": known.n_seen + 1,
                "text": told,
                "closed": None,
            }
            if SEVERITIES.index(severity) > SEVERITIES.index(known.severity):
                values |= {"severity": severity, "sent": None, "acknowledged": None}
            connection.execute(update(ALARMS).where(ALARMS.c.id == known.id).values(**values))
            return _alarm_of(_row(connection, known.id))

    def settle(self, kind: str, subject: str, *, now: float) -> Alarm | None:
        """Close the open alarm of a kind and subject; return it, or None if there is none."""
        with self._ledger.reading() as connection:  # most conditions are fine most of the time: no lock is taken
            if _open_one(connection, kind, subject) is None:
                return None
        with self._ledger.writing() as connection:
            known = _open_one(connection, kind, subject)
            return None if known is None else _close(connection, known, now)

    def close(self, number: int, *, now: float) -> Alarm:
        """Close one alarm by its number; ConfigError if it is not open."""
        with self._ledger.writing() as connection:
            return _close(connection, self._open_by_number(connection, number), now)

    def acknowledge(self, number: int, person: str) -> Alarm:
        """Write down who takes care of an alarm; ConfigError if it is not open."""
        with self._ledger.writing() as connection:
            self._open_by_number(connection, number)
            connection.execute(update(ALARMS).where(ALARMS.c.id == number).values(acknowledged=person))
            return _alarm_of(_row(connection, number))

    def mark_sent(self, numbers: Collection[int], *, now: float) -> None:
        """Write down that people were told of alarms, or, where these are closed, that they are over."""
        with self._ledger.writing() as connection:
            for number in numbers:
                row = _row(connection, number)
                told = now if row.closed is None else max(now, row.closed + _A_MOMENT_S)
                connection.execute(update(ALARMS).where(ALARMS.c.id == number).values(sent=told))

    def open(self) -> list[Alarm]:
        """Return the open alarms, the worst first, then the oldest."""
        with self._ledger.reading() as connection:
            rows = connection.execute(select(ALARMS).where(ALARMS.c.closed.is_(None)).order_by(ALARMS.c.id))
            found = [_alarm_of(row) for row in rows]
        return sorted(found, key=lambda alarm: (-SEVERITIES.index(alarm.severity), alarm.opened))

    def over_untold(self) -> list[Alarm]:
        """Return the closed alarms that people were told of, and were not told that they are over."""
        is_untold = (ALARMS.c.closed.is_not(None), ALARMS.c.sent.is_not(None), ALARMS.c.sent <= ALARMS.c.closed)
        with self._ledger.reading() as connection:
            return [
                _alarm_of(row) for row in connection.execute(select(ALARMS).where(*is_untold).order_by(ALARMS.c.id))
            ]

    def since(self, time: float) -> list[Alarm]:
        """Return the alarms that were open at any moment since a Unix time, in the order of opening."""
        is_recent = ALARMS.c.closed.is_(None) | (ALARMS.c.closed >= time)
        with self._ledger.reading() as connection:
            return [_alarm_of(row) for row in connection.execute(select(ALARMS).where(is_recent).order_by(ALARMS.c.id))]

    def _open_by_number(self, connection: Connection, number: int) -> Alarm:
        found = connection.execute(select(ALARMS).where(ALARMS.c.id == number)).first()
        if found is None or found.closed is not None:
            raise ConfigError(f"there is no open alarm {number}: gueststar alarm list REPO shows those that are")
        return _alarm_of(found)


def _open_one(connection: Connection, kind: str, subject: str) -> Alarm | None:
    mine = (ALARMS.c.kind == kind, ALARMS.c.subject == subject, ALARMS.c.closed.is_(None))
    row = connection.execute(select(ALARMS).where(*mine).order_by(ALARMS.c.id)).first()
    return None if row is None else _alarm_of(row)


def _just_closed(connection: Connection, kind: str, subject: str, since: float) -> Alarm | None:
    """Return the last closed alarm, if it was closed after a time and its end was told to nobody."""
    mine = (ALARMS.c.kind == kind, ALARMS.c.subject == subject, ALARMS.c.closed > since)
    is_untold = ALARMS.c.sent.is_(None) | (ALARMS.c.sent <= ALARMS.c.closed)
    row = connection.execute(select(ALARMS).where(*mine, is_untold).order_by(ALARMS.c.id.desc())).first()
    return None if row is None else _alarm_of(row)


def _close(connection: Connection, alarm: Alarm, now: float) -> Alarm:
    closed = max(now, alarm.opened, alarm.sent or 0.0)  # also where the clock was set back meanwhile
    connection.execute(update(ALARMS).where(ALARMS.c.id == alarm.id).values(closed=closed))
    return _alarm_of(_row(connection, alarm.id))


def _row(connection: Connection, number: int) -> Row[tuple[object, ...]]:
    return connection.execute(select(ALARMS).where(ALARMS.c.id == number)).one()


def _alarm_of(row: Row[tuple[object, ...]]) -> Alarm:
    return Alarm(**row._mapping)
