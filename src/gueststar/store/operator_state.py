"""What the operator is doing now: one small file that the operator writes and everybody who watches reads.

It is a picture of the moment, not a record (that is the ledger), and can be read while the database is down.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from gueststar.formats.atomic import appearing_whole

NAME = "operator/state.json"

_BLOCK = 8192
"""The picture's size is a multiple of this: another one, a little longer, has room in the same blocks."""


class WorkerState(BaseModel):
    """One worker process."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    pid: int | None = None
    job: int | None = None
    """What it works on; None: it waits."""
    what: str = ""
    """In words: difference of exposure 20260101000012 detector 3."""
    since: float | None = None
    """Unix time."""
    memory_mb: float | None = None


class OperatorState(BaseModel):
    """A picture of the operator."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    pid: int
    host: str
    version: str
    started: float
    """Unix time."""
    beat: float
    """Unix time of this picture; older than a minute: the operator is gone or stuck."""
    clock: float
    """What time it is for the operator, Unix (a rehearsal has its own)."""
    night: int
    mode: Literal["running", "paused", "waiting", "stopping", "dry"]
    """waiting: for the database, a disk...; ``why`` says."""
    why: str = ""
    queued: dict[str, int] = {}
    """Priority (tonight, backlog, daytime, reprocessing) -> units waiting."""
    running: int = 0
    landing: dict[str, int] = {}
    """Landing place -> files there that are not taken in yet."""
    workers: tuple[WorkerState, ...] = ()
    last_exposure: int | None = None
    """The last one received."""
    last_alert: float | None = None
    """When the last alerts left, Unix time."""
    recent: tuple[str, ...] = ()
    """The last lines of what it did, newest first."""


def write_operator_state(root: Path, state: OperatorState) -> None:
    """Replace the picture; on a full disk it is written over the one before, whose blocks it has."""
    path = root / NAME
    text = state.model_dump_json()
    padded = text.ljust(-(-len(text) // _BLOCK) * _BLOCK)
    try:
        path.parent.mkdir(exist_ok=True)
        with appearing_whole(path) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_text(padded)
    except OSError as problem:
        if problem.errno not in (errno.ENOSPC, errno.EDQUOT) or not path.exists():
            raise
        with path.open("r+") as file:
            file.write(padded)


def read_operator_state(root: Path) -> OperatorState | None:
    """Return the last picture; None if no operator ever ran here, or it is being written over on a full disk."""
    try:
        return OperatorState.model_validate_json((root / NAME).read_text())
    except (FileNotFoundError, ValidationError):
        return None
