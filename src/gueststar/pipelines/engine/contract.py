"""What an engine is: it takes calls, runs them somewhere, and gives their outcomes back in any order.

Nothing is remembered here: the ledger says what is still to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from gueststar.pipelines.engine.outcome import Outcome
from gueststar.store.operator_state import WorkerState


class Call(NamedTuple):
    """One unit of work: a module-level function that returns an Outcome, and its arguments."""

    job_id: int
    function: Callable[..., Outcome]
    arguments: tuple[Any, ...]
    what: str = ""
    """In words, for who watches: difference of exposure 20260101000012 detector 3."""
    priority: int = 0
    """Of those that wait for a worker the lowest is begun first."""


class Engine(Protocol):
    """Anything that runs calls."""

    @property
    def n_free(self) -> int:
        """How many calls it takes now: those that begin at once, and one more a worker that follows without a gap."""
        ...

    @property
    def in_hand(self) -> frozenset[int]:
        """The jobs that were submitted and whose outcomes have not been collected."""
        ...

    def submit(self, call: Call) -> None:
        """Take a call; it begins as soon as a worker is free. Returns at once."""
        ...

    def collect(self, timeout_s: float = 0.0) -> list[Outcome]:
        """Return the outcomes that came since the last time; wait up to ``timeout_s`` for the first one.

        Raises ConfigError or ServiceDown where a unit met it (it concerns more than that unit; the outcomes of
        others come with the next call), and ServiceDown when there is nothing left that could run anything.
        """
        ...

    def warm(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Let every worker call a function when it next has nothing to do; nothing comes back."""
        ...

    def workers(self) -> tuple[WorkerState, ...]:
        """Return what the workers are doing."""
        ...

    def run(self, calls: Iterable[Call]) -> Iterator[Outcome]:
        """Yield an Outcome for every call; never more calls in hand than the workers can take."""
        ...

    def close(self) -> None:
        """End the workers; what they were doing is lost."""
        ...


def run_through(engine: Engine, calls: Iterable[Call]) -> Iterator[Outcome]:
    """Yield the outcomes of calls that are taken from an iterable as the engine has room for them."""
    waiting, is_exhausted = iter(calls), False
    while True:
        while not is_exhausted and engine.n_free > 0:
            call = next(waiting, None)
            if call is None:
                is_exhausted = True
            else:
                engine.submit(call)
        if is_exhausted and not engine.in_hand:
            return
        yield from engine.collect(timeout_s=1.0)
