"""Planning beside the loop: what a whole night needs is asked of the registry while exposures go on their way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from gueststar.pipelines.night.plan import Planner
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.pipelines.night.stages import Work
from gueststar.store.repo import SurveyRepo

Plan = Callable[[Planner], Sequence[Work]]
"""Enters a stage's jobs in the ledger and returns their work."""


class Planning:
    """Carries out plans one after the other in a thread, each with a connection to the repository of its own."""

    def __init__(self, open_repo: Callable[[], SurveyRepo], *, ended: Callable[[], object]) -> None:
        self._open, self._ended = open_repo, ended
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="planning")

    def close(self) -> None:
        """Begin no further plan."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def begin(self, plan: Plan, settings: PipelineSettings, *, priority: int) -> Future[Sequence[Work]]:
        """Begin to plan; ``ended`` is called, in that thread, when the result is there."""
        future = self._thread.submit(self._plan, plan, settings, priority)
        future.add_done_callback(lambda _: self._ended())
        return future

    def _plan(self, plan: Plan, settings: PipelineSettings, priority: int) -> Sequence[Work]:
        with self._open() as repo:
            planner = Planner(repo, settings)
            planner.facts = {"priority": priority}
            return plan(planner)
