"""How much room there is on a disk."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from gueststar.core.errors import TransientError

GB = 1e9
"""Bytes of a gigabyte, as disks are sold."""


class DiskSpace(NamedTuple):
    """Room on the disk below a folder, bytes."""

    total: int
    free: int
    """As this user may use it."""

    @property
    def free_gb(self) -> float:
        """Free room in gigabytes."""
        return self.free / GB


def space_of(folder: Path) -> DiskSpace:
    """Return the room on the disk of a folder, or of the nearest one above it; TransientError if it does not answer."""
    there = next((path for path in (folder, *folder.parents) if path.is_dir()), folder)
    try:
        usage = shutil.disk_usage(there)
    except OSError as problem:
        raise TransientError(f"the disk of {folder} does not answer: {problem.strerror or problem}") from problem
    return DiskSpace(usage.total, usage.free)
