"""A few hours of samples in a file of the repository, so that trends can be told by a process that just began."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from gueststar.formats.atomic import appearing_whole
from gueststar.operations.watch.facts import Sample

NAME = "operator/history.json"

KEPT_S, APART_S = 6 * 3600.0, 50.0


def read_history(root: Path) -> tuple[Sample, ...]:
    """Return the samples, oldest first; none where nobody watched, or where the file is damaged."""
    try:
        rows = json.loads((root / NAME).read_text())
        return tuple(
            Sample(**{**row, "worker_pids": tuple((str(name), int(pid)) for name, pid in row["worker_pids"])})
            for row in rows
        )
    except (OSError, ValueError, TypeError, KeyError):
        return ()


def with_sample(history: tuple[Sample, ...], sample: Sample) -> tuple[Sample, ...]:
    """Return samples with a new one: those too old, and those of a time that is still to come, are left out."""
    kept = tuple(one for one in history if sample.time - KEPT_S < one.time <= sample.time)
    if kept and sample.time - kept[-1].time < APART_S:
        return kept
    return (*kept, sample)


def write_history(root: Path, history: tuple[Sample, ...]) -> None:
    """Replace the file."""
    path = root / NAME
    path.parent.mkdir(exist_ok=True)
    with appearing_whole(path) as temporary:
        temporary.write_text(json.dumps([asdict(one) for one in history]))
