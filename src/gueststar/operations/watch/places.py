"""Where alarms and messages lie until they are told: in the repository, or beside it where that cannot be written."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gueststar.core.errors import TransientError


def folders(root: Path) -> tuple[Path, Path]:
    """Return the operator's folder in a repository, and the one that takes its place while that is full or away."""
    mark = hashlib.sha256(str(root.absolute()).encode()).hexdigest()[:12]
    return root / "operator", Path(tempfile.gettempdir()) / f"gueststar-{os.getuid()}-{mark}"


def writable_folders(root: Path) -> Iterator[Path]:
    """Yield the folders that are there to be written to, in the order of preference; they are made if need be.

    TransientError where the system's temporary folder holds something else under that name.
    """
    own, spare = folders(root)
    if root.is_dir():
        try:
            own.mkdir(exist_ok=True)
        except OSError:
            pass
        else:
            yield own
    spare.mkdir(mode=0o700, exist_ok=True)
    found = spare.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        raise TransientError(f"{spare} belongs to somebody else: nothing is written there")
    yield spare
