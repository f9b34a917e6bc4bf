"""When each file was first there, whole: remembered on disk, whatever becomes of the database.

One line of JSON a file, appended and synced; what is taken in gets a second line. Files that were taken in and stay in
their landing place are known again after a restart without being read.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gueststar.formats.atomic import appearing_whole
from gueststar.operations.landing.completeness import Stamp

NAME = "operator/landing.jsonl"


@dataclass(frozen=True)
class ArrivedFile:
    """A file that is there, whole."""

    path: Path
    stamp: Stamp
    received: float
    """When it was found to be whole, Unix time of the operator's clock."""


class ReceiptJournal:
    """The journal of one repository; several threads may use it."""

    def __init__(self, root: Path) -> None:
        self.path = root / NAME
        self._whole: dict[Path, ArrivedFile] = {}
        self._taken: set[Path] = set()
        self._lock = threading.Lock()
        for line in self._lines():
            self._read(line)
        self._write_anew()

    def received(self, path: Path, stamp: Stamp) -> float | None:
        """Return when a file was there before; None: it is new."""
        known = self._whole.get(path)
        return known.received if known is not None and known.stamp == stamp else None

    def is_taken(self, path: Path, stamp: Stamp) -> bool:
        """Return whether a file was taken in."""
        return path in self._taken and self.received(path, stamp) is not None

    def add(self, files: Iterable[ArrivedFile]) -> None:
        """Remember files that are whole; they are on disk when this returns."""
        with self._lock:
            new = [file for file in files if self.received(file.path, file.stamp) is None]
            for file in new:
                self._whole[file.path] = file
                self._taken.discard(file.path)
            self._append([_line_of(file, is_taken=False) for file in new])

    def taken(self, file: ArrivedFile, *, is_removed: bool = False) -> None:
        """Remember that a file was taken in; one that is ``is_removed`` need not be remembered."""
        with self._lock:
            self._whole[file.path] = file
            self._taken.add(file.path)
            self._append([_line_of(file, is_taken=True)], is_synced=False)
            if is_removed:
                self._forget(file.path)

    def _forget(self, path: Path) -> None:
        self._whole.pop(path, None)
        self._taken.discard(path)

    def _lines(self) -> list[str]:
        try:
            return self.path.read_text().splitlines()
        except FileNotFoundError:
            return []

    def _read(self, line: str) -> None:
        try:
            row = json.loads(line)
            file = ArrivedFile(Path(row["path"]), Stamp(row["size"], row["mtime_ns"]), row["received"])
        except (ValueError, KeyError, TypeError):  # the last line of a process that was killed
            return
        self._whole[file.path] = file
        if row.get("taken"):
            self._taken.add(file.path)
        else:
            self._taken.discard(file.path)

    def _write_anew(self) -> None:
        """Leave out files that are gone: those of a season would be many. One in a place that is away is kept."""
        for path in [path for path in self._whole if path.parent.is_dir() and not path.exists()]:
            self._forget(path)
        with appearing_whole(self.path) as temporary, temporary.open("w") as file:
            for known in self._whole.values():
                file.write(_line_of(known, is_taken=known.path in self._taken))
            file.flush()
            os.fsync(file.fileno())

    def _append(self, lines: list[str], *, is_synced: bool = True) -> None:
        if not lines:
            return
        with self.path.open("a") as file:
            file.writelines(lines)
            file.flush()
            if is_synced:
                os.fsync(file.fileno())


def _line_of(file: ArrivedFile, *, is_taken: bool) -> str:
    row = {
        "path": str(file.path), "size": file.stamp.size, "mtime_ns": file.stamp.mtime_ns, "received": file.received,
        "taken": is_taken,
    }  # fmt: skip
    return json.dumps(row) + "\n"
