"""Actions of rules that are pipelines: their units go through the operator's queue, beside the exposures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gueststar.core.errors import ConfigError, TransientError
from gueststar.operations.actions.contract import ActionContext, ActionResult
from gueststar.operations.operator.night_work import NightWork
from gueststar.operations.operator.planning import Plan
from gueststar.operations.operator.series import Series
from gueststar.pipelines.night.calibrations.learning import LEARNERS
from gueststar.pipelines.night.injection import plan_injections, plan_nightly_injections
from gueststar.pipelines.night.movers import link_night
from gueststar.pipelines.night.plan import Planner
from gueststar.pipelines.night.precovery import plan_precoveries
from gueststar.pipelines.night.publishing import publish_night
from gueststar.pipelines.night.reference import ReferenceWork
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.pipelines.night.stages import Settling
from gueststar.store.ledger import JobState

END_OF_NIGHT = ("references", "movers", "precover", "learn", "inject")
"""What follows when a night's images are done, in order."""


class SeriesAction:
    """Units of work, planned when nothing of the night is on its way any more, and what follows when they are done."""

    def __init__(
        self, work: NightWork, series: Series, *, is_due: Callable[[], bool],
        afterwards: Callable[[], object] | None = None,
    ) -> None:  # fmt: skip
        self._work, self._series, self._is_due, self._afterwards = work, series, is_due, afterwards
        self._is_begun = False

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for a night's end."""
        return not self._is_begun and not self._is_due()

    def result(self) -> ActionResult | None:
        """Return what was done; None while something is left to do."""
        if not self._is_begun:
            if self._work.has_work_of(self._series.night) or not self._is_due():
                return None
            self._work.begin(self._series)
            self._is_begun = True
        if not self._series.is_ended:
            return None
        if self._afterwards is not None:
            self._afterwards()
            self._afterwards = None
            return None
        if self._work.has_work_of(self._series.night):
            return None
        figures = {"n_done": self._series.n_done, "n_lost": self._series.n_lost}
        return ActionResult("done" if any(figures.values()) else "nothing", self._series.line(), figures)


class Calibrate:
    """The calibration frames of a night are declared a complete set, of which products are made."""

    def __init__(self, work: NightWork, night: int) -> None:
        self._work, self._night, self._is_begun = work, night, False

    def result(self) -> ActionResult | None:
        """Return what was done; None while the products are being made."""
        if not self._is_begun:
            self._is_begun = True
            if self._night not in self._work.sets:
                return ActionResult("nothing", f"calibrate of {self._night}: no frames that are not made into products")
            self._work.sets.ask(self._night)
        if self._night in self._work.sets:
            return None
        return ActionResult("done", self._work.last_calibrations)


class WaitFor:
    """An action in a thread that begins when nothing of its night is on its way any more."""

    def __init__(self, work: NightWork, night: int, begin: Callable[[], Any]) -> None:
        self._work, self._night, self._begin = work, night, begin
        self._running: Any = None

    def result(self) -> ActionResult | None:
        """Return what was done; None while it is not."""
        if self._running is None:
            if self._work.has_work_of(self._night):
                return None
            self._running = self._begin()
        result: ActionResult | None = self._running.result()
        return result


def series_action(
    name: str, work: NightWork, night: int, arguments: Mapping[str, Any], *, priority: int, since: float,
    is_night_over: Callable[[], bool],
) -> SeriesAction | None:  # fmt: skip
    """Return the action of a name that plans units of work; None where it is another kind of action.

    ``since``: Unix time of the firing; what was done before is done again by ``reprocess``. References wait until
    ``is_night_over``: what becomes of a night's exposures must not depend on when within the night one was made.
    """
    plans = _plans(name, night, arguments, since)
    if plans is None:
        return None
    series = Series(name, night, priority, plans)
    if name == "references":

        def afterwards() -> int:
            return work.plan_held(night, is_later_too=series.n_done > 0)

        return SeriesAction(work, series, is_due=is_night_over, afterwards=afterwards)
    return SeriesAction(work, series, is_due=lambda: True)


def _plans(name: str, night: int, arguments: Mapping[str, Any], since: float) -> Iterable[Plan] | None:
    if name == "references":
        return [lambda planner: _references(planner, night, arguments)]
    if name == "precover":
        return [lambda planner: plan_precoveries(planner.repo, planner.settings, night)]
    if name == "learn":
        return [lambda planner, k=kind: planner.learning(night, k) for kind in LEARNERS]  # type: ignore[misc]
    if name == "inject":
        return [lambda planner: _injections(planner, night, arguments)]
    if name == "reprocess":

        def again(planner: Planner) -> Planner:
            planner.renew_before = since
            return planner

        return [lambda planner: again(planner).science(night), lambda planner: again(planner).differences(night)]
    return None


def _references(planner: Planner, night: int, arguments: Mapping[str, Any]) -> list[ReferenceWork]:
    if not arguments:
        return planner.references(night)
    if set(arguments) != {"field", "band"}:
        raise ConfigError("action references takes a field and a band, or nothing")
    return planner.references_at(night, int(arguments["field"]), str(arguments["band"]))


def _injections(planner: Planner, night: int, arguments: Mapping[str, Any]) -> list[Any]:
    if unknown := set(arguments) - {"n_images", "seed"}:
        raise ConfigError(f"action inject: {sorted(unknown)[0]!r} is no argument; there are n_images and seed")
    if not arguments:
        return plan_nightly_injections(planner.repo, planner.settings, night)
    seed, n_images = int(arguments.get("seed", 1)), arguments.get("n_images")
    return plan_injections(planner.repo, planner.settings, night, n_images=n_images, seed=seed)


def link_movers(context: ActionContext) -> ActionResult:
    """Link the night's candidates that move into tracklets: done anew when more images were associated."""
    repo, night = context.repo, context.night
    settings = PipelineSettings.of(repo.camera.settings, repo.settings.parameters)
    planner = Planner(repo, settings)
    job_id = repo.ledger.submit("tracklets", planner.tracklets_key(night), day_obs=night)
    if not repo.ledger.start(job_id):
        return ActionResult("nothing", f"movers of {night}: linked already")
    state = Settling(repo, planner.adopt).settle([link_night(job_id, repo, settings, night)])[job_id]
    job = repo.ledger.job(job_id)
    if state is not JobState.DONE or job is None:
        return ActionResult("failed", f"movers of {night}: {job.reason if job else state}")
    n_tracklets = len(job.metrics["tracklets"])
    text = f"movers of {night}: {n_tracklets} tracklets of {job.metrics['n_dia_sources']} detections"
    return ActionResult("done", text, {"n_tracklets": n_tracklets})


def publish_alerts(context: ActionContext) -> ActionResult:
    """Send the alerts that wait, ask the users' filters and file the alerts."""
    if publish_night(context.repo, context.night):
        return ActionResult("done", "alerts that waited were sent, filters asked, the archive's table completed")
    raise TransientError("the brokers do not take alerts; they wait in the log")
