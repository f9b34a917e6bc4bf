"""The way of exposures through the operator: decided on, planned one detector image at a time, associated in order.

The ledger is the truth: what is kept here is found again from it (`reload`), so that an operator that is killed, or
whose database went away, goes on where it stood.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial

from gueststar.core import times
from gueststar.core.clock import Clock
from gueststar.core.errors import ServiceDown
from gueststar.operations.operator.calibration_sets import CalibrationSets
from gueststar.operations.operator.facts import night_of
from gueststar.operations.operator.landed import Landed
from gueststar.operations.operator.order import SkyOrder
from gueststar.operations.operator.planning import Plan, Planning
from gueststar.operations.operator.queue import Stage, Unit, WorkQueue
from gueststar.operations.operator.series import Series
from gueststar.operations.rules.contract import Decision, Priority, Recipe, Retry, Rules
from gueststar.operations.rules.facts import ExposureFactsSource
from gueststar.operations.rules.record import decisions_on, write_decision
from gueststar.pipelines.engine.contract import Call
from gueststar.pipelines.engine.outcome import FurtherJob, Outcome
from gueststar.pipelines.night.association import AssociateVisit
from gueststar.pipelines.night.calibrations.frames import MAKERS
from gueststar.pipelines.night.plan import Planner
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.pipelines.night.stages import Settling, Work, call_of, settle_calibration_frames
from gueststar.store.ledger import ExposureRow, ExposureState, Job, JobState
from gueststar.store.repo import SurveyRepo

LOG = logging.getLogger(__name__)

_STUCK = (JobState.FAILED, JobState.QUARANTINED, JobState.HELD)
_LONGEST_BACKOFF_S = 3600.0
_USUAL_DEADLINE_S = 600.0
"""Of exposures whose rule gives none: among those of one priority, the one that is due first is begun first."""


class Step(StrEnum):
    """Where a detector image stands."""

    SCIENCE = "science"
    DIFFERENCE = "difference"
    ASSOCIATION = "association"
    ENDED = "ended"


@dataclass
class InHand:
    """An exposure that is being worked on."""

    row: ExposureRow
    decision: Decision
    steps: dict[int, Step] = field(default_factory=dict)

    @property
    def is_ended(self) -> bool:
        """Whether all its images have reached their end."""
        return all(step is Step.ENDED for step in self.steps.values())


class NightWork:
    """Plans, settles and associates; it neither waits nor runs anything but association."""

    def __init__(
        self, repo: SurveyRepo, settings: PipelineSettings, rules: Rules, *, clock: Clock, planning: Planning
    ) -> None:
        self.rules, self.clock, self.planning = rules, clock, planning
        queue = repo.settings.operation.queue
        self.sets = CalibrationSets(quiet_s=queue.calibrations_quiet_s, patience_s=queue.patience_s)
        self.hands: dict[int, InHand] = {}
        self.undecided: dict[int, ExposureRow] = {}
        """Exposures whose rule cannot be asked before the night's calibrations are made."""
        self.series: list[Series] = []
        self.changed: Counter[int] = Counter()
        """Night -> images that reached their end since the night was closed."""
        self.has_new_alerts = False
        self.last_calibrations = ""
        self._works: dict[int, Work] = {}
        self._frames: set[int] = set()
        self.settling = Settling(repo, self._adopt, backoff_until=self._backoff_until)
        self.use(repo, settings)

    def use(self, repo: SurveyRepo, settings: PipelineSettings) -> None:
        """Work with a repository that was opened anew, and perhaps with other settings; then `reload`."""
        self.repo, self.ledger, self.settings = repo, repo.ledger, settings
        self.planner = Planner(repo, settings)
        self.settling.repo = repo
        self.facts = ExposureFactsSource(repo)
        queue = repo.settings.operation.queue
        self.queue = WorkQueue(backlog_share=queue.backlog_share)
        self.order = SkyOrder(repo.camera, patience_s=queue.patience_s)
        self._associate: AssociateVisit | None = None

    def _adopt(self, job: FurtherJob) -> bool:
        return self.planner.adopt(job)

    # Taking in

    def reload(self, *, running: Collection[int], is_counted: bool) -> int:
        """Find again in the ledger what is to be done; return how many jobs were taken back.

        ``running``: jobs that are known to run. ``is_counted``: whether those that are not known count as attempts
        that failed.
        """
        n_lost = self.ledger.reset_running(is_counted=is_counted, but=running)
        queue = self.repo.settings.operation.queue
        self.queue = WorkQueue(backlog_share=queue.backlog_share)
        self.order = SkyOrder(self.repo.camera, patience_s=queue.patience_s)
        self._associate = None
        self._frames.clear()
        self.hands.clear()
        self.undecided.clear()
        for series in self.series:
            series.begin_again(running)
        self.look_for_exposures()
        return n_lost

    def look_for_exposures(self) -> int:
        """Take every exposure that has no fate yet and is not in hand; return how many there were."""
        known = self._frames | set(self.hands) | set(self.undecided)
        rows = [row for row in self.ledger.exposures(state=ExposureState.RECEIVED) if row.id not in known]
        for row in rows:
            self.take(row)
        return len(rows)

    def take(self, row: ExposureRow) -> None:
        """Take an exposure in hand, or further detectors of one."""
        if row.info.observation_type != "science":
            if row.id not in self._frames:
                self._frames.add(row.id)
                self.sets.add(row.info.day_obs, now=time.monotonic())
            return
        try:
            self._take(row)
        except ServiceDown:
            raise
        except Exception as problem:  # one exposure that nobody foresaw must not stop the others
            LOG.exception("exposure %s", row.id, extra={"exposure": row.id, "night": row.info.day_obs})
            self.hands.pop(row.id, None)
            reason = f"the operator could not take it in hand: {type(problem).__name__}: {problem}"
            self.ledger.event("bug", str(row.id), traceback.format_exc(), exposure=row.id, night=row.info.day_obs)
            self.ledger.set_exposure_state(row.id, ExposureState.HELD, reason)

    def _take(self, row: ExposureRow) -> None:
        if self.sets.want(row.info.day_obs, now=time.monotonic()):
            self.planner.ask_science(row)
            self.undecided[row.id] = row
            return
        now = self.clock.now()
        decision, best = self._decisions(row, now)
        if row.id not in self.hands and not self._is_told(row, decision):
            write_decision(self.ledger, row.id, decision, now=now)
        hand = self.hands.setdefault(row.id, InHand(row, best))
        hand.row, hand.decision = row, decision = row, best
        with self._facts_of(decision):
            self.planner.ask_science(row)
        jobs = self.ledger.jobs(exposure_id=row.id)
        if decision.recipe is Recipe.ARCHIVE:
            self._archive(hand, jobs)
            return
        for detector in row.detectors:
            if detector not in hand.steps:
                self._advance(hand, detector, [job for job in jobs if job.detector == detector], is_fresh=True)
        self._close(hand)

    def _is_told(self, row: ExposureRow, decision: Decision) -> bool:
        """Return whether the diary's last decision on an exposure is this one: it was in hand before."""
        told = decisions_on(self.ledger, row.id)[-1:]
        return any(
            (event.data["rule"], event.data["recipe"], event.data["why"])
            == (decision.rule, decision.recipe.value, decision.why)
            for event in told
        )

    def _decisions(self, row: ExposureRow, now: float) -> tuple[Decision, Decision]:
        """Return what the rules say of an exposure, and of those of its images that have what others lack."""
        facts = self.facts.facts(row, now=now)
        decision = self.rules.decide(facts)
        if decision.recipe is Recipe.ALERTS:
            return decision, decision
        some = replace(
            facts,
            has_reference=facts.has_reference or any(self.planner.reference_of(row, d) for d in row.detectors),
            has_calibrations=facts.has_calibrations or self.planner.has_some_calibrations(row),
        )
        return decision, decision if some == facts else self.rules.decide(some)

    def _archive(self, hand: InHand, jobs: Sequence[Job]) -> None:
        reason = f"archive only: {hand.decision.why or 'as its rule says'} (rule {hand.decision.rule!r})"
        for job in jobs:
            if job.state in (JobState.PENDING, JobState.HELD):
                self.ledger.hold(job.id, reason)
        self.hands.pop(hand.row.id, None)
        self.ledger.settle_exposure(hand.row.id)

    # The steps of an image

    def _advance(self, hand: InHand, detector: int, jobs: Sequence[Job], *, is_fresh: bool = False) -> None:
        """Bring an image to the step that the ledger's jobs tell, and ask for the work of it.

        ``is_fresh``: what is held may be planned once more.
        """
        by_kind = {job.kind: job for job in jobs}
        step, is_running = self._step_of(hand, detector, by_kind, is_fresh=is_fresh)
        hand.steps[detector] = step
        info, priority = hand.row.info, int(hand.decision.priority)
        if step is Step.ENDED:
            self.order.ended(hand.row.id, detector)
            self.changed[info.day_obs] += not is_fresh
            return
        if hand.decision.recipe is Recipe.ALERTS:
            # What waited for the link in this very night is begun later, and associated in its order all the same.
            is_tonight = info.day_obs >= night_of(self.clock.now(), self.repo.camera)
            in_order = min(priority, int(Priority.TONIGHT)) if is_tonight else priority
            self.order.expect(info, {detector}, priority=in_order, rank=priority)
        if step is Step.ASSOCIATION:
            self.order.ready(info, detector, now=time.monotonic())
        elif not is_running:
            stage: Stage = "science" if step is Step.SCIENCE else "difference"
            job = by_kind.get(stage)
            wait = max(0.0, (job.not_before if job and job.not_before else 0.0) - time.time())
            due = times.unix(info.mjd_start) + info.exposure_s + (hand.decision.deadline_s or _USUAL_DEADLINE_S)
            unit = Unit(priority, due, hand.row.id, detector, stage)
            self.queue.put(unit, not_before=time.monotonic() + wait if wait else 0.0)

    def _step_of(self, hand: InHand, detector: int, jobs: dict[str, Job], *, is_fresh: bool) -> tuple[Step, bool]:
        """Return the step, and whether its work is running."""
        science, difference, association = (jobs.get(kind) for kind in ("science", "difference", "association"))
        if science is not None and science.state is not JobState.DONE:
            if science.state in _STUCK and not (is_fresh and science.state is JobState.HELD):
                return Step.ENDED, False
            return Step.SCIENCE, science.state is JobState.RUNNING
        if hand.decision.recipe is Recipe.IMAGES and (difference is None or difference.state is JobState.HELD):
            why = hand.decision.why or "as its rule says"
            self.planner.hold_difference(hand.row, detector, f"images only: {why} (rule {hand.decision.rule!r})")
            return Step.ENDED, False
        if difference is None or difference.state is not JobState.DONE:
            is_stuck = difference is not None and difference.state in _STUCK
            if is_stuck and not (is_fresh and difference is not None and difference.state is JobState.HELD):
                return Step.ENDED, False
            return Step.DIFFERENCE, difference is not None and difference.state is JobState.RUNNING
        is_over = association is not None and association.state in (JobState.DONE, *_STUCK)
        return (Step.ENDED if is_over else Step.ASSOCIATION), False

    def _look(self, exposure: int, detector: int) -> None:
        """Bring an image to where the ledger says it stands, and end its exposure if it was the last."""
        if (hand := self.hands.get(exposure)) is not None:
            self._advance(hand, detector, self.ledger.jobs(exposure_id=exposure, detector=detector))
            self._close(hand)

    def _close(self, hand: InHand) -> None:
        if hand.is_ended:
            self.ledger.settle_exposure(hand.row.id)
            self.hands.pop(hand.row.id, None)

    # Planning and settling

    def plan(self, unit: Unit) -> Call | None:
        """Return the call for a unit that was taken from the queue; None where there is nothing to run (any more)."""
        if unit.stage == "other":
            return call_of(self._works[unit.job])._replace(what=unit.words(), priority=unit.priority)
        hand = self.hands.get(unit.exposure)
        if hand is None:
            return None
        with self._facts_of(hand.decision):
            if unit.stage == "science":
                is_chained = hand.decision.recipe is Recipe.ALERTS
                work: Work | None = self.planner.science_of(hand.row, unit.detector, is_chained=is_chained)
            else:
                work = self.planner.difference_of(hand.row, unit.detector)
        if work is None:
            self._look(unit.exposure, unit.detector)
            if unit.exposure in self.hands and self.hands[unit.exposure].steps[unit.detector] == unit.stage:
                raise AssertionError(f"{unit} is asked for, and cannot be planned")
            return None
        return call_of(work)._replace(what=unit.words(), priority=unit.priority)

    def settle(self, outcomes: Sequence[tuple[Unit, Outcome]]) -> None:
        """Commit what came back and ask for what follows; doing so again with the same changes nothing."""
        fates = self.settling.settle([outcome for _, outcome in outcomes])
        for unit, outcome in outcomes:
            if unit.stage == "other":
                self._works.pop(unit.job, None)
                for series in self.series:
                    series.settled(outcome.job_id, fates.get(outcome.job_id, JobState.PENDING))
            else:
                self._look(unit.exposure, unit.detector)

    def put_back(self, unit: Unit, job_id: int, reason: str) -> None:
        """Let a unit wait whose attempt failed because the world did (a full disk): the attempt does not count."""
        self.ledger.put_off(job_id, reason)
        self.queue.put(unit)

    def _backoff_until(self, outcome: Outcome) -> float | None:
        job = self.ledger.job(outcome.job_id)
        if job is None or not outcome.is_retryable:
            return None
        hand = self.hands.get(job.exposure_id or 0)
        retry = hand.decision.retry if hand else Retry()
        return time.time() + min(_LONGEST_BACKOFF_S, retry.backoff_s * 2.0 ** max(0, job.attempts - 1))

    # Association

    def associate_next(self, landed: Landed) -> bool:
        """Associate the next image whose turn it is, and write its alerts; False where none is due."""
        found = self.order.next(now=time.monotonic(), landed=landed)
        if found is None:
            return False
        exposure, detector = found
        (difference,) = self.ledger.jobs(kind="difference", exposure_id=exposure, detector=detector)
        job_id = self.ledger.submit(
            "association", {"visit": exposure, "detector": detector}, exposure_id=exposure, detector=detector,
            day_obs=difference.day_obs, priority=int(self.hands[exposure].decision.priority),
        )  # fmt: skip
        if self.ledger.start(job_id):
            outcome = self._association().run(job_id, difference)
            if self.settling.settle([outcome])[job_id] is JobState.PENDING:
                wait = max(0.0, (self._backoff_until(outcome) or 0.0) - time.time())
                self.order.put_off(exposure, detector, until=time.monotonic() + wait)
                return True
            self.has_new_alerts |= bool(outcome.result.metrics.get("n_alerts"))
        self._look(exposure, detector)
        return True

    def _association(self) -> AssociateVisit:
        if self._associate is None:
            self._associate = AssociateVisit(self.repo, self.settings)
        return self._associate

    def forget_orbits(self) -> None:
        """Read the orbits of known bodies anew before the next association."""
        self._associate = None

    # Calibrations and other series

    def make_calibrations(self, landed: Landed) -> bool:
        """Begin the calibration products of nights whose set is complete; False where none is."""
        nights = self.sets.complete(now=time.monotonic(), is_more_coming=landed.has_calibrations)
        for night in nights:
            plans: list[Plan] = [lambda planner, n=night, k=kind: planner.calibrations(n, k) for kind in MAKERS]  # type: ignore[misc]
            self.begin(Series("calibrations", night, Priority.TONIGHT, plans))
        return bool(nights)

    def begin(self, series: Series) -> None:
        """Add a series of work."""
        self.series.append(series)

    def advance_series(self) -> list[Series]:
        """Ask for the work that series have next; return those that have ended."""
        for series in self.series:
            for work in series.advance(partial(self.planning.begin, settings=self.settings, priority=series.priority)):
                self.settling.remember(work)
                self._works[work.job_id] = work
                job = self.ledger.job(work.job_id)
                wait = max(0.0, (job.not_before if job and job.not_before else 0.0) - time.time())
                detector = getattr(work, "detector_id", 0)
                unit = Unit(series.priority, 0.0, 0, detector, "other", work.job_id, f"{series.name} of {series.night}")
                self.queue.put(unit, not_before=time.monotonic() + wait if wait else 0.0)
        ended = [series for series in self.series if series.is_ended]
        self.series = [series for series in self.series if not series.is_ended]
        for series in ended:
            if series.name == "calibrations":
                self.last_calibrations = series.line()
                self._calibrations_made(series.night)
        return ended

    def _calibrations_made(self, night: int) -> None:
        self.sets.made(night)
        settle_calibration_frames(self.repo, night)
        self.planner.ask_again()
        self.facts.forget()
        for row in [row for row in self.undecided.values() if row.info.day_obs == night]:
            del self.undecided[row.id]
            self.take(row)

    def plan_held(self, night: int, *, is_later_too: bool = False) -> int:
        """Decide anew on the exposures of a night (and later ones) of which something is held; return how many.

        A reference of an earlier night that is made late, after an outage, is what later nights are compared with.
        """
        self.planner.ask_again()
        self.facts.forget()
        jobs = self.ledger.jobs(state=JobState.HELD, day_obs=None if is_later_too else night, is_lean=True)
        held = {(job.exposure_id or 0, job.detector) for job in jobs if (job.day_obs or 0) >= night}
        for exposure, detector in held:
            if exposure in self.hands and detector is not None:
                self.hands[exposure].steps.pop(detector, None)
        rows = [row for number in sorted({exposure for exposure, _ in held}) if (row := self.ledger.exposure(number))]
        for row in rows:
            self.take(row)
        return len(rows)

    def has_work_of(self, night: int) -> bool:
        """Return whether exposures or calibration frames of a night are being worked on."""
        rows = [*self.undecided.values(), *(hand.row for hand in self.hands.values())]
        return night in self.sets or any(row.info.day_obs == night for row in rows)

    @property
    def has_prompt_work(self) -> bool:
        """Whether images are in hand that come before any backlog."""
        return any(hand.decision.priority <= Priority.TONIGHT for hand in self.hands.values())

    # Facts of jobs

    def _facts_of(self, decision: Decision) -> _Facts:
        return _Facts(self.planner, {"priority": int(decision.priority), "max_attempts": decision.retry.attempts})


@dataclass
class _Facts:
    """What jobs that the planner asks for are told, within a ``with`` statement."""

    planner: Planner
    facts: dict[str, int]

    def __enter__(self) -> None:
        self.planner.facts = dict(self.facts)

    def __exit__(self, *_: object) -> None:
        self.planner.facts = {}
