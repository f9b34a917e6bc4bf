"""The engine without workers: each call runs in this process."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from gueststar.pipelines.engine.contract import Call, run_through
from gueststar.pipelines.engine.outcome import Outcome
from gueststar.pipelines.engine.unit_log import told_of_unit
from gueststar.store.operator_state import WorkerState


class InlineEngine(AbstractContextManager["InlineEngine"]):
    """Runs each call in this process, in order, while it is collected: one core, no overhead, easy to debug."""

    def __init__(self) -> None:
        self._waiting: deque[Call] = deque()

    @property
    def n_free(self) -> int:
        """One while nothing waits."""
        return 0 if self._waiting else 1

    @property
    def in_hand(self) -> frozenset[int]:
        """The jobs that wait."""
        return frozenset(call.job_id for call in self._waiting)

    def submit(self, call: Call) -> None:
        """Keep a call until it is collected."""
        self._waiting.append(call)

    def collect(self, timeout_s: float = 0.0) -> list[Outcome]:
        """Run the call that waited longest and return its outcome; an empty list when none waits."""
        if not self._waiting:
            return []
        call = self._waiting.popleft()
        with told_of_unit(call.arguments):
            return [call.function(*call.arguments)]

    def warm(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call the function now."""
        function(*arguments)

    def workers(self) -> tuple[WorkerState, ...]:
        """Return this process: between collecting it does nothing."""
        return (WorkerState(name="inline", pid=os.getpid()),)

    def run(self, calls: Iterable[Call]) -> Iterator[Outcome]:
        """Yield each call's outcome in turn."""
        return run_through(self, calls)

    def close(self) -> None:
        """Forget what waits."""
        self._waiting.clear()

    def __exit__(self, *_: object) -> None:
        self.close()
