"""An engine that is opened when there is something to do: a run that finds nothing to do starts no worker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from gueststar.pipelines.engine.contract import Call, Engine, run_through
from gueststar.pipelines.engine.outcome import Outcome
from gueststar.store.operator_state import WorkerState


class OnDemandEngine(AbstractContextManager["OnDemandEngine"]):
    """Stands for an engine, which the first call opens; what opening raises, that call's `submit` raises."""

    def __init__(self, make: Callable[[], Engine]) -> None:
        self._make = make
        self._engine: Engine | None = None

    @property
    def n_free(self) -> int:
        """One before the engine is open, then what it says."""
        return 1 if self._engine is None else self._engine.n_free

    @property
    def in_hand(self) -> frozenset[int]:
        """The jobs that were submitted and whose outcomes have not been collected."""
        return frozenset() if self._engine is None else self._engine.in_hand

    def submit(self, call: Call) -> None:
        """Hand a call to the engine, which is opened for the first one."""
        if self._engine is None:
            self._engine = self._make()
        self._engine.submit(call)

    def collect(self, timeout_s: float = 0.0) -> list[Outcome]:
        """Return the outcomes that came since the last time; at once where nothing was ever submitted."""
        return [] if self._engine is None else self._engine.collect(timeout_s)

    def warm(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Let every worker there is call a function when it next has nothing to do."""
        if self._engine is not None:
            self._engine.warm(function, *arguments)

    def workers(self) -> tuple[WorkerState, ...]:
        """Return what the workers are doing; none before the first call."""
        return () if self._engine is None else self._engine.workers()

    def run(self, calls: Iterable[Call]) -> Iterator[Outcome]:
        """Yield outcomes as workers finish."""
        return run_through(self, calls)

    def close(self) -> None:
        """Close the engine if it was opened."""
        if self._engine is not None:
            self._engine.close()

    def __exit__(self, *_: object) -> None:
        self.close()
