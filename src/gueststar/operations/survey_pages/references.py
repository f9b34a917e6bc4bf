"""How deep the references are, and which fields still lack one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gueststar.store.ledger import Job, JobState
from gueststar.store.repo import SurveyRepo

if TYPE_CHECKING:
    from gueststar.operations.survey_pages.report import FieldCoverage


@dataclass(frozen=True)
class ReferenceState:
    """The references of a field and band, over its detectors."""

    field: int
    band: str
    n_detectors: int
    """Of the camera."""
    n_made: int
    """Detectors that have a reference."""
    n_epochs: int
    """Exposures in the shallowest of them; 0: there is none."""
    depth: float | None
    """What so many exposures of the field's typical depth reach; None: not known."""
    n_exposures: int
    """Exposures that the field has in this band."""
    lacks: str
    """Why detectors have none; empty where all have."""


def reference_states(repo: SurveyRepo, coverage: Iterable[FieldCoverage]) -> list[ReferenceState]:
    """Return the state of every field and band that was observed."""
    last: dict[tuple[int, str], dict[int, Job]] = {}
    made: dict[tuple[int, str], dict[int, int]] = {}
    for job in repo.ledger.jobs(kind="reference"):  # in the order of submission: the last version stays
        key = (int(job.key["field"]), str(job.key["band"]))
        detector = int(job.key["detector"])
        last.setdefault(key, {})[detector] = job
        if job.state is JobState.DONE:
            made.setdefault(key, {})[detector] = int(job.metrics.get("n_epochs") or len(job.key["epochs"]))
    n_detectors = len(repo.camera.detectors)
    return [
        _state(item, made.get((item.field, item.band), {}), last.get((item.field, item.band), {}), n_detectors)
        for item in coverage
    ]


def _state(item: FieldCoverage, made: dict[int, int], last: dict[int, Job], n_detectors: int) -> ReferenceState:
    n_epochs = min(made.values(), default=0)
    depth = item.depth + 1.25 * math.log10(n_epochs) if item.depth is not None and n_epochs else None
    lacks = ""
    if len(made) < n_detectors:
        reasons = sorted({job.reason for number, job in last.items() if number not in made and job.reason})
        lacks = reasons[0] if reasons else "none was asked for yet"
    return ReferenceState(item.field, item.band, n_detectors, len(made), n_epochs, depth, item.n, lacks)
