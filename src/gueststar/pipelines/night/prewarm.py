"""What a worker does before the pixels of a pointing come: its files are on their way into memory by then."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from gueststar.pipelines.night.worker import WorkerContext


def prewarm(root: Path, files: Iterable[Path]) -> None:
    """Open the worker's door to a repository, and ask the system to read files ahead.

    Reading ahead goes on while this returns; where a file system cannot, nothing is lost but time.
    """
    WorkerContext.of(root)
    for path in files:
        with contextlib.suppress(OSError):
            _read_ahead(path)


def _read_ahead(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_WILLNEED)
    finally:
        os.close(handle)
