"""Segments of the alert log: tar files of packets, which tell all that the index says of them.

A member is a packet, ``<candid>.avro``. Its extended header (POSIX 2001) tells the object, the packet's place in the
order of arrival, and a checksum; night and program are the folders that the file lies in.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gueststar.core.errors import ServiceDown
from gueststar.formats.atomic import appearing_whole
from gueststar.model.detections import OutboxAlert

OBJECT, SERIAL, DIGEST = "GUESTSTAR.object", "GUESTSTAR.serial", "GUESTSTAR.blake2b"
"""What a segment tells of each packet: its object, its place in the order of arrival, its checksum."""

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


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


def segment_name(alerts: Sequence[OutboxAlert]) -> str:
    """Return the path of a segment within the log: the same alerts of one night and program get the same."""
    first = alerts[0]
    digest = hashlib.blake2b(" ".join(str(alert.candid) for alert in alerts).encode(), digest_size=8).hexdigest()
    return f"{first.day_obs}/{first.program}/{first.candid}_{digest}.tar"


def write_segment(path: Path, log_folder: Path, alerts: Sequence[OutboxAlert], first_serial: int) -> list[AlertEntry]:
    """Write packets as one tar file of a log, whole and safe on disk when this returns; return what it holds."""
    with appearing_whole(path) as temporary, temporary.open("wb") as file:
        offsets = _write_tar(file, alerts, first_serial)
        file.flush()
        os.fsync(file.fileno())
    name = str(path.relative_to(log_folder))
    return [
        AlertEntry(
            serial, alert.candid, alert.object_name, alert.day_obs, alert.program, name, offset, len(alert.payload)
        )
        for serial, (alert, offset) in enumerate(zip(alerts, offsets, strict=True), start=first_serial)
    ]


@dataclass(frozen=True)
class SegmentRow:
    """One packet of a segment, as the tar file tells it."""

    entry: AlertEntry
    """Its serial is 0 where the file tells none (segments of old logs)."""
    digest: str | None
    """Checksum of the packet; None where the file tells none."""

    def values(self, *, serial: int | None = None) -> dict[str, Any]:
        """Return the row of the index."""
        return {**vars(self.entry), "serial": self.entry.serial if serial is None else serial}


@dataclass(frozen=True)
class Segment:
    """What a segment holds, as far as it can be read."""

    rows: tuple[SegmentRow, ...]
    damage: str | None = None
    """Why it ends before its end; None for a whole one."""


def read_segment(path: Path, log_folder: Path) -> Segment:
    """Return what a segment of a log holds; a damaged one is told up to the damage."""
    rows: list[SegmentRow] = []
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                told = member.pax_headers
                entry = AlertEntry(
                    int(told.get(SERIAL, 0)), int(Path(member.name).stem), told[OBJECT], int(path.parent.parent.name),
                    int(path.parent.name), str(path.relative_to(log_folder)), member.offset_data, member.size,
                )  # fmt: skip
                rows.append(SegmentRow(entry, told.get(DIGEST)))
    except (tarfile.TarError, OSError, EOFError, KeyError, ValueError) as problem:
        return Segment(tuple(rows), f"{type(problem).__name__}: {problem}")
    return Segment(tuple(rows), None if _has_end(path) else "its end is missing")


def digest_of(payload: bytes) -> str:
    """Return the checksum of a packet that its segment keeps."""
    return hashlib.blake2b(payload, digest_size=16).hexdigest()


@contextmanager
def told_when_full(folder: Path) -> Iterator[None]:
    """Turn a disk that takes no more (full, quota, read-only, broken) into ServiceDown."""
    try:
        yield
    except OSError as problem:
        if problem.errno not in _NO_ROOM:
            raise
        line = f"{folder}: nothing can be written: {os.strerror(problem.errno or 0)}"
        raise ServiceDown(f"{line}; make room, nothing was lost, the same again goes on") from problem


_TAR_END = 1024
"""Zero bytes that a whole tar file ends with."""


def _has_end(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) < _TAR_END:
            return False
        file.seek(-_TAR_END, os.SEEK_END)
        return not any(file.read())


def in_order_of_arrival(found: list[SegmentRow]) -> list[dict[str, Any]]:
    """Return rows of the index: each candid once, with the serials that the files tell, else behind all others."""
    found = sorted(found, key=lambda row: (row.entry.serial, row.entry.segment, row.entry.offset))
    last = max((row.entry.serial for row in found), default=0)
    told = {row.entry.serial for row in found}
    unused = (serial for serial in range(1, last + len(found) + 1) if serial not in told)
    rows, candids, serials = list[dict[str, Any]](), set[int](), set[int]()
    behind: list[SegmentRow] = []
    for row in found:
        if row.entry.candid in candids:
            continue
        candids.add(row.entry.candid)
        if row.entry.serial in serials:
            behind.append(row)
            continue
        serial = row.entry.serial or next(unused)
        serials.add(serial)
        rows.append(row.values(serial=serial))
    last = max(serials, default=0)
    return rows + [row.values(serial=last + k) for k, row in enumerate(behind, start=1)]


def _write_tar(file: io.BufferedWriter, alerts: Sequence[OutboxAlert], first_serial: int) -> list[int]:
    """Write the tar file; return where each packet begins in it."""
    offsets = []
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for serial, alert in enumerate(alerts, start=first_serial):
            member = tarfile.TarInfo(f"{alert.candid}.avro")
            member.size = len(alert.payload)
            member.pax_headers = {
                OBJECT: alert.object_name, SERIAL: str(serial), DIGEST: digest_of(alert.payload),
            }  # fmt: skip
            archive.addfile(member, io.BytesIO(alert.payload))
            n_blocks = -(-member.size // tarfile.BLOCKSIZE)
            offsets.append(archive.offset - n_blocks * tarfile.BLOCKSIZE)
    return offsets
