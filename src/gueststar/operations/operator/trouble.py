"""What the world does to an operator: databases, disks and servers that go away, and come back."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from uuid import uuid4

from gueststar.core.errors import ServiceDown, TransientError
from gueststar.store.repo import SurveyRepo

AWAY = frozenset({
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ESTALE, errno.ENOTCONN, errno.EIO, errno.ENODEV, errno.ETIMEDOUT,
    errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENXIO,
})  # fmt: skip
"""Errors of the system that tell of a volume, not of a file."""

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0


def is_the_worlds(problem: BaseException, root: Path) -> bool:
    """Return whether a failure is one that goes away by itself, so that the whole operator waits."""
    if isinstance(problem, ServiceDown):
        return True
    if not isinstance(problem, OSError):
        return False
    return problem.errno in AWAY or (isinstance(problem, FileNotFoundError) and not (root / "survey.yaml").exists())


def trouble_with(repo: SurveyRepo, *, reserve_gb: float) -> str:
    """Return why work cannot go on in a repository now; empty where it can."""
    return trouble_with_volume(repo.root, reserve_gb=reserve_gb) or trouble_with_database(repo)


def trouble_with_volume(root: Path, *, reserve_gb: float) -> str:
    """Return what is wrong with the disk below a repository; empty where a file can be written with room to spare."""
    try:
        if not (root / "survey.yaml").exists():
            return f"{root} is gone: is its disk mounted?"
        free_gb = shutil.disk_usage(root).free / 1e9
        if free_gb < reserve_gb:
            return f"only {free_gb:.1f} GB are free below {root} ({reserve_gb:g} GB are kept in reserve)"
        probe = root / "staging" / f".probe-{uuid4().hex[:8]}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as problem:
        return f"{root} cannot be written: {problem.strerror or problem}"
    return ""


def trouble_with_database(repo: SurveyRepo) -> str:
    """Return what is wrong with the database; empty where it can be written."""
    try:
        with SurveyRepo.open(repo.root) as fresh:
            fresh.ledger.event("recovered", text="the operator can work again")
    except (TransientError, OSError) as problem:
        return str(problem)
    return ""
