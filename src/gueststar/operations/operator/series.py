"""Work that no single exposure tells: planned as a whole, stage after stage, begun as workers become free."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future

from gueststar.operations.operator.planning import Plan
from gueststar.pipelines.night.stages import Work
from gueststar.store.ledger import JobState


class Series:
    """Stages one after the other; one whose work is to be tried again is planned again before the next."""

    def __init__(self, name: str, night: int, priority: int, plans: Iterable[Plan]) -> None:
        self.name, self.night, self.priority = name, night, priority
        self._plans = deque(plans)
        self._planned: Future[Sequence[Work]] | None = None
        self._running: set[int] = set()
        self._is_tried_again = False
        self.n_done = self.n_lost = 0
        """Units that succeeded, and units that did not."""

    @property
    def is_ended(self) -> bool:
        """Whether nothing is left to do."""
        return not self._plans and not self._running

    @property
    def is_being_planned(self) -> bool:
        """Whether its present stage is being planned."""
        return self._planned is not None

    def advance(self, begin: Callable[[Plan], Future[Sequence[Work]]]) -> Sequence[Work]:
        """Return the work that can be begun now; nothing while it is being planned or earlier work is not settled."""
        while self._plans and not self._running:
            if self._planned is None:
                self._planned = begin(self._plans[0])
            if not self._planned.done():
                return []
            planned, self._planned, self._is_tried_again = self._planned, None, False
            if works := planned.result():
                self._running = {work.job_id for work in works}
                return works
            self._plans.popleft()
        return []

    def settled(self, job_id: int, state: JobState) -> None:
        """Note what became of one unit of work."""
        if job_id not in self._running:
            return
        self._running.discard(job_id)
        self._is_tried_again |= state is JobState.PENDING
        self.n_done += state is JobState.DONE
        self.n_lost += state in (JobState.FAILED, JobState.QUARANTINED)
        if not self._running and not self._is_tried_again:
            self._plans.popleft()

    def begin_again(self, running: Collection[int]) -> None:
        """Plan the present stage anew when those of its jobs that are ``running`` have ended."""
        if self._planned is not None and self._planned.done():
            self._planned = None
        self._running &= set(running)
        self._is_tried_again = True

    def line(self) -> str:
        """Return what was done, in words."""
        parts = [f"{self.n_done} units" if self.n_done != 1 else "1 unit"] if self.n_done else []
        parts += [f"{self.n_lost} without success"] if self.n_lost else []
        return f"{self.name} of {self.night}: {', '.join(parts) or 'nothing to do'}"
