"""What the operator tells of itself: a picture of the moment, once a second, or every two where nothing is going on."""

from __future__ import annotations

import logging
import os
import socket
import time
from typing import TYPE_CHECKING

from gueststar import __version__
from gueststar.operations.operator.facts import night_of
from gueststar.store.operator_state import OperatorState, WorkerState, write_operator_state

if TYPE_CHECKING:
    from gueststar.operations.operator.daemon import Operator

LOG = logging.getLogger(__name__)


class Beat:
    """Writes the picture; a disk that does not take it stops nothing."""

    def __init__(self, operator: Operator, *, every_s: float = 1.0) -> None:
        self.operator, self.every_s = operator, every_s
        self.last_exposure: int | None = None
        self._written = 0.0

    def write(self, *, is_forced: bool = False) -> None:
        """Write the picture if the last one is older than a second."""
        if not is_forced and time.monotonic() - self._written < self.every_s:
            return
        self._written = time.monotonic()
        try:
            write_operator_state(self.operator.repo.root, self.picture())
        except OSError as problem:
            LOG.debug("the state is not written: %s", problem)
        self.operator.parts.notify("WATCHDOG=1")

    def picture(self) -> OperatorState:
        """Return how it stands."""
        operator = self.operator
        standing = operator.standing
        now = standing.clock.now()
        return OperatorState(
            pid=os.getpid(), host=socket.gethostname(), version=__version__, started=operator.started,
            beat=time.time(), clock=now, night=night_of(now, operator.repo.camera), mode=standing.mode,
            why=standing.why, queued=operator.work.queue.counts(), running=len(operator.running),
            landing={str(i.settings.path): i.n_waiting + i.n_arriving for i in operator.parts.intakes},
            workers=self._workers(), last_exposure=self.last_exposure, last_alert=operator.publishing.last_alert,
            recent=tuple(reversed(standing.recent)),
        )  # fmt: skip

    def _workers(self) -> tuple[WorkerState, ...]:
        told = []
        for worker in self.operator.engine.workers():
            unit = self.operator.running.get(worker.job or 0)
            told.append(worker.model_copy(update={"what": unit.words()}) if unit else worker)
        return tuple(told)
