"""Log files of a repository: lines of JSON, a file for each process, that only the operator reads."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from pythonjsonlogger.json import JsonFormatter

from gueststar.formats.private import open_private

FOLDER = "logs"

OPERATOR_LOG = "operator"
"""Name of the operator's own file, without its ending."""

KEYS = ("night", "exposure", "detector", "attempt", "job", "worker")
"""What a line may say of the unit of work that it is about."""

MOST_BYTES, KEPT_FILES = 20_000_000, 5
"""A file of this size is set aside; so many of those are kept."""

_ours = "gueststar"
_unit: ContextVar[Mapping[str, Any]] = ContextVar("unit of work", default=MappingProxyType({}))


@contextmanager
def on_unit(**keys: Any) -> Iterator[None]:
    """Let all lines that are written in the body of a ``with`` statement say what they are about: of `KEYS`."""
    known = {key: value for key, value in keys.items() if value is not None}
    token = _unit.set({**_unit.get(), **known})
    try:
        yield
    finally:
        _unit.reset(token)


def write_log(root: Path, name: str = OPERATOR_LOG, *, level: int = logging.INFO) -> logging.Handler:
    """Let this process's lines go into REPO/logs/NAME.jsonl; return the handler. Asking twice is the same as once."""
    path = root / FOLDER / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name).strip('-')}.jsonl"
    logger = logging.getLogger(_ours)
    for handler in list(logger.handlers):
        if isinstance(handler, _PrivateFile) and Path(handler.baseFilename) == path.absolute():
            return handler
        if isinstance(handler, _PrivateFile) and Path(handler.baseFilename).name == path.name:
            end_log(handler)  # of another repository that this process has done with
    path.parent.mkdir(mode=0o700, exist_ok=True)
    made = _PrivateFile(path.absolute(), maxBytes=MOST_BYTES, backupCount=KEPT_FILES, delay=True)
    made.setFormatter(_JsonLines())
    made.addFilter(_add_unit)
    logger.addHandler(made)
    if logger.level == logging.NOTSET or logger.level > level:
        logger.setLevel(level)
    return made


def end_log(handler: logging.Handler) -> None:
    """Write no more lines there."""
    logging.getLogger(_ours).removeHandler(handler)
    handler.close()


def write_worker_log(root: Path) -> str | None:
    """Let this process's lines go into a file of its own, if it is a worker process of an engine; return its name."""
    if "distributed" not in sys.modules:
        return None
    from distributed import get_worker

    try:
        name = f"{socket.gethostname()}-{get_worker().name}"
    except ValueError:  # not on a worker
        return None
    write_log(root, f"worker-{name}")
    return name


def log_paths(root: Path) -> list[Path]:
    """Return the log files of a repository, those that were set aside first."""
    found = (root / FOLDER).glob("*.jsonl*") if (root / FOLDER).is_dir() else iter(())
    return sorted(found, key=lambda path: (path.name.partition(".jsonl")[0], -_age(path)))


def _age(path: Path) -> int:
    ending = path.name.rpartition(".")[2]
    return int(ending) if ending.isdigit() else 0


class _PrivateFile(RotatingFileHandler):
    """A file that others cannot read, and whose troubles (a full disk) never stop the work that it tells of."""

    def _open(self) -> IO[Any]:  # type: ignore[override]
        return open_private(Path(self.baseFilename), self.mode)

    def handleError(self, record: logging.LogRecord) -> None:
        """Leave the line out."""


class _JsonLines(JsonFormatter):
    """One line: time, level, who, message, what it is about, and the traceback if there is one."""

    def __init__(self) -> None:
        super().__init__("%(message)s", json_ensure_ascii=False)

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:  # fmt: skip
        """Put the fields in the order in which they are read."""
        super().add_fields(log_data, record, message_dict)
        rest = dict(log_data)
        log_data.clear()
        moment = datetime.fromtimestamp(record.created, UTC)
        log_data["time"] = f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
        log_data |= {"level": record.levelname.lower(), "message": rest.pop("message", record.getMessage())}
        log_data |= {key: rest.pop(key) for key in KEYS if rest.get(key) is not None}
        log_data |= {"logger": record.name.removeprefix(f"{_ours}."), "pid": os.getpid()}
        log_data |= {key: value for key, value in rest.items() if key not in KEYS}


def _add_unit(record: logging.LogRecord) -> bool:
    for key, value in _unit.get().items():
        if getattr(record, key, None) is None:
            setattr(record, key, value)
    return True
