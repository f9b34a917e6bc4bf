"""Units that workers have, and outcomes that are not written down yet: what must not be forgotten in between."""

from __future__ import annotations

from collections import deque

from gueststar.core.errors import ConfigError, ServiceDown
from gueststar.operations.operator.alarming import Alarming
from gueststar.operations.operator.night_work import NightWork
from gueststar.operations.operator.queue import Unit
from gueststar.operations.operator.unit_lines import tell_of_units
from gueststar.pipelines.engine.contract import Call, Engine
from gueststar.pipelines.engine.outcome import Outcome

SETTLE_AT_ONCE = 12
"""Most outcomes committed to the registry together."""

_OF_THE_WORLD = "VolumeError"


class Flight:
    """Between the queue and the ledger."""

    def __init__(self, engine: Engine, alarming: Alarming) -> None:
        self.engine, self.alarming = engine, alarming
        self.flying: dict[int, Unit] = {}
        """Job -> unit that a worker has."""
        self._unsettled: deque[tuple[Unit, Outcome]] = deque()

    @property
    def is_empty(self) -> bool:
        """Whether nothing runs or waits to be written down."""
        return not self.flying and not self._unsettled

    @property
    def jobs(self) -> set[int]:
        """The jobs that are not forgotten."""
        return {*self.flying, *(outcome.job_id for _, outcome in self._unsettled)}

    def begin(self, unit: Unit, call: Call) -> None:
        """Hand a call to the workers."""
        self.flying[call.job_id] = unit
        self.engine.submit(call)

    def collect(self, *, timeout_s: float) -> bool:
        """Fetch what ended from the workers; whether anything did."""
        if not self.flying:
            return False
        outcomes = self._outcomes(timeout_s)
        for outcome in outcomes:
            unit = self.flying.pop(outcome.job_id, None)
            if unit is not None:
                self._unsettled.append((unit, outcome))
        return bool(outcomes)

    def _outcomes(self, timeout_s: float) -> list[Outcome]:
        """Return what ended. A unit that met what a person must mend is held; one that met the world's is put off."""
        try:
            return self.engine.collect(timeout_s)
        except ConfigError as problem:
            job_id = getattr(problem, "job_id", None)
            self.alarming.wrong("rules_invalid", "a unit of work", str(problem), "critical")
            return [] if job_id is None else [Outcome(job_id, "held", reason=str(problem), error_kind="ConfigError")]
        except ServiceDown as problem:
            job_id = getattr(problem, "job_id", None)
            if job_id not in self.flying:
                raise
            return [Outcome(job_id, "failed", reason=str(problem), error_kind=_OF_THE_WORLD)]

    def settle(self, work: NightWork) -> bool:
        """Write down what ended; what could not be stays here. Returns whether the world was in the way of a unit."""
        is_in_trouble = False
        while self._unsettled:
            batch = [self._unsettled[k] for k in range(min(SETTLE_AT_ONCE, len(self._unsettled)))]
            of_the_world = [(unit, outcome) for unit, outcome in batch if outcome.error_kind == _OF_THE_WORLD]
            work.settle([pair for pair in batch if pair not in of_the_world])
            for unit, outcome in of_the_world:
                work.put_back(unit, outcome.job_id, outcome.reason)
                is_in_trouble = True
            for _ in batch:
                self._unsettled.popleft()
            tell_of_units(work.ledger, batch)
        return is_in_trouble
