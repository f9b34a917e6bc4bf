"""The disks in a night's account: what takes room, what is free, how fast it fills, and how many days are left."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gueststar.model.metrics import Grade
from gueststar.store.disk_sizes import disk_sizes
from gueststar.store.repo import SurveyRepo

N_NIGHTS = 14
"""Nights whose sizes tell the rate."""

FAIR_DAYS, POOR_DAYS = 30.0, 7.0
"""Fewer nights left than these are fair, and poor."""


@dataclass(frozen=True)
class Disk:
    """One disk. Bytes."""

    name: str
    path: str
    free: int
    size: int
    low: float
    """Free space below which it is low."""
    per_night: float
    """What a night adds, from the last nights; NaN where none is known."""
    trouble: str = ""

    @property
    def nights_left(self) -> float:
        """Nights until it is low; NaN where the rate is not known."""
        return max(self.free - self.low, 0.0) / self.per_night if self.per_night > 0 else math.nan

    @property
    def grade(self) -> Grade:
        """In four colours."""
        if self.trouble or self.free < self.low:
            return Grade.POOR
        if math.isnan(self.nights_left):
            return Grade.UNKNOWN
        return (
            Grade.POOR if self.nights_left < POOR_DAYS else Grade.FAIR if self.nights_left < FAIR_DAYS else Grade.GOOD
        )


@dataclass(frozen=True)
class DiskUse:
    """The disks, and what the repository holds."""

    disks: tuple[Disk, ...]
    by_kind: tuple[tuple[str, int], ...]
    """The largest first."""
    of_night: int
    """Bytes of products and alerts of this night."""


def disk_of(repo: SurveyRepo, night: int) -> DiskUse:
    """Return how the disks stand after a night."""
    sizes = disk_sizes(repo.root)
    last = [n for _, n in sorted(item for item in sizes.by_night.items() if item[0] <= night)[-N_NIGHTS:]]
    rate = float(np.median(last)) if last else math.nan
    marks = repo.settings.operation.disks
    disks = [_disk("repository", repo.root, marks.sandbox_low_gb, rate)]
    if marks.archive is not None:
        disks.append(_disk("archive", marks.archive, marks.archive_low_gb, rate))
    by_kind = tuple(sorted(((kind, n) for kind, n in sizes.by_kind.items() if n), key=lambda item: -item[1]))
    return DiskUse(tuple(disks), by_kind, sizes.by_night.get(night, 0))


def _disk(name: str, path: Path, low_gb: float, rate: float) -> Disk:
    try:
        usage = shutil.disk_usage(path)
    except OSError as problem:
        return Disk(name, str(path), 0, 0, low_gb * 1e9, rate, trouble=problem.strerror or str(problem))
    return Disk(name, str(path), usage.free, usage.total, low_gb * 1e9, rate)


def size_text(n: float) -> str:
    """Return a number of bytes in words."""
    if not math.isfinite(n):
        return "unknown"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(n) < 999.5 or unit == "TB":
            return f"{n:.3g} {unit}"
        n /= 1000.0
    return ""


def disk_lines(use: DiskUse | None) -> list[str]:
    """Return it as lines of text."""
    if use is None:
        return []
    lines = []
    for disk in use.disks:
        if disk.trouble:
            lines.append(f"{disk.name} disk {disk.path} is away: {disk.trouble}")
            continue
        left = (
            ""
            if math.isnan(disk.nights_left)
            else f", {disk.nights_left:.0f} nights left at {size_text(disk.per_night)} each"
        )
        lines.append(
            f"{disk.name} disk: {size_text(disk.free)} free of {size_text(disk.size)}{left} ({disk.grade.value})"
        )
    largest = ", ".join(f"{kind} {size_text(n)}" for kind, n in use.by_kind[:6])
    return [*lines, f"  this night {size_text(use.of_night)}; by kind: {largest}"]


def as_json(use: DiskUse | None) -> dict[str, Any] | None:
    """Return it as JSON-able values, bytes."""
    if use is None:
        return None
    disks = [{**vars(disk), "nights_left": disk.nights_left, "grade": disk.grade.value} for disk in use.disks]
    return {"disks": disks, "by_kind": dict(use.by_kind), "of_night": use.of_night}
