"""The table of an alert log: what packets say, in columns, so that a condition on any field is answered at once.

Parquet files in the folder ``table`` of the log, each of the packets whose serials its name tells (``first-last``). It
is derived: completed from the segments, behind the log and not within its transaction, and whatever is missing,
damaged or left from a process that was killed is made again. Small files are merged into larger ones, so that a
packet is written again a few times in its life and never with each commit. Within a file, rows lie by place.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from gueststar.core.errors import DataError
from gueststar.formats.atomic import appearing_whole
from gueststar.formats.packet_columns import ArchivedPacket, joined, packet_columns
from gueststar.formats.packet_families import leading_schemas
from gueststar.formats.packets import Packet, Schemas, read_packet
from gueststar.store.alerts.log import TABLE_FOLDER, AlertLog
from gueststar.store.alerts.schemas import known_schemas
from gueststar.store.alerts.segments import AlertEntry, told_when_full

_NAME = re.compile(r"(\d{10})-(\d{10})\.parquet")


@dataclass(frozen=True)
class TableConfig:
    """How the table lies in files."""

    rows_a_file: int = 131_072
    """Files of half as many are merged no more; merging one takes about 1.5 kB of memory a row."""
    merged_at_once: int = 8
    """So many neighbouring files of one size become one."""
    rows_a_group: int = 32_768
    """Rows that a look at one place reads at least."""
    packets_at_once: int = 512
    """Packets that are decoded together."""


class TableFile(NamedTuple):
    """One file, and the serials that it tells of."""

    first: int
    last: int
    path: Path

    @property
    def n_serials(self) -> int:
        """How many serials that is."""
        return self.last - self.first + 1


class AlertTable:
    """The table of a log."""

    def __init__(self, log: AlertLog, config: TableConfig = TableConfig()) -> None:
        self.log, self.config = log, config
        self.folder = log.folder / TABLE_FOLDER

    def files(self) -> list[TableFile]:
        """Return the files that make up the table, in order of arrival."""
        return _disjoint(self._listed())[0]

    def missing(self) -> list[tuple[int, int]]:
        """Return the ranges of serials, both ends included, that the log has and the table lacks."""
        return _gaps(self.files(), self.log.last_serial())

    def n_missing(self) -> int:
        """Return how many serials the table lacks."""
        return sum(last - first + 1 for first, last in self.missing())

    def complete(self, *, at_least: int = 1, do_wait: bool = True) -> int:
        """Bring the table up to date with the log if ``at_least`` so many packets are missing; return their number.

        One process at a time does so; without ``do_wait`` nothing happens while another one does. Raises ServiceDown
        where nothing can be written.
        """
        if self.n_missing() < max(at_least, 1):
            return 0
        with told_when_full(self.folder), self._alone(do_wait) as is_mine:
            if not is_mine:
                return 0
            self._sweep()
            n = 0
            while gaps := self.missing():  # again where merging met a damaged file
                n += sum(len(table) for first, last in gaps for table in self._in_files(first, last))
                self._merge()
            return n

    def rows_between(self, first: int, last: int) -> Iterator[pa.Table]:
        """Yield the columns of packets by their serials, made from the segments."""
        schemas = known_schemas(self.log.folder)
        entries = self.log.between(first, last)
        for start in range(0, len(entries), self.config.packets_at_once):
            some = entries[start : start + self.config.packets_at_once]
            yield packet_columns([_archived(self.log, entry, schemas) for entry in some])

    def remove(self, files: list[TableFile]) -> None:
        """Forget files; their packets are missing from then on, until the table is completed."""
        with self._alone(True):
            for file in files:
                file.path.unlink(missing_ok=True)

    def damaged(self) -> list[TableFile]:
        """Return the files that cannot be read."""
        return [file for file in self.files() if not _is_readable(file.path)]

    # Files

    def _listed(self) -> list[TableFile]:
        found = []
        for path in self.folder.glob("*.parquet"):
            if (match := _NAME.fullmatch(path.name)) is not None:
                found.append(TableFile(int(match[1]), int(match[2]), path))
        return found

    def _sweep(self) -> None:
        """Remove what merged files replace, and what killed processes left; the lock is held."""
        for file in _disjoint(self._listed())[1]:
            file.path.unlink(missing_ok=True)
        for leftover in self.folder.glob(".*.parquet"):
            leftover.unlink(missing_ok=True)

    def _in_files(self, first: int, last: int) -> Iterator[pa.Table]:
        """Write the packets of a range into files; yield what each holds."""
        for start in range(first, last + 1, self.config.rows_a_file):
            end = min(start + self.config.rows_a_file - 1, last)
            if parts := list(self.rows_between(start, end)):
                table = joined(parts)
                self._write(start, end, table)
                yield table
            else:  # serials without packets: segments of theirs were lost
                self._write(start, end, packet_columns([]))

    def _write(self, first: int, last: int, table: pa.Table) -> TableFile:
        path = self.folder / f"{first:010d}-{last:010d}.parquet"
        by_place = table.sort_by([("healpix_29", "ascending"), ("serial", "ascending")])
        words = [field.name for field in table.schema if field.type == pa.string()]
        with appearing_whole(path) as temporary:
            pq.write_table(
                by_place, temporary, compression="lz4", row_group_size=self.config.rows_a_group, use_dictionary=words
            )
        return TableFile(first, last, path)

    def _merge(self) -> None:
        """Merge neighbouring files of one size, until there are fewer than ``merged_at_once`` of each; lock held."""
        while group := _mergeable(self.files(), self.config):
            try:
                table = joined([pq.read_table(file.path, use_threads=False) for file in group])
            except (pa.ArrowException, OSError):
                for file in group:
                    if not _is_readable(file.path):
                        file.path.unlink(missing_ok=True)
                return  # what is missing now is made again
            self._write(group[0].first, group[-1].last, table)
            for file in group:
                file.path.unlink(missing_ok=True)

    @contextmanager
    def _alone(self, do_wait: bool) -> Iterator[bool]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX if do_wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True


def _disjoint(files: list[TableFile]) -> tuple[list[TableFile], list[TableFile]]:
    """Return the files that tell each serial once, the larger ones first taken, and those that are left over."""
    kept: list[TableFile] = []
    replaced: list[TableFile] = []
    for file in sorted(files, key=lambda file: (file.first, -file.last)):
        (replaced if kept and file.first <= kept[-1].last else kept).append(file)
    return kept, replaced


def _gaps(files: list[TableFile], last_serial: int) -> list[tuple[int, int]]:
    gaps, after = [], 0
    for file in files:
        if file.first > after + 1:
            gaps.append((after + 1, file.first - 1))
        after = file.last
    return gaps if after >= last_serial else [*gaps, (after + 1, last_serial)]


def _mergeable(files: list[TableFile], config: TableConfig) -> list[TableFile]:
    """Return neighbours to be merged: enough files of one size, with smaller ones between; none where all is well."""
    sizes = {file: _size_of(file, config) for file in files if file.n_serials <= config.rows_a_file // 2}
    for size in sorted(set(sizes.values())):
        for run in _runs([file for file in files if sizes.get(file, size + 1) <= size]):
            n_of_size = sum(sizes[file] == size for file in run)
            if len(run) >= config.merged_at_once and n_of_size >= config.merged_at_once // 2:
                return _fitting(run, config.rows_a_file)
    return []


def _runs(files: list[TableFile]) -> list[list[TableFile]]:
    """Return files in groups that follow one another without a gap."""
    runs: list[list[TableFile]] = []
    for file in files:
        if runs and file.first == runs[-1][-1].last + 1:
            runs[-1].append(file)
        else:
            runs.append([file])
    return runs


def _fitting(run: list[TableFile], most: int) -> list[TableFile]:
    n, chosen = 0, []
    for file in run:
        n += file.n_serials
        if n > most:
            break
        chosen.append(file)
    return chosen


def _size_of(file: TableFile, config: TableConfig) -> int:
    size, n = 0, file.n_serials
    while n >= config.merged_at_once:
        size, n = size + 1, n // config.merged_at_once
    return size


def _is_readable(path: Path) -> bool:
    try:
        pq.ParquetFile(path).metadata  # noqa: B018
    except (pa.ArrowException, OSError):
        return False
    return True


def _archived(log: AlertLog, entry: AlertEntry, schemas: Schemas) -> ArchivedPacket:
    try:
        packet: Packet | None = read_packet(log.read(entry), schemas=schemas, leading=leading_schemas())
    except DataError:
        packet = None
    return ArchivedPacket(entry.serial, entry.candid, entry.object_name, entry.day_obs, entry.program, packet)
