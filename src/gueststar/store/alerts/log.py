"""The alert log: every packet that left, on disk before it counts as sent, found again and replayed.

Packets lie in ``alerts/<night>/<program>/`` as tar files, one a commit, whose members are the packets
(``<candid>.avro``): the files are the truth, and any tool reads them. The index beside them is derived
and can be rebuilt. One candid is in the log once, however often it is handed in. Packets of other surveys
lie in logs of the same form, ``other_surveys/<name>/``, and are never published as ours.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Index,
    Integer,
    Select,
    String,
    Table,
    false,
    func,
    or_,
    select,
)

from gueststar.core.errors import ConfigError, DataError
from gueststar.model.detections import OutboxAlert
from gueststar.model.readers import PacketNights
from gueststar.model.rights import Program
from gueststar.store.alerts.segments import (
    AlertEntry,
    in_order_of_arrival,
    read_segment,
    segment_name,
    told_when_full,
    write_segment,
)
from gueststar.store.sql import connect, reading, sqlite_url, transaction

if TYPE_CHECKING:
    from gueststar.store.detections.store import DetectionStore

FOLDER = "alerts"
"""Folder of a repository that holds the log."""

INDEX_NAME = "index.sqlite"

TABLE_FOLDER = "table"
"""Folder of a log that holds the table of columns (`gueststar.store.alerts.table`)."""

OTHER_SURVEYS = "other_surveys"
"""Folder of a repository that holds the logs of other surveys' packets."""

_PUBLIC_ONLY = (Program.PUBLIC,)
_SURVEY_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_ROWS_AT_ONCE = 10_000
METADATA = sqlalchemy.MetaData()
ENTRIES = Table(
    "alert",
    METADATA,
    Column("serial", Integer, primary_key=True, autoincrement=True, doc="order of arrival"),
    Column("candid", BigInteger, nullable=False, unique=True),
    Column("object_name", String, nullable=False),
    Column("day_obs", Integer, nullable=False),
    Column("program", Integer, nullable=False),
    Column("segment", String, nullable=False, doc="tar file, relative to the log"),
    Column("offset", BigInteger, nullable=False, doc="of the packet within the segment, bytes"),
    Column("length", Integer, nullable=False, doc="of the packet, bytes"),
    Index("alert_by_object", "object_name"),
    Index("alert_by_night", "day_obs", "program"),
)


