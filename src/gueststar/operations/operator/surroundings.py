"""What an operator looks after besides the work itself: the next pointing, the machine's clock, alarms, other hands."""

from __future__ import annotations

import logging
import threading

from gueststar.core.errors import GueststarError
from gueststar.operations.operator.night_work import NightWork
from gueststar.operations.operator.parts import Parts
from gueststar.operations.operator.prewarming import Prewarming
from gueststar.operations.operator.standing import Standing
from gueststar.operations.operator.steadiness import Steadiness
from gueststar.store.ledger import ExposureRow
from gueststar.store.repo import SurveyRepo

LOG = logging.getLogger(__name__)

ALARMS_EVERY_S = 30.0
"""How the survey fares is judged, and alarms are sent, this often."""
ALARMS_AT_REST_S = 60.0
"""The same while nothing is worked on."""
PREWARM_EVERY_S = 15.0
"""The next pointing is looked for this often after exposures came."""
STEPPED_FOR_S = 900.0
"""A step of the machine's clock stays an alarm for so long."""
LOOK_EVERY_S = 60.0
"""The ledger is looked through this often for exposures that somebody else took in."""


class Surroundings:
    """Looks around every so often."""

    def __init__(self, standing: Standing, work: NightWork, parts: Parts) -> None:
        self.standing, self.work, self.parts = standing, work, parts
        self.prewarming = Prewarming(standing.repo, parts.engine, clock=standing.clock)
        self.last_received: ExposureRow | None = None
        self._steadiness = Steadiness(standing.clock)
        self._watching: threading.Thread | None = None

    def use(self, repo: SurveyRepo) -> None:
        """Look at a repository that was opened anew."""
        self.prewarming.use(repo)

    def look(self) -> None:
        """Do what is due: read ahead, find exposures that somebody else took in, let alarms leave."""
        standing = self.standing
        self._watch_clock()
        if self.last_received is not None and standing.is_due("prewarm", PREWARM_EVERY_S):
            self._prewarm()
        if standing.is_due("look", LOOK_EVERY_S):
            self._prewarm()
            self.work.planner.look_again()
            n_found = self.work.look_for_exposures()
            if n_found:
                standing.say(f"{n_found} exposures that were taken in beside")
        every_s = ALARMS_EVERY_S if self.work.hands or standing.mode != "running" else ALARMS_AT_REST_S
        if standing.is_due("alarms", every_s) and (self._watching is None or not self._watching.is_alive()):
            self._watching = threading.Thread(target=self._watch, name="watching", daemon=True)
            self._watching.start()

    def close(self, *, patience_s: float) -> None:
        """Let a look at the survey come to its end, for a bounded time."""
        if self._watching is not None:
            self._watching.join(timeout=patience_s)

    def _prewarm(self) -> None:
        if not self.standing.repo.settings.operation.queue.do_prewarm:
            return
        if n_files := self.prewarming.turn(self.last_received):
            self.standing.say(f"{n_files} files of the next pointing are read ahead")

    def _watch_clock(self) -> None:
        """Say when the machine's clock was set: durations do not follow it, latencies do."""
        standing = self.standing
        if step := self._steadiness.step_s():
            text = f"the machine's clock was set by {step:+.0f} s: latencies of this time are wrong"
            standing.repo.ledger.event("clock", "", text, step_s=step)
            standing.say(text)
            standing.alarming.wrong("clock_stepped", "", text, "warning")
            standing.put_off("clock", STEPPED_FOR_S)
        elif standing.is_due("clock", STEPPED_FOR_S):
            standing.alarming.right("clock_stepped", "")

    def _watch(self) -> None:
        """Judge how the survey fares, and let alarms leave; troubles with that stop nothing."""
        try:
            self.parts.watch(self.standing.repo)
        except (GueststarError, OSError) as problem:
            LOG.warning("alarms wait: %s", problem)
