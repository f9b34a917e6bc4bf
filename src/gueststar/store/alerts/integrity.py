"""Is an alert log whole? Segments, index and table are compared; what is derived is mended, what is lost is named."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import delete, func, select

from gueststar.core.errors import DataError
from gueststar.formats.packet_families import identify, leading_schemas
from gueststar.formats.packets import Packet, Schemas, read_packet
from gueststar.model.rights import Program
from gueststar.store.alerts.log import ENTRIES, AlertLog
from gueststar.store.alerts.publication import Publication
from gueststar.store.alerts.schemas import known_schemas
from gueststar.store.alerts.segments import AlertEntry, Segment, SegmentRow, digest_of, read_segment
from gueststar.store.alerts.table import AlertTable, TableFile
from gueststar.store.sql import transaction

STALE_S = 3600.0
"""A temporary file that old was left by a process that was killed."""

_SERIALS_AT_ONCE = 20_000


@dataclass
class Findings:
    """What was found, and what was done about it."""

    n_segments: int = 0
    n_packets: int = 0
    mended: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """What cannot be mended, one line each."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is lost."""
        return not self.lost

    def line(self) -> str:
        """Return it in words."""
        told = f"{self.n_packets} packets in {self.n_segments} segments"
        if self.mended or self.lost:
            return f"{told}: {len(self.mended)} mended, {len(self.lost)} lost"
        return f"{told}: whole"


