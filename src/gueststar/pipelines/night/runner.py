"""Runs nights: plan, hand to the engine, commit what comes back, write every fate into the ledger.

One process is the writer. It may be killed at any moment: what was committed is found again, what was
running is run again, and committing the same content twice is the same as once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from gueststar.pipelines.engine.contract import Call, Engine
from gueststar.pipelines.engine.outcome import Outcome
from gueststar.pipelines.night.association import AssociateVisit
from gueststar.pipelines.night.calibrations.frames import MAKERS
from gueststar.pipelines.night.calibrations.learning import LEARNERS
from gueststar.pipelines.night.injection import plan_injections, plan_nightly_injections
from gueststar.pipelines.night.movers import link_night
from gueststar.pipelines.night.plan import Planner
from gueststar.pipelines.night.precovery import plan_precoveries
from gueststar.pipelines.night.publishing import publish_night
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.pipelines.night.stages import Settling, Work, call_of, settle_calibration_frames
from gueststar.store.repo import SurveyRepo

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
        self.settling = Settling(repo, self.planner.adopt)
        self.is_chained = False
        """Whether science images that have a reference are compared with it in the same go."""

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
        self.is_chained = "difference" in wanted
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
                self._run("calibrate", works)

    def science(self, night: int) -> None:
        """Calibrate the night's science exposures, and make the differences of those that have a reference by now."""
        while works := self.planner.science(night, is_chained=self.is_chained):
            self._run("science", works)

    def reference(self, night: int) -> None:
        """Make or deepen the references that the night's fields now allow."""
        while works := self.planner.references(night):
            self._run("reference", works)

    def difference(self, night: int) -> None:
        """Subtract references, find and vet candidates."""
        while works := self.planner.differences(night):
            self._run("difference", works)

    def associate(self, night: int) -> None:
        """Associate candidates by time and write alerts; each detector image in one transaction, once."""
        jobs = self.planner.associations(night)
        associate = AssociateVisit(self.repo, self.settings)
        self.progress("associate", 0, len(jobs))
        for n_done, job in enumerate(jobs, start=1):
            job_id = self.ledger.submit("association", {"visit": job.exposure_id, "detector": job.detector})
            if self.ledger.start(job_id):
                self.settling.settle([associate.run(job_id, job)])
            self.progress("associate", n_done, len(jobs))
        publish_night(self.repo, night)

    def movers(self, night: int) -> None:
        """Link the night's candidates that move into tracklets."""
        job_id = self.ledger.submit("tracklets", self.planner.tracklets_key(night), day_obs=night)
        if self.ledger.start(job_id):
            self.settling.settle([link_night(job_id, self.repo, self.settings, night)])
        self.progress("movers", 1, 1)

    def precover(self, night: int) -> None:
        """Measure the night's new objects on the differences from before they were known."""
        works = plan_precoveries(self.repo, self.settings, night)
        self._run("precover", works)

    def learn(self, night: int) -> None:
        """Make the calibration products that the night's science images show, and certify them.

        They come last: the night's alerts do not wait for them, and they serve what is processed from now on.
        """
        files = self.planner.calibrated_files(night)
        for kind in LEARNERS:
            self._run("learn", self.planner.learning(night, kind, files))

    def inject(self, night: int) -> None:
        """Put artificial sources into a sample of the night's differences, and score what is found of them.

        They come after everything else: nothing waits for them.
        """
        works = plan_nightly_injections(self.repo, self.settings, night)
        self._run("inject", works)

    def inject_images(self, night: int, *, n_images: int | None, seed: int) -> None:
        """Put artificial sources into images of a night that are calibrated, and score what is found of them."""
        works = plan_injections(self.repo, self.settings, night, n_images=n_images, seed=seed)
        self._run("inject", works)

    def _run(self, stage: str, works: Sequence[Work]) -> None:
        for work in works:
            self.settling.remember(work)
        calls = [call_of(work) for work in works]
        self.progress(stage, 0, len(calls))
        batch: list[Outcome] = []
        settled = time.monotonic()
        for n_done, outcome in enumerate(self.engine.run(self._started(calls)), start=1):
            batch.append(outcome)
            if len(batch) >= BATCH or time.monotonic() - settled > SETTLE_S:
                self.settling.settle(batch)
                batch, settled = [], time.monotonic()
            self.progress(stage, n_done, len(calls))
        self.settling.settle(batch)

    def _started(self, calls: Iterable[Call]) -> Iterable[Call]:
        for call in calls:
            if self.ledger.start(call.job_id):
                yield call

    def _settle_exposures(self, night: int) -> None:
        for row in self.ledger.exposures(day_obs=night, observation_type="science"):
            self.ledger.settle_exposure(row.id)
        settle_calibration_frames(self.repo, night)
