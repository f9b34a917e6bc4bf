"""Runs nights: plan, hand to the engine, commit what comes back, write every fate into the ledger.

One process is the writer. It may be killed at any moment: what was committed is found again, what was
running is run again, and committing the same content twice is the same as once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gueststar.core.errors import ConfigError, DataError, ServiceDown, TransientError
from gueststar.model.calibration import CalibrationKind
from gueststar.pipelines.engine.contract import Call, Engine
from gueststar.pipelines.night.association import AssociateVisit
from gueststar.pipelines.night.calibrations.frames import MAKERS, CalibrationWork, run_calibration
from gueststar.pipelines.night.calibrations.learning import LEARNERS, LearningWork, run_learning
from gueststar.pipelines.night.difference import DifferenceWork, run_difference
from gueststar.pipelines.night.entry import EnteredScienceWork, run_entered_science
from gueststar.pipelines.night.entry_difference import EnteredDifferenceWork, run_entered_difference
from gueststar.pipelines.night.injection import plan_injections, plan_nightly_injections, run_injection
from gueststar.pipelines.night.movers import link_night
from gueststar.pipelines.night.outcome import Outcome
from gueststar.pipelines.night.plan import Planner
from gueststar.pipelines.night.precovery import plan_precoveries, run_precovery
from gueststar.pipelines.night.reference import run_reference
from gueststar.pipelines.night.science import ScienceWork, run_science
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.store.alerts.log import AlertLog
from gueststar.store.alerts.table import AlertTable
from gueststar.store.ledger import ExposureState, JobState
from gueststar.store.repo import SurveyRepo
from gueststar.stream.clients import has_stream
from gueststar.stream.filter_round import run_filters
from gueststar.stream.publish import Publisher

STAGES = ("calibrate", "science", "reference", "difference", "associate", "movers", "precover", "learn", "inject")
"""Stages of a night in order."""

AFTERWARDS = "inject"
"""The stage for which nothing waits: it comes when all nights have passed the others."""

BATCH = 12
"""Most outcomes committed to the registry together."""

SETTLE_S = 5.0
"""Outcomes wait no longer than this for others: what a killed run loses is seconds of work, not a batch."""

Progress = Callable[[str, int, int], None]
"""Called with the stage, the number of units finished and their total."""


def _silent(stage: str, done: int, total: int) -> None:
    return None


def _science_call(work: ScienceWork | EnteredScienceWork) -> Call:
    function = run_entered_science if isinstance(work, EnteredScienceWork) else run_science
    return Call(work.job_id, function, (work,))


def _difference_call(work: DifferenceWork | EnteredDifferenceWork) -> Call:
    function = run_entered_difference if isinstance(work, EnteredDifferenceWork) else run_difference
    return Call(work.job_id, function, (work,))


class NightRunner:
    """Drives nights of one repository through the stages."""

    def __init__(
        self,
        repo: SurveyRepo,
        engine: Engine,
        settings: PipelineSettings,
        *,
        progress: Progress = _silent,
        do_retry: bool = False,
        renew_before: float | None = None,
    ) -> None:
        self.repo, self.ledger, self.engine, self.settings = repo, repo.ledger, engine, settings
        self.progress = progress
        self.planner = Planner(repo, settings, do_retry=do_retry, renew_before=renew_before)
        self._works: dict[int, CalibrationWork | LearningWork] = {}

    def recover(self) -> int:
        """Take back what a killed run left behind; return how many jobs were running."""
        self.repo.sweep_staging()
        n_jobs = self.ledger.reset_running()
        if n_jobs:
            self.ledger.event("recovered", text=f"{n_jobs} jobs of an interrupted run go on")
        return n_jobs

    def nights(self) -> list[int]:
        """Return the nights with exposures, in order."""
        return sorted({row.info.day_obs for row in self.ledger.exposures()})

    def run(self, nights: Sequence[int], *, until: str = STAGES[-1]) -> None:
        """Process nights one after the other, as far as the stage ``until``."""
        wanted = STAGES[: STAGES.index(until) + 1]
        again = "" if self.planner.renew_before is None else " again"
        for night in nights:
            self.ledger.event("processing", str(night), f"night {night}{again} until {until}")
            for stage in wanted:
                if stage != AFTERWARDS:
                    getattr(self, stage)(night)
            self._settle_exposures(night)
            self.ledger.event("processed", str(night), f"night {night}{again} until {until}")
        if AFTERWARDS in wanted:
            for night in nights:
                getattr(self, AFTERWARDS)(night)

    def calibrate(self, night: int) -> None:
        """Make the calibration products that the night's bias, dark and flat frames allow, and certify them."""
        for kind in MAKERS:
            while works := self.planner.calibrations(night, kind):
                self._works = {work.job_id: work for work in works}
                calls = [Call(work.job_id, run_calibration, (work,)) for work in works]
                self._run("calibrate", calls, after_commit=self._certify)

    def _certify(self, outcome: Outcome) -> None:
        work = self._works[outcome.job_id]
        metrics = outcome.result.metrics
        for staged in outcome.result.staged:  # none where nothing was made
            start, end = metrics["valid_from_mjd"], metrics["valid_to_mjd"]
            self.repo.certify(work.kind, staged.data_id, start, end, run=staged.run)

    def science(self, night: int) -> None:
        """Calibrate the night's science exposures."""
        while works := self.planner.science(night):
            self._run("science", [_science_call(work) for work in works])

    def reference(self, night: int) -> None:
        """Make or deepen the references that the night's fields now allow."""
        while works := self.planner.references(night):
            self._run("reference", [Call(work.job_id, run_reference, (work,)) for work in works])

    def difference(self, night: int) -> None:
        """Subtract references, find and vet candidates."""
        while works := self.planner.differences(night):
            self._run("difference", [_difference_call(work) for work in works])

    def associate(self, night: int) -> None:
        """Associate candidates by time and write alerts; each detector image in one transaction, once."""
        jobs = self.planner.associations(night)
        associate = AssociateVisit(self.repo, self.settings)
        self.progress("associate", 0, len(jobs))
        for n_done, job in enumerate(jobs, start=1):
            job_id = self.ledger.submit("association", {"visit": job.exposure_id, "detector": job.detector})
            if self.ledger.start(job_id):
                self._settle([associate.run(job_id, job)])
            self.progress("associate", n_done, len(jobs))
        self._publish(night)
        self._filter(night)
        self._file_alerts()

    def _file_alerts(self) -> None:
        """Bring the archive's table up to date; where that cannot be, the next search does it."""
        try:
            with AlertLog(self.repo.root) as log:
                AlertTable(log).complete(do_wait=False)
        except ServiceDown as problem:
            self.ledger.event("archive", text=f"the table of alerts is behind the log: {problem}")

    def _publish(self, night: int) -> None:
        """Send what waits in the alert log, where there is a stream; brokers that stay away do not stop a night."""
        settings = self.repo.settings.stream
        if not has_stream(self.repo.root, settings):
            return
        try:
            with Publisher(self.repo.root, settings) as publisher:
                receipt = publisher.publish()
        except (TransientError, ConfigError, DataError) as problem:
            self.ledger.event("stream", str(night), f"alerts wait: {problem}", is_waiting=True)
        else:
            self.ledger.event("stream", str(night), receipt.line())

    def _filter(self, night: int) -> None:
        """Ask the users' filters of what was published, or of what is in the log where there is no stream."""
        try:
            lines = run_filters(self.repo.root, self.repo.settings)
        except (TransientError, ConfigError, DataError) as problem:
            lines = [f"filters wait: {problem}"]
        for line in lines:
            self.ledger.event("filters", str(night), line)

    def movers(self, night: int) -> None:
        """Link the night's candidates that move into tracklets."""
        job_id = self.ledger.submit("tracklets", self.planner.tracklets_key(night), day_obs=night)
        if self.ledger.start(job_id):
            self._settle([link_night(job_id, self.repo, self.settings, night)])
        self.progress("movers", 1, 1)

    def precover(self, night: int) -> None:
        """Measure the night's new objects on the differences from before they were known."""
        works = plan_precoveries(self.repo, self.settings, night)
        self._run("precover", [Call(work.job_id, run_precovery, (work,)) for work in works])

    def learn(self, night: int) -> None:
        """Make the calibration products that the night's science images show, and certify them.

        They come last: the night's alerts do not wait for them, and they serve what is processed from now on.
        """
        for kind in LEARNERS:
            works = self.planner.learning(night, kind)
            self._works = {work.job_id: work for work in works}
            calls = [Call(work.job_id, run_learning, (work,)) for work in works]
            self._run("learn", calls, after_commit=self._certify)

    def inject(self, night: int) -> None:
        """Put artificial sources into a sample of the night's differences, and score what is found of them.

        They come after everything else: nothing waits for them.
        """
        works = plan_nightly_injections(self.repo, self.settings, night)
        self._run("inject", [Call(work.job_id, run_injection, (work,)) for work in works])

    def inject_images(self, night: int, *, n_images: int | None, seed: int) -> None:
        """Put artificial sources into images of a night that are calibrated, and score what is found of them."""
        works = plan_injections(self.repo, self.settings, night, n_images=n_images, seed=seed)
        self._run("inject", [Call(work.job_id, run_injection, (work,)) for work in works])

    def _run(self, stage: str, calls: list[Call], *, after_commit: Callable[[Outcome], None] | None = None) -> None:
        self.progress(stage, 0, len(calls))
        batch: list[Outcome] = []
        settled = time.monotonic()
        for n_done, outcome in enumerate(self.engine.run(self._started(calls)), start=1):
            batch.append(outcome)
            if len(batch) >= BATCH or time.monotonic() - settled > SETTLE_S:
                self._settle(batch, after_commit)
                batch, settled = [], time.monotonic()
            self.progress(stage, n_done, len(calls))
        self._settle(batch, after_commit)

    def _started(self, calls: Iterable[Call]) -> Iterable[Call]:
        for call in calls:
            if self.ledger.start(call.job_id):
                yield call

    def _settle(self, outcomes: Sequence[Outcome], after_commit: Callable[[Outcome], None] | None = None) -> None:
        """Commit a batch's products in one go, then write down each job's fate."""
        staged = [product for outcome in outcomes for product in outcome.result.staged]
        if staged:
            self.repo.commit(staged)
        for outcome in outcomes:
            if outcome.state == "done" and after_commit is not None:
                after_commit(outcome)
            self._write_down(outcome)

    def _write_down(self, outcome: Outcome) -> None:
        if outcome.state == "held":
            self.ledger.hold(outcome.job_id, outcome.reason)
        elif outcome.state == "failed":
            self.ledger.fail(
                outcome.job_id, outcome.reason, outcome.error_kind,
                is_retryable=outcome.is_retryable, traceback=outcome.trace,
            )  # fmt: skip
        else:
            metrics: dict[str, Any] = dict(outcome.result.metrics)
            metrics |= {"steps": outcome.result.steps, "wall_s": outcome.wall_s, "inputs": outcome.result.inputs}
            self.ledger.finish(outcome.job_id, metrics, cpu_s=outcome.cpu_s, peak_rss_mb=outcome.peak_rss_mb)

    def _settle_exposures(self, night: int) -> None:
        for row in self.ledger.exposures(day_obs=night):
            if row.info.observation_type == "science":
                self.ledger.settle_exposure(row.id)
            else:
                state, reason = self._fate_of_calibration(night, row.id, row.info.observation_type)
                self.ledger.set_exposure_state(row.id, state, reason)

    def _fate_of_calibration(self, night: int, exposure: int, kind: CalibrationKind) -> tuple[ExposureState, str]:
        jobs = [
            job for job in self.ledger.jobs(kind="calibration", day_obs=night)
            if job.key["kind"] == kind and exposure in job.key["frames"]
        ]  # fmt: skip
        if not jobs:
            return ExposureState.RECEIVED, ""
        if any(job.state is JobState.DONE for job in jobs):
            return ExposureState.PROCESSED, ""
        lost = [job for job in jobs if job.state in (JobState.FAILED, JobState.QUARANTINED)]
        if lost:
            return ExposureState.FAILED, lost[0].reason
        if all(job.state is JobState.HELD for job in jobs):
            return ExposureState.HELD, jobs[0].reason
        return ExposureState.RECEIVED, ""
