"""What calibration products a night made, refused, or found no cause for."""

from __future__ import annotations

from dataclasses import dataclass

from gueststar.model.calibration import KINDS
from gueststar.store.ledger import Job, JobState


@dataclass(frozen=True)
class MadeProducts:
    """One kind (and filter) of a night, all detectors together."""

    kind: str
    physical_filter: str | None
    n_made: int
    """Detectors with a new product."""
    n_without: int
    """Detectors whose frames did not show the effect, or did not allow to measure it: no failure."""
    n_refused: int
    """Detectors whose product was not to be believed, or differed too much from the last."""
    n_held: int
    """Detectors that wait for frames."""
    note: str
    """Why the first one was refused, held or left out; empty where all were made."""

    def line(self) -> str:
        """Return one line of text."""
        what = f"{self.kind} in {self.physical_filter}" if self.physical_filter else self.kind
        counts = {"made": self.n_made, "refused": self.n_refused, "held": self.n_held, "nothing made": self.n_without}
        told = ", ".join(f"{name} {n}" for name, n in counts.items() if n)
        return f"{what}: {told}" + (f" ({self.note})" if self.note else "")


def made_products(jobs: list[Job]) -> list[MadeProducts]:
    """Return what became of a night's calibration products, in the order in which kinds are made."""
    groups: dict[tuple[str, str | None], list[Job]] = {}
    for job in jobs:
        if job.kind in ("calibration", "learning"):
            groups.setdefault((job.key["kind"], job.key.get("filter")), []).append(job)
    order = list(KINDS)
    keys = sorted(groups, key=lambda key: (order.index(key[0]) if key[0] in order else len(order), key[1] or ""))
    return [_made(kind, glass, _latest(groups[kind, glass])) for kind, glass in keys]


def _latest(jobs: list[Job]) -> list[Job]:
    """Return each detector's last job: more frames of the night mean a new one."""
    return list({job.key["detector"]: job for job in sorted(jobs, key=lambda job: job.id)}.values())


def _made(kind: str, glass: str | None, jobs: list[Job]) -> MadeProducts:
    without = [job for job in jobs if job.state is JobState.DONE and "nothing_made" in job.metrics]
    refused = [job for job in jobs if job.state in (JobState.FAILED, JobState.QUARANTINED)]
    held = [job for job in jobs if job.state is JobState.HELD]
    n_made = sum(job.state is JobState.DONE for job in jobs) - len(without)
    reasons = [*(job.reason for job in refused + held), *(job.metrics["nothing_made"] for job in without)]
    return MadeProducts(kind, glass, n_made, len(without), len(refused), len(held), str(reasons[0]) if reasons else "")
