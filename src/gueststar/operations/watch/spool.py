"""Alarms while the database is down: lines of a file in the repository, brought into the ledger when it is back."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from gueststar.core.errors import TransientError
from gueststar.formats.private import open_private
from gueststar.operations.watch.places import folders, writable_folders
from gueststar.store.alarms import Alarms, Severity

NAME = "alarms.jsonl"


@dataclass(frozen=True)
class SpooledAlarm:
    """One line: an alarm was seen, or is over."""

    verb: Literal["see", "settle"]
    kind: str
    subject: str
    time: float
    """Unix."""
    severity: Severity = "warning"
    text: str = ""
    is_sent: bool = False
    """People were told of it already."""


def spool(root: Path, line: SpooledAlarm) -> bool:
    """Write a line down, on disk when this returns; False where the last line of its kind and subject says the same.

    Where the repository itself is full or away it is written beside it.
    """
    with _alone(root):
        last = next((one for one in reversed(spooled(root)) if _same(one, line)), None)
        if last is not None and (last.verb, last.severity) == (line.verb, line.severity):
            return False
        trouble: OSError | None = None
        for folder in writable_folders(root):
            try:
                _append(folder / NAME, line)
                return True
            except OSError as problem:
                trouble = problem
        raise TransientError(f"alarm {line.kind} {line.subject} cannot be written down: {trouble}")


def spooled(root: Path) -> list[SpooledAlarm]:
    """Return the lines, oldest first; none where the database was never down."""
    return sorted((line for folder in folders(root) for line in _read(folder / NAME)), key=lambda line: line.time)


def open_spooled(root: Path) -> list[SpooledAlarm]:
    """Return the alarms that were seen and not settled since the database went."""
    current = {(line.kind, line.subject): line for line in spooled(root)}
    return [line for line in current.values() if line.verb == "see"]


def merge_spool(root: Path, alarms: Alarms) -> int:
    """Bring the lines into the ledger and remove them; return how many there were.

    A process that is killed in between does it again: an alarm is then counted twice, never lost.
    """
    if not any((folder / NAME).exists() for folder in folders(root)):
        return 0
    with _alone(root):
        lines = spooled(root)
        for line in lines:
            if line.verb == "settle":
                alarms.settle(line.kind, line.subject, now=line.time)
                continue
            alarm = alarms.see(line.kind, line.subject, line.severity, line.text, now=line.time)
            if line.is_sent:
                alarms.mark_sent([alarm.id], now=line.time)
        for folder in folders(root):
            (folder / NAME).unlink(missing_ok=True)
    return len(lines)


def _same(one: SpooledAlarm, other: SpooledAlarm) -> bool:
    return (one.kind, one.subject) == (other.kind, other.subject)


def _read(path: Path) -> list[SpooledAlarm]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            found.append(SpooledAlarm(**json.loads(line)))
        except (ValueError, TypeError):  # the last line of a process that was killed, or of a full disk
            continue
    return found


def _append(path: Path, line: SpooledAlarm) -> None:
    with open_private(path, "a") as file:
        file.write(json.dumps(asdict(line)) + "\n")
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    for folder in writable_folders(root):
        try:
            lock = open_private(folder / "alarms.lock", "a")
        except OSError:
            continue
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        return
    yield  # nowhere can anything be written: what follows says so
