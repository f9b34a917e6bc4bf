"""The engine of a campaign: what is submitted becomes one workflow, and its outcomes come back when it has ended."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from gueststar.core.errors import GueststarError
from gueststar.pipelines.batch.run_units import read_outcomes, write_units
from gueststar.pipelines.batch.workflow import Batch, Parsl, WorkflowJob, last_words
from gueststar.pipelines.engine.contract import Call, run_through
from gueststar.pipelines.engine.outcome import Outcome
from gueststar.store.operator_state import WorkerState

MOST = 100_000
"""Units of one workflow."""


class BatchEngine(AbstractContextManager["BatchEngine"]):
    """Runs calls as jobs of workflows, in ``folder`` (which the machines of the site must see)."""

    def __init__(self, batch: Batch, folder: Path) -> None:
        self.batch, self.folder = batch, folder
        self._waiting: list[Call] = []
        self._came: list[Outcome] = []
        self._n_workflows = 0
        self._parsl = Parsl(batch)

    @property
    def n_free(self) -> int:
        """As many as one workflow may have."""
        return MOST - len(self._waiting)

    @property
    def in_hand(self) -> frozenset[int]:
        """The jobs that wait for a workflow, and those whose outcomes have not been collected."""
        return frozenset([call.job_id for call in self._waiting] + [outcome.job_id for outcome in self._came])

    def submit(self, call: Call) -> None:
        """Keep a call for the next workflow."""
        self._waiting.append(call)

    def collect(self, timeout_s: float = 0.0) -> list[Outcome]:
        """Run all that was submitted as one workflow, however long that takes, and return the outcomes.

        Raises ConfigError or ServiceDown where a unit met it; the other outcomes come with the next call.
        """
        if not self._came and self._waiting:
            self._run_workflow()
        came, self._came = self._came, []
        return came

    def warm(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Do nothing: no worker outlives its job."""

    def workers(self) -> tuple[WorkerState, ...]:
        """Return nothing: the batch system knows its workers."""
        return ()

    def run(self, calls: Iterable[Call]) -> Iterator[Outcome]:
        """Yield an Outcome for every call."""
        return run_through(self, calls)

    def close(self) -> None:
        """Forget what waits, and end Parsl."""
        self._waiting.clear()
        self._parsl.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run_workflow(self) -> None:
        calls, self._waiting = self._waiting, []
        self._n_workflows += 1
        name = f"{os.getpid()}-{self._n_workflows:04d}"
        folder = self.folder / name
        folder.mkdir(parents=True)
        jobs, parts = [], []
        for first in range(0, len(calls), self.batch.n_units):
            part = calls[first : first + self.batch.n_units]
            job = WorkflowJob(f"units{first:06d}", folder / f"{first:06d}.units", folder / f"{first:06d}.outcomes")
            write_units(job.units, part)
            jobs.append(job)
            parts.append(part)
        self._parsl.run(folder, name, jobs)
        problems = [
            problem for job, part in zip(jobs, parts, strict=True) for problem in self._gather(folder, job, part)
        ]
        if not problems:
            shutil.rmtree(folder, ignore_errors=True)
            return
        raise problems[0]

    def _gather(self, folder: Path, job: WorkflowJob, part: list[Call]) -> list[BaseException]:
        """Take a job's outcomes; a unit without one was ended with its job. Return what concerns the whole run."""
        problems: list[BaseException] = []
        found = list(read_outcomes(job.outcomes))
        for item in found:
            if isinstance(item, Outcome):
                self._came.append(item)
            elif isinstance(item, GueststarError):
                problems.append(item)
        for index, call in enumerate(part[len(found) :]):
            reason = f"the batch job ended before this unit did: {last_words(folder, job)}"
            if index > 0:
                reason = "the batch job ended before this unit began"
            self._came.append(Outcome(call.job_id, "failed", reason=reason, error_kind="TransientError"))
        for call, item in zip(part, found, strict=False):
            if not isinstance(item, Outcome | GueststarError):
                reason = f"{type(item).__name__}: {item}"
                self._came.append(Outcome(call.job_id, "failed", reason=reason, error_kind="Bug"))
        return problems