class AlertLog:
    """The alert log of the repository at ``root``. Every look into it names the programs it may see.

    ``survey`` names another survey whose packets were imported; None is the repository's own.
    """

    def __init__(self, root: Path, *, survey: str | None = None) -> None:
        self.survey = survey
        self.folder = root / FOLDER if survey is None else root / OTHER_SURVEYS / _checked_name(survey)
        with told_when_full(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._engine = connect(sqlite_url(self.folder / INDEX_NAME))
        self._reader = reading(self._engine)
        with transaction(self._engine) as connection:
            METADATA.create_all(connection)

    def __enter__(self) -> AlertLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the index."""
        self._engine.dispose()

    def append(self, alerts: Iterable[OutboxAlert]) -> int:
        """Put packets into the log, on disk when this returns; return how many were not there yet.

        Raises ServiceDown where there is no room: then the log is as it was before, and the same call does the rest.
        """
        batch = sorted(alerts, key=lambda alert: (alert.day_obs, alert.program, alert.candid))
        with told_when_full(self.folder), transaction(self._engine) as connection:  # the lock: one writer at a time
            known = set(
                connection.execute(
                    select(ENTRIES.c.candid).where(ENTRIES.c.candid.in_([a.candid for a in batch]))
                ).scalars()
            )
            fresh = {alert.candid: alert for alert in batch if alert.candid not in known}
            groups: dict[tuple[int, int], list[OutboxAlert]] = {}
            for alert in fresh.values():
                groups.setdefault((alert.day_obs, alert.program), []).append(alert)
            serial = 1 + int(connection.execute(select(func.coalesce(func.max(ENTRIES.c.serial), 0))).scalar_one())
            for group in groups.values():
                connection.execute(ENTRIES.insert(), self._write_segment(group, serial))
                serial += len(group)
        return len(fresh)

    def last_serial(self) -> int:
        """Return the place of the last packet in the order of arrival; 0 where the log is empty."""
        with transaction(self._reader) as connection:
            return int(connection.execute(select(func.coalesce(func.max(ENTRIES.c.serial), 0))).scalar_one())

    def between(self, first: int, last: int) -> list[AlertEntry]:
        """Return the entries of all programs whose serials are from ``first`` to ``last``, both included."""
        query = select(ENTRIES).where(ENTRIES.c.serial.between(first, last)).order_by(ENTRIES.c.serial)
        with transaction(self._reader) as connection:
            return [AlertEntry(*row) for row in connection.execute(query)]

    def entries(
        self,
        *,
        programs: Collection[Program] | PacketNights = _PUBLIC_ONLY,
        day_obs: int | None = None,
        object_name: str | None = None,
        candids: Collection[int] | None = None,
    ) -> list[AlertEntry]:
        """Return entries in order of arrival: of some programs, and of one night, object or some candids if given."""
        query = self._visible(programs)
        if candids is not None:
            wanted = select(func.json_each(json.dumps([int(c) for c in candids])).table_valued("value").c.value)
            query = query.where(ENTRIES.c.candid.in_(wanted))
        if day_obs is not None:
            query = query.where(ENTRIES.c.day_obs == day_obs)
        if object_name is not None:
            query = query.where(ENTRIES.c.object_name == object_name)
        with transaction(self._reader) as connection:
            return [AlertEntry(*row) for row in connection.execute(query.order_by(ENTRIES.c.serial))]

    def find(self, candid: int, *, programs: Collection[Program] | PacketNights = _PUBLIC_ONLY) -> AlertEntry | None:
        """Return the entry of a candid; None if there is none that these programs may see."""
        with transaction(self._reader) as connection:
            row = connection.execute(self._visible(programs).where(ENTRIES.c.candid == candid)).first()
        return None if row is None else AlertEntry(*row)

    def read(self, entry: AlertEntry) -> bytes:
        """Return a packet; raises DataError if its file is gone or cut short."""
        path = self.folder / entry.segment
        try:
            with path.open("rb") as file:
                file.seek(entry.offset)
                data = file.read(entry.length)
        except OSError as problem:
            raise DataError(f"{path}: alert {entry.candid} cannot be read: {problem}") from problem
        if len(data) != entry.length:
            raise DataError(f"{path}: alert {entry.candid} is cut short at {len(data)} of {entry.length} bytes")
        return data

    def replay(
        self, *, programs: Collection[Program] | PacketNights = _PUBLIC_ONLY, day_obs: int | None = None
    ) -> Iterator[tuple[AlertEntry, bytes]]:
        """Yield packets in order of arrival."""
        for entry in self.entries(programs=programs, day_obs=day_obs):
            yield entry, self.read(entry)

    def rebuild_index(self) -> int:
        """Make the index anew from the files, in the order of arrival that they tell; return the number of packets.

        Segments that are damaged are left out from the damage on: `gueststar.store.alerts.integrity` names them.
        """
        found = [row for path in self.segments() for row in read_segment(path, self.folder).rows]
        with transaction(self._engine) as connection:
            connection.execute(ENTRIES.delete())
            rows = in_order_of_arrival(found)
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                connection.execute(ENTRIES.insert(), rows[start : start + _ROWS_AT_ONCE])
        shutil.rmtree(self.folder / TABLE_FOLDER, ignore_errors=True)  # it is known by serials
        return len(rows)

    def segments(self) -> list[Path]:
        """Return the files of packets, by night, program and name."""
        return sorted(path for path in self.folder.glob("*/*/*.tar") if not path.name.startswith("."))

    def _write_segment(self, alerts: list[OutboxAlert], first_serial: int) -> list[dict[str, Any]]:
        """Write one tar file, safe on disk when this returns; the same alerts get the same file name."""
        path = self.folder / segment_name(alerts)
        entries = write_segment(path, self.folder, alerts, first_serial)
        for folder in (path.parent, path.parent.parent, self.folder):
            _fsync_folder(folder)
        return [dict(vars(entry)) for entry in entries]

    @staticmethod
    def _visible(programs: Collection[Program] | PacketNights) -> Select[Any]:
        return select(ENTRIES).where(allowed(programs))


def allowed(programs: Collection[Program] | PacketNights) -> ColumnElement[bool]:
    """Return the condition on `ENTRIES` that packets may be taken: those of some programs, or up to some nights."""
    nights = programs if isinstance(programs, PacketNights) else PacketNights.of_programs(programs)
    return or_(
        false(), *(
            (ENTRIES.c.program == int(program)) & (ENTRIES.c.day_obs <= night)
            for program, night in nights.last_night.items()
        )
    )  # fmt: skip


def drain_outbox(store: DetectionStore, log: AlertLog) -> int:
    """Move committed alerts into the log, each exactly once; return how many were new there.

    It may be killed at any point and be called again, by several processes too: a packet leaves the
    outbox only when the log has it, and the log takes a candid once.
    """
    n_new = 0
    for sequence, alerts in store.waiting_batches():
        n_new += log.append(alerts)
        store.mark_sent(sequence)
    return n_new


def _checked_name(survey: str) -> str:
    if not _SURVEY_NAME.fullmatch(survey):
        raise ConfigError(f"{survey!r} is no name of a survey: small letters, digits, _ and - only")
    return survey


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
