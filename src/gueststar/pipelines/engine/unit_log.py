"""What a worker's log lines say of the unit of work that they are about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gueststar.store.log_files import on_unit, write_worker_log


@contextmanager
def told_of_unit(arguments: tuple[Any, ...]) -> Iterator[None]:
    """Let the lines of a call name its exposure, night and detector; on a worker they go into the worker's own file.

    The first argument of a call is its work, which knows these as far as it is about them.
    """
    work = arguments[0] if arguments else None
    work = getattr(work, "science", work)  # a chain is about its science image
    root = getattr(work, "repo_root", None)
    worker = write_worker_log(root) if isinstance(root, Path) else None
    info = getattr(work, "info", None)
    exposure, night = getattr(info, "exposure_id", None), getattr(info, "day_obs", None)
    detector = getattr(work, "detector_id", None)
    with on_unit(exposure=exposure, night=night, detector=detector, worker=worker):
        yield
