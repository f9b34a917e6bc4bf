"""Room on the disks, asked in a way that a dead network file system cannot hold up."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from gueststar.store.archive.volume import why_not_mounted
from gueststar.store.operation_settings import OperationSettings

PATIENCE_S = 3.0
"""A disk that has not answered by then is away; the thread that asked it is left behind."""

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class DiskFacts:
    """One disk. Gigabytes are 1e9 bytes."""

    name: str
    """sandbox, archive, or a landing place."""
    path: Path
    free_gb: float | None
    """None: it does not answer."""
    total_gb: float | None = None
    low_gb: float = 0.0
    """Free space below which it is too full."""
    trouble: str = ""
    """Why it cannot be used: gone, read-only, does not answer."""


def disks_of(root: Path, operation: OperationSettings) -> tuple[DiskFacts, ...]:
    """Return the repository's disk and, where there is one, the archive's."""
    marks = operation.disks
    named = [("sandbox", root, marks.sandbox_low_gb)]
    if marks.archive is not None:
        named.append(("archive", marks.archive, marks.archive_low_gb))
    found = [disk_facts(name, path, low) for name, path, low in named]
    return tuple(
        _as_archive(root, facts) if facts.name == "archive" and not facts.trouble else facts for facts in found
    )


def disk_facts(name: str, path: Path, low_gb: float) -> DiskFacts:
    """Return what is known of the disk that holds a folder."""
    asked = _asked(lambda: _usage(path))
    if asked is None:
        return DiskFacts(name, path, None, None, low_gb, f"does not answer within {PATIENCE_S:.0f} s")
    if isinstance(asked, str):
        return DiskFacts(name, path, None, None, low_gb, asked)
    free, total, is_writable = asked
    return DiskFacts(name, path, free / 1e9, total / 1e9, low_gb, "" if is_writable else "is read-only")


def _as_archive(root: Path, facts: DiskFacts) -> DiskFacts:
    """Return an archive's disk as away where an empty mount point stands for it."""
    trouble = _asked(lambda: why_not_mounted(root, facts.path))
    return facts if trouble == "" else replace(facts, free_gb=None, total_gb=None, trouble=trouble or "does not answer")


def trouble_with(path: Path) -> str:
    """Return why the files of a folder cannot be listed; empty if they can."""
    asked = _asked(lambda: _listed(path))
    return f"does not answer within {PATIENCE_S:.0f} s" if asked is None else asked


def _usage(path: Path) -> tuple[int, int, bool] | str:
    try:
        usage = shutil.disk_usage(path)
        is_writable = not os.statvfs(path).f_flag & os.ST_RDONLY and os.access(path, os.W_OK)
    except OSError as problem:
        return str(problem.strerror or problem)
    return usage.free, usage.total, is_writable


def _listed(path: Path) -> str:
    try:
        with os.scandir(path) as entries:
            next(entries, None)
    except OSError as problem:
        return str(problem.strerror or problem)
    return ""


class _Question(Generic[_Answer]):
    def __init__(self, question: Callable[[], _Answer]) -> None:
        self.answer: _Answer | None = None
        self._question = question

    def ask(self) -> None:
        self.answer = self._question()


def _asked(question: Callable[[], _Answer]) -> _Answer | None:
    """Return an answer, or None where it takes too long."""
    asked = _Question(question)
    thread = threading.Thread(target=asked.ask, daemon=True, name="disk")
    thread.start()
    thread.join(PATIENCE_S)
    return asked.answer
