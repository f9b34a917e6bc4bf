"""The alert log: every packet that left, on disk before it counts as sent, found again and replayed.

Packets lie in ``alerts/<night>/<program>/`` as tar files, one a commit, whose members are the packets
(``<candid>.avro``): the files are the truth, and any tool reads them. The index beside them is derived
and can be rebuilt. One candid is in the log once, however often it is handed in.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import BigInteger, Column, ColumnElement, Index, Integer, Select, String, Table, false, or_, select

from gueststar.core.errors import DataError
from gueststar.formats.atomic import appearing_whole
from gueststar.model.detections import OutboxAlert
from gueststar.model.readers import PacketNights
from gueststar.model.rights import Program
from gueststar.store.detections.store import DetectionStore
from gueststar.store.sql import connect, reading, sqlite_url, transaction

FOLDER = "alerts"
"""Folder of a repository that holds the log."""

INDEX_NAME = "index.sqlite"

_PUBLIC_ONLY = (Program.PUBLIC,)
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


@dataclass(frozen=True)
class AlertEntry:
    """One packet in the log."""

    serial: int
    """Order of arrival."""
    candid: int
    object_name: str
    day_obs: int
    program: int
    segment: str
    offset: int
    length: int


class AlertLog:
    """The alert log of the repository at ``root``. Every look into it names the programs it may see."""

    def __init__(self, root: Path) -> None:
        self.folder = root / FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)
        self._engine = connect(sqlite_url(self.folder / INDEX_NAME))
        self._reader = reading(self._engine)
        with transaction(self._engine) as connection:
            METADATA.create_all(connection)

    def close(self) -> None:
        """Close the connections to the index."""
        self._engine.dispose()

    def append(self, alerts: Iterable[OutboxAlert]) -> int:
        """Put packets into the log, on disk when this returns; return how many were not there yet."""
        batch = sorted(alerts, key=lambda alert: (alert.day_obs, alert.program, alert.candid))
        with transaction(self._engine) as connection:  # the lock: one writer at a time
            known = set(
                connection.execute(
                    select(ENTRIES.c.candid).where(ENTRIES.c.candid.in_([a.candid for a in batch]))
                ).scalars()
            )
            fresh = {alert.candid: alert for alert in batch if alert.candid not in known}
            groups: dict[tuple[int, int], list[OutboxAlert]] = {}
            for alert in fresh.values():
                groups.setdefault((alert.day_obs, alert.program), []).append(alert)
            for group in groups.values():
                connection.execute(ENTRIES.insert(), self._write_segment(group))
        return len(fresh)

    def entries(
        self,
        *,
        programs: Collection[Program] | PacketNights = _PUBLIC_ONLY,
        day_obs: int | None = None,
        object_name: str | None = None,
    ) -> list[AlertEntry]:
        """Return entries in order of arrival: of some programs, and of one night or object if given."""
        query = self._visible(programs)
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
        """Make the index anew from the files; return the number of packets."""
        with transaction(self._engine) as connection:
            connection.execute(ENTRIES.delete())
            seen: set[int] = set()
            for path in sorted(self.folder.glob("*/*/*.tar")):
                rows = [row for row in _rows_of_segment(path, self.folder) if row["candid"] not in seen]
                seen.update(row["candid"] for row in rows)
                if rows:
                    connection.execute(ENTRIES.insert(), rows)
        return len(seen)

    def _write_segment(self, alerts: list[OutboxAlert]) -> list[dict[str, Any]]:
        """Write one tar file, safe on disk when this returns; the same alerts give the same file."""
        first = alerts[0]
        digest = hashlib.blake2b(" ".join(str(alert.candid) for alert in alerts).encode(), digest_size=8).hexdigest()
        path = self.folder / str(first.day_obs) / str(first.program) / f"{first.candid}_{digest}.tar"
        with appearing_whole(path) as temporary, temporary.open("wb") as file:
            _write_tar(file, alerts)
            file.flush()
            os.fsync(file.fileno())
        for folder in (path.parent, path.parent.parent, self.folder):
            _fsync_folder(folder)
        return _rows_of_segment(path, self.folder)

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


def _write_tar(file: io.BufferedWriter, alerts: list[OutboxAlert]) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for alert in alerts:
            member = tarfile.TarInfo(f"{alert.candid}.avro")
            member.size = len(alert.payload)
            member.pax_headers = {"GUESTSTAR.object": alert.object_name}
            archive.addfile(member, io.BytesIO(alert.payload))


def _rows_of_segment(path: Path, log_folder: Path) -> list[dict[str, Any]]:
    with tarfile.open(path, "r:") as archive:
        return [
            {
                "candid": int(Path(member.name).stem), "object_name": member.pax_headers["GUESTSTAR.object"],
                "day_obs": int(path.parent.parent.name), "program": int(path.parent.name),
                "segment": str(path.relative_to(log_folder)), "offset": member.offset_data, "length": member.size,
            }
            for member in archive
        ]  # fmt: skip


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