class VerifyLog:
    """Verifies one alert log. Others may go on writing."""

    def __init__(self, log: AlertLog, *, progress: Callable[[int, int], None] = lambda done, of: None) -> None:
        self.log, self._progress = log, progress
        self._findings = Findings()

    def run(self, root: Path | None = None) -> Findings:
        """Return what was found; ``root`` is the repository whose publication is looked at too, if given."""
        self._remove_leftovers()
        if self.log.last_serial() == 0 and self.log.segments():
            n = self.log.rebuild_index()
            self._findings.mended.append(f"{self.log.folder}: the index was gone, made anew of {n} packets")
        self._compare_segments()
        self._compare_table()
        if root is not None:
            self._compare_publication(root)
        return self._findings

    # Segments and index

    def _compare_segments(self) -> None:
        paths, schemas = self.log.segments(), known_schemas(self.log.folder)
        seen: set[int] = set()
        for k, path in enumerate(paths, start=1):
            segment = read_segment(path, self.log.folder)
            self._findings.n_segments += 1
            if segment.damage is not None:
                self._lose(path, f"{segment.damage}; its first {len(segment.rows)} packets can be read")
            seen |= self._compare_rows(path, segment, schemas)
            self._progress(k, len(paths))
        for first in range(1, self.log.last_serial() + 1, _SERIALS_AT_ONCE):
            for entry in self.log.between(first, first + _SERIALS_AT_ONCE - 1):
                if entry.candid not in seen and not self._is_there(entry):
                    self._lose(self.log.folder / entry.segment, f"packet {entry.candid} is gone; the index knew it")

    def _compare_rows(self, path: Path, segment: Segment, schemas: Schemas) -> set[int]:
        """Compare the packets of one segment with the index; return their candids."""
        for row in segment.rows:
            if (fault := self._fault_of(row, schemas)) is not None:
                self._lose(path, f"packet {row.entry.candid}: {fault}")
        self._findings.n_packets += len(segment.rows)
        self._mend_index(path, list(segment.rows))
        return {row.entry.candid for row in segment.rows}

    def _fault_of(self, row: SegmentRow, schemas: Schemas) -> str | None:
        try:
            payload = self.log.read(row.entry)
        except DataError as problem:
            return str(problem)
        if row.digest is not None:
            return None if digest_of(payload) == row.digest else "its bytes are not those that were written"
        try:
            return _disagreement(read_packet(payload, schemas=schemas, leading=leading_schemas()), row.entry)
        except DataError as problem:
            return str(problem)

    def _mend_index(self, path: Path, rows: list[SegmentRow]) -> None:
        candids = [row.entry.candid for row in rows]
        entries = {entry.candid: entry for entry in self._entries(candids)}
        for row in rows:
            entry = entries.get(row.entry.candid)
            if entry is not None and _same_place(entry, row.entry):
                continue
            if entry is not None and entry.segment != row.entry.segment and (self.log.folder / entry.segment).exists():
                continue  # left by a commit that was begun again: the packet is known from another segment
            self._enter(row, entry)
            what = "was not in the index" if entry is None else "lay elsewhere by the index"
            self._findings.mended.append(f"{path}: packet {row.entry.candid} {what}")

    def _enter(self, row: SegmentRow, entry: AlertEntry | None) -> None:
        with transaction(self.log._engine) as connection:
            there = connection.execute(select(ENTRIES.c.serial).where(ENTRIES.c.candid == row.entry.candid)).scalar()
            if entry is None and there is not None:
                return  # another process entered it meanwhile
            taken = connection.execute(select(ENTRIES.c.serial).where(ENTRIES.c.serial == row.entry.serial)).scalar()
            last = int(connection.execute(select(func.coalesce(func.max(ENTRIES.c.serial), 0))).scalar_one())
            serial = there or (row.entry.serial if row.entry.serial and taken is None else last + 1)
            connection.execute(delete(ENTRIES).where(ENTRIES.c.candid == row.entry.candid))
            connection.execute(ENTRIES.insert(), row.values(serial=serial))

    def _entries(self, candids: list[int]) -> list[AlertEntry]:
        return self.log.entries(programs=tuple(Program), candids=candids)

    def _is_there(self, entry: AlertEntry) -> bool:
        """Return whether a packet is in a segment that was written while others were looked at."""
        rows = read_segment(self.log.folder / entry.segment, self.log.folder).rows
        return any(row.entry.candid == entry.candid for row in rows)

    # Table

    def _compare_table(self) -> None:
        table = AlertTable(self.log)
        wrong = [file for file in table.files() if not self._agrees(file)]
        for file in wrong:
            self._findings.mended.append(f"{file.path}: did not agree with the index, made again")
        table.remove(wrong)
        table.complete()

    def _agrees(self, file: TableFile) -> bool:
        names = ("serial", "candid", "night", "programid", "objectId")
        try:
            columns = pq.read_table(file.path, columns=list(names), use_threads=False)
            told = sorted(zip(*(columns[name].to_pylist() for name in names), strict=True))
        except (pa.ArrowException, OSError, KeyError, ValueError):  # damaged: it is derived, and made again
            return False
        known = [
            (entry.serial, entry.candid, entry.day_obs, entry.program, entry.object_name)
            for first in range(file.first, file.last + 1, _SERIALS_AT_ONCE)
            for entry in self.log.between(first, min(first + _SERIALS_AT_ONCE - 1, file.last))
        ]
        return told == known

    # The rest

    def _compare_publication(self, root: Path) -> None:
        state = Publication(root)
        try:
            for candid, fate in state.unknown_to_the_log():
                self._findings.lost.append(f"{self.log.folder}: packet {candid} was {fate}, and the log has it not")
        finally:
            state.close()

    def _remove_leftovers(self) -> None:
        now = time.time()
        for path in [*self.log.folder.glob("*/*/.*.tar")]:
            if now - path.stat().st_mtime > STALE_S:
                path.unlink(missing_ok=True)
                self._findings.mended.append(f"{path}: left by a process that was killed, removed")

    def _lose(self, path: Path, what: str) -> None:
        self._findings.lost.append(f"{path}: {what}")


def _same_place(a: AlertEntry, b: AlertEntry) -> bool:
    names = ("segment", "offset", "length", "object_name", "day_obs", "program")
    return all(getattr(a, name) == getattr(b, name) for name in names)


def _disagreement(packet: Packet, entry: AlertEntry) -> str | None:
    """Return what a packet without checksum says other than the log, if it does."""
    identity = identify(packet)
    if identity.candid != entry.candid:
        return f"it says that it is {identity.candid}"
    return None if int(identity.program) == entry.program else f"it is of program {int(identity.program)}"
