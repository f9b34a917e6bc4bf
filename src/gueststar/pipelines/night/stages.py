"""What batch nights and the operator share: how work becomes a call, and what is written down when it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gueststar.pipelines.engine.contract import Call
from gueststar.pipelines.engine.outcome import FurtherJob, Outcome
from gueststar.pipelines.night.calibrations.frames import CalibrationWork, run_calibration
from gueststar.pipelines.night.calibrations.learning import LearningWork, run_learning
from gueststar.pipelines.night.chain import ChainWork, run_chain
from gueststar.pipelines.night.difference import DifferenceWork, run_difference
from gueststar.pipelines.night.entry import EnteredScienceWork, run_entered_science
from gueststar.pipelines.night.entry_difference import EnteredDifferenceWork, run_entered_difference
from gueststar.pipelines.night.injection import InjectionWork, run_injection
from gueststar.pipelines.night.precovery import PrecoveryWork, run_precovery
from gueststar.pipelines.night.reference import ReferenceWork, run_reference
from gueststar.pipelines.night.science import ScienceWork, run_science
from gueststar.store.job_batches import JobBatches, JobEnding
from gueststar.store.ledger import ExposureState, JobState
from gueststar.store.repo import SurveyRepo

Work = (
    CalibrationWork | ChainWork | ScienceWork | EnteredScienceWork | ReferenceWork | DifferenceWork
    | EnteredDifferenceWork | PrecoveryWork | LearningWork | InjectionWork
)  # fmt: skip

FUNCTIONS: dict[type, Callable[..., Outcome]] = {
    CalibrationWork: run_calibration,
    ChainWork: run_chain,
    ScienceWork: run_science,
    EnteredScienceWork: run_entered_science,
    ReferenceWork: run_reference,
    DifferenceWork: run_difference,
    EnteredDifferenceWork: run_entered_difference,
    PrecoveryWork: run_precovery,
    LearningWork: run_learning,
    InjectionWork: run_injection,
}
"""Kind of work -> what a worker runs for it."""


def call_of(work: Work) -> Call:
    """Return the call that does some work."""
    return Call(work.job_id, FUNCTIONS[type(work)], (work,))


@dataclass
class Settling:
    """Commits products and writes the fate of jobs down."""

    repo: SurveyRepo
    adopt: Callable[[FurtherJob], bool]
    """Enters a job that a worker did of itself; False where its outcome does not count."""
    backoff_until: Callable[[Outcome], float | None] = lambda _: None
    """Unix time before which a failed attempt is not made again; None: at once."""
    _calibrations: dict[int, CalibrationWork | LearningWork] = field(default_factory=dict)

    def remember(self, work: Work) -> None:
        """Remember work that is to be certified when it is done."""
        if isinstance(work, CalibrationWork | LearningWork):
            self._calibrations[work.job_id] = work

    def settle(self, outcomes: Sequence[Outcome]) -> dict[int, JobState]:
        """Commit a batch's products in one go, then write down each job's fate; return it.

        Doing so again with the same outcomes changes nothing.
        """
        outcomes = [part for outcome in outcomes for part in (outcome, *outcome.further) if self._is_ours(part)]
        staged = [product for outcome in outcomes for product in outcome.result.staged]
        if staged:
            self.repo.commit(staged)
        for outcome in outcomes:
            if outcome.state == "done":
                self._certify(outcome)
        fates = JobBatches(self.repo.ledger).settle([self._ending(outcome) for outcome in outcomes])
        for outcome in outcomes:
            self._calibrations.pop(outcome.job_id, None)
        return fates

    def _is_ours(self, outcome: Outcome) -> bool:
        """Return whether an outcome counts: one that nobody asked for does where the ledger takes its job."""
        if outcome.opens is None or self.adopt(outcome.opens):
            return True
        for staged in outcome.result.staged:
            staged.path.unlink(missing_ok=True)
        return False

    def _certify(self, outcome: Outcome) -> None:
        if (work := self._calibrations.get(outcome.job_id)) is None:
            return
        metrics = outcome.result.metrics
        for staged in outcome.result.staged:  # none where nothing was made
            start, end = metrics["valid_from_mjd"], metrics["valid_to_mjd"]
            self.repo.certify(work.kind, staged.data_id, start, end, run=staged.run)

    def _ending(self, outcome: Outcome) -> JobEnding:
        if outcome.state == "held":
            return JobEnding(outcome.job_id, JobState.HELD, reason=outcome.reason)
        if outcome.state == "failed":
            return JobEnding(
                outcome.job_id, JobState.FAILED, reason=outcome.reason, error_kind=outcome.error_kind,
                traceback=outcome.trace, is_retryable=outcome.is_retryable, not_before=self.backoff_until(outcome),
            )  # fmt: skip
        metrics: dict[str, Any] = dict(outcome.result.metrics)
        metrics |= {"steps": outcome.result.steps, "wall_s": outcome.wall_s, "inputs": outcome.result.inputs}
        return JobEnding(
            outcome.job_id, JobState.DONE, metrics=metrics, cpu_s=outcome.cpu_s, peak_rss_mb=outcome.peak_rss_mb
        )


def settle_calibration_frames(repo: SurveyRepo, night: int) -> None:
    """Write down what became of a night's calibration exposures."""
    ledger = repo.ledger
    jobs = ledger.jobs(kind="calibration", day_obs=night)
    for row in ledger.exposures(day_obs=night):
        if row.info.observation_type == "science":
            continue
        mine = [job for job in jobs if job.key["kind"] == row.info.observation_type and row.id in job.key["frames"]]
        state, reason = _fate_of_frame([job.state for job in mine], [job.reason for job in mine])
        if (state, reason) != (row.state, row.reason):
            ledger.set_exposure_state(row.id, state, reason)


def _fate_of_frame(states: list[JobState], reasons: list[str]) -> tuple[ExposureState, str]:
    if JobState.DONE in states:
        return ExposureState.PROCESSED, ""
    for state, reason in zip(states, reasons, strict=True):
        if state in (JobState.FAILED, JobState.QUARANTINED):
            return ExposureState.FAILED, reason
    if states and all(state is JobState.HELD for state in states):
        return ExposureState.HELD, reasons[0]
    return ExposureState.RECEIVED, ""
