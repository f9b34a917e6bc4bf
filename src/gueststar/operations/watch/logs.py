"""Structured logs: written by the operator and its workers, read and filtered here.

Lines are JSON with what they are about (night, exposure, detector, attempt, job, worker). They are the operator's: the
files are readable by nobody else.
"""

from __future__ import annotations

import heapq
import json
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gueststar.store.log_files import FOLDER, KEYS, OPERATOR_LOG, log_paths, write_log

_TAIL_BYTES = 16_384

LEVELS = ("debug", "info", "warning", "error", "critical")


@dataclass(frozen=True)
class LogFilter:
    """Which lines are wanted; what is None does not matter."""

    exposure: int | None = None
    night: int | None = None
    detector: int | None = None
    job: int | None = None
    level: str = "debug"
    """The least that is wanted."""
    since: float | None = None
    """Unix time."""
    text: str = ""
    """In the message, whatever the case of its letters."""
    jobs: frozenset[int] = field(default_factory=frozenset)
    """Lines on these jobs are wanted too where they do not name the exposure or night themselves."""

    def wants(self, line: dict[str, Any]) -> bool:
        """Return whether a line is wanted."""
        named = {"exposure": self.exposure, "night": self.night, "detector": self.detector, "job": self.job}
        is_about = all(value is None or line.get(key) == value for key, value in named.items())
        return (
            (is_about or line.get("job") in self.jobs)
            and _rank(line.get("level")) >= _rank(self.level)
            and (self.since is None or _time_of(line) >= self.since)
            and self.text.lower() in str(line.get("message", "")).lower()
        )


def start_logging(root: Path, *, is_shown: bool = True, level: str = "info") -> None:
    """Let this process write REPO/logs/operator.jsonl and, if ``is_shown``, for a person to standard error."""
    number = logging.getLevelNamesMapping()[level.upper()]
    write_log(root, OPERATOR_LOG, level=number)
    logger = logging.getLogger("gueststar")
    if is_shown and not any(isinstance(handler, _Terminal) for handler in logger.handlers):
        shown = _Terminal()
        shown.setFormatter(HumanLines())
        logger.addHandler(shown)


def read_log(root: Path, wanted: LogFilter = LogFilter(), *, last: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield the wanted lines of all processes in the order of their time; the ``last`` ones only, if told."""
    names: dict[str, list[Path]] = {}
    for path in log_paths(root):
        names.setdefault(path.name.partition(".jsonl")[0], []).append(path)
    merged = heapq.merge(*(_lines_of(paths) for paths in names.values()), key=lambda line: str(line.get("time", "")))
    found = (line for line in merged if wanted.wants(line))
    yield from found if last is None else deque(found, maxlen=last)


def last_lines(root: Path, n: int) -> list[dict[str, Any]]:
    """Return the last lines of all processes, newest first: only the ends of their files are read."""
    found: list[dict[str, Any]] = []
    for path in (root / FOLDER).glob("*.jsonl"):
        try:
            with path.open("rb") as file:
                start = max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES)
                file.seek(start)
                lines = file.read().splitlines()
        except OSError:  # set aside this moment
            continue
        found += list(_parsed(lines[1:] if start else lines))[-n:]
    return sorted(found, key=lambda line: str(line.get("time", "")), reverse=True)[:n]


def follow_log(root: Path, wanted: LogFilter, *, wait: Callable[[], None]) -> Iterator[dict[str, Any]]:
    """Yield wanted lines as they are written, until ``wait`` raises; also those of files that are new."""
    places = {path.stat().st_ino: path.stat().st_size for path in log_paths(root)}
    while True:
        for path in log_paths(root):
            with path.open("rb") as file:
                number = os.fstat(file.fileno()).st_ino  # a file that is set aside keeps its number
                start = places.get(number, 0)
                file.seek(start)
                written = file.read()
            whole = written[: written.rfind(b"\n") + 1]
            places[number] = start + len(whole)
            yield from (line for line in _parsed(whole.splitlines()) if wanted.wants(line))
        wait()


def human_line(line: dict[str, Any]) -> str:
    """Return a line as a person reads it."""
    about = " ".join(f"{key} {line[key]}" for key in KEYS if line.get(key) not in (None, ""))
    moment = str(line.get("time", ""))[:19].replace("T", " ")
    text = f"{moment} {str(line.get('level', '')).upper():<8} {about + ': ' if about else ''}{line.get('message', '')}"
    trace = line.get("exc_info") or ""
    return f"{text}\n{trace}" if trace else text


class HumanLines(logging.Formatter):
    """Lines for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as a line, the traceback below it."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat()
        line: dict[str, Any] = {key: getattr(record, key, None) for key in KEYS}
        line |= {"time": moment, "level": record.levelname, "message": record.getMessage()}
        if record.exc_info:
            line["exc_info"] = self.formatException(record.exc_info)
        return human_line(line)


class _Terminal(logging.Handler):
    """Lines on what standard error is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; a terminal that is gone stops nothing."""
        with suppress(OSError, ValueError):
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()


def _lines_of(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        try:
            with path.open() as file:
                yield from _parsed(file)
        except FileNotFoundError:  # set aside this moment
            continue


def _parsed(lines: Iterable[str | bytes]) -> Iterator[dict[str, Any]]:
    for text in lines:
        try:
            line = json.loads(text)
        except ValueError:  # cut off: a process was killed, or a disk was full
            continue
        if isinstance(line, dict):
            yield line


def _rank(level: object) -> int:
    return LEVELS.index(str(level)) if level in LEVELS else LEVELS.index("info")


def _time_of(line: dict[str, Any]) -> float:
    try:
        return datetime.fromisoformat(str(line.get("time"))).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0
