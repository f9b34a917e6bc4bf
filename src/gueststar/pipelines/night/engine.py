"""Where units of work run: in this process, or on Dask workers.

Outcomes come back as they finish. Nothing is remembered here: the ledger says what is still to do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, NamedTuple, Protocol

from gueststar.pipelines.night.outcome import Outcome


class Call(NamedTuple):
    """One unit of work: a module-level function that returns an Outcome, and its arguments."""

    job_id: int
    function: Callable[..., Outcome]
    arguments: tuple[Any, ...]


class Engine(Protocol):
    """Anything that runs calls and yields their outcomes, in any order."""

    def run(self, calls: Iterable[Call]) -> Iterator[Outcome]:
        """Yield an Outcome for every call."""
        ...


class InlineEngine(AbstractContextManager["InlineEngine"]):
    """Runs each call in this process, in order: one core, no overhead, easy to debug."""

    def run(self, calls: Iterable[Call]) -> Iterator[Outcome]:
        """Yield each call's outcome in turn."""
        for call in calls:
            yield call.function(*call.arguments)

    def __exit__(self, *_: object) -> None:
        return None


class DaskEngine(AbstractContextManager["DaskEngine"]):
    """Runs calls on a Dask cluster of single-threaded worker processes.

    At most two calls a worker are in flight, so memory stays bounded however long the night. A worker
    that dies takes only its own unit of work with it: that comes back as a failed outcome to be retried. One
    that takes more than its share of nine tenths of the machine's memory is ended.
    """

    def __init__(self, *, n_workers: int, scratch: str | None = None) -> None:
        import dask
        import psutil
        from distributed import Client, LocalCluster

        dask.config.set({"distributed.scheduler.allowed-failures": 0})
        self.n_workers = n_workers
        self._cluster = LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            memory_limit=int(0.9 * psutil.virtual_memory().total / n_workers),
            local_directory=scratch,
            silence_logs=50,
        )
        self._client = Client(self._cluster, set_as_default=False)

    def run(self, calls: Iterable[Call]) -> Iterator[Outcome]:
        """Yield outcomes as workers finish."""
        from distributed import as_completed

        waiting = iter(calls)
        flying: dict[Any, Call] = {}
        done = as_completed(loop=self._client.loop, raise_errors=False)

        def launch() -> bool:
            call = next(waiting, None)
            if call is None:
                return False
            future = self._client.submit(call.function, *call.arguments, pure=False, retries=0)
            flying[future.key] = call
            done.add(future)
            return True

        for _ in range(2 * self.n_workers):
            if not launch():
                break
        while flying:
            future = next(done)
            call = flying.pop(future.key)
            yield _outcome_of(call, future)
            future.release()
            launch()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        # On a busy machine the cluster may take longer to say goodbye; its workers end with this process anyway.
        with contextlib.suppress(TimeoutError):
            self._client.close(timeout=30)
        with contextlib.suppress(TimeoutError):
            self._cluster.close(timeout=30)


def _outcome_of(call: Call, future: Any) -> Outcome:
    from distributed.scheduler import KilledWorker

    from gueststar.core.errors import ConfigError, ServiceDown

    error = future.exception()
    if error is None:
        outcome: Outcome = future.result()
        return outcome
    if isinstance(error, ConfigError | ServiceDown):
        raise error
    if isinstance(error, KilledWorker):
        return Outcome(
            call.job_id, "failed", reason="the worker process died (memory, or killed)", error_kind="TransientError"
        )
    return Outcome(call.job_id, "failed", reason=f"{type(error).__name__}: {error}", error_kind="Bug")


def make_engine(*, n_workers: int, scratch: str | None = None) -> InlineEngine | DaskEngine:
    """Return an engine: inline for one worker, a local Dask cluster for more."""
    if n_workers <= 1:
        return InlineEngine()
    return DaskEngine(n_workers=n_workers, scratch=scratch)
