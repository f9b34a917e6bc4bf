"""The engine on Dask workers: verbs for a thread that waits for nobody, over an event loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from gueststar.core.errors import ConfigError, GueststarError, ServiceDown
from gueststar.pipelines.engine.clusters import Cluster, load_package, open_cluster, with_workers
from gueststar.pipelines.engine.contract import Call, run_through
from gueststar.pipelines.engine.crew import Crew
from gueststar.pipelines.engine.on_worker import UNITS
from gueststar.pipelines.engine.outcome import Outcome
from gueststar.store.operation_settings import ClusterSettings
from gueststar.store.operator_state import WorkerState

PATIENCE_S = 600.0
"""With work waiting and no worker for so long, the engine says that it cannot go on."""
REOPEN_S = (1.0, 30.0)
"""First and longest pause between attempts to come back to a scheduler that went away."""


class DaskEngine(AbstractContextManager["DaskEngine"]):
    """Runs calls on a Dask cluster of single-threaded worker processes.

    A worker has one unit at a time: when it dies, takes more memory than its share or hangs, that unit comes back as a
    failed outcome to be tried again, and no other is touched. Beyond those that run, one unit a worker may wait
    here, so that none is idle while outcomes are written down. When the scheduler goes away, the engine connects (or
    builds) anew and runs again what it had in hand.
    """

    def __init__(
        self,
        settings: ClusterSettings,
        *,
        scratch: str | None = None,
        patience_s: float = PATIENCE_S,
        modules: tuple[str, ...] = UNITS,
    ) -> None:
        self.settings, self.scratch, self.patience_s = with_workers(settings), scratch, patience_s
        load_package(settings.kind)
        self._modules = modules
        self._held: Counter[int] = Counter()
        self._came: queue.SimpleQueue[Outcome | GueststarError | None] = queue.SimpleQueue()
        self._probe = _probe_in(scratch)
        self._crew: Crew | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine", daemon=True)
        self._thread.start()
        self._lonely_since = time.monotonic()
        try:
            self._crew = self._ask(self._open())
        except BaseException:
            self._stop()
            raise
        self._keeper = asyncio.run_coroutine_threadsafe(self._keep(), self._loop)

    @property
    def n_free(self) -> int:
        """How many calls it takes now: two a worker, one that runs and one that follows it without a gap."""
        n_ready = self._crew.n_ready if self._crew is not None else 0
        return max(0, 2 * n_ready - self._held.total())

    @property
    def in_hand(self) -> frozenset[int]:
        """The jobs that were submitted and whose outcomes have not been collected."""
        return frozenset(self._held)

    def submit(self, call: Call) -> None:
        """Take a call; it begins as soon as a worker is free."""
        self._held[call.job_id] += 1
        asyncio.run_coroutine_threadsafe(self._take(call), self._loop)

    def collect(self, timeout_s: float = 0.0) -> list[Outcome]:
        """Return what came since the last time; wait up to ``timeout_s`` for the first."""
        outcomes: list[Outcome] = []
        block = timeout_s > 0
        while True:
            try:
                item = self._came.get(block, timeout_s if block else None)
            except queue.Empty:
                break
            block = False
            if isinstance(item, Outcome):
                self._let_go(item.job_id)
                outcomes.append(item)
            elif isinstance(item, GueststarError):
                if outcomes:
                    self._came.put(item)
                    break
                self._let_go(getattr(item, "job_id", None))
                raise item
        self._check_that_somebody_works()
        return outcomes

    def warm(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Let every worker call a function when it next has nothing to do; what it returns or raises is dropped."""
        if self._crew is not None:
            asyncio.run_coroutine_threadsafe(self._crew.send_round(partial(function, *arguments)), self._loop)

    def workers(self) -> tuple[WorkerState, ...]:
        """Return what the workers are doing."""
        crew = self._crew
        states = []
        for worker in list(crew.workers.values()) if crew is not None else []:
            call, words = worker.call, "" if worker.is_ready else "starting"
            if call is not None:
                words = call.what or getattr(call.function, "__name__", "")
            states.append(
                WorkerState(
                    name=worker.name, pid=worker.pid, job=call.job_id if call else None, what=words,
                    since=worker.since, memory_mb=worker.memory_mb,
                )
            )  # fmt: skip
        return tuple(sorted(states, key=lambda state: state.name))

    def run(self, calls: Iterable[Call]) -> Iterator[Outcome]:
        """Yield outcomes as workers finish."""
        return run_through(self, calls)

    def close(self) -> None:
        """End the workers, or let go of them where they are somebody else's."""
        if self._loop.is_closed():
            return
        self._keeper.cancel()
        with contextlib.suppress(TimeoutError):
            self._ask(self._close(), timeout_s=60)
        self._stop()

    def __exit__(self, *_: object) -> None:
        self.close()

    # In the event loop

    async def _open(self) -> Crew:
        cluster = await open_cluster(self.settings, scratch=self.scratch)
        return self._crew_of(cluster)

    def _crew_of(self, cluster: Cluster) -> Crew:
        return Crew(
            cluster, unit_limit_s=self.settings.unit_limit_s, probe=self._probe, deliver=self._came.put,
            modules=self._modules,
        )  # fmt: skip

    async def _take(self, call: Call) -> None:
        if self._crew is None:
            self._homeless.append(call)
        else:
            await self._crew.take(call)

    async def _keep(self) -> None:
        """Look after the workers; when their scheduler goes away, come back to it or build another."""
        self._homeless: list[Call] = []
        while True:
            assert self._crew is not None
            await self._crew.look_after()
            crew, self._crew = self._crew, None
            self._homeless += await crew.disband()
            await crew.cluster.close()
            reopened = await self._reopen()
            for call in self._homeless:
                await reopened.take(call)
            self._homeless, self._crew = [], reopened

    async def _reopen(self) -> Crew:
        pause, longest = REOPEN_S
        since = time.monotonic()
        while True:
            try:
                return await self._open()
            except (ConfigError, ServiceDown) as problem:
                if time.monotonic() - since > self.patience_s:
                    self._came.put(ServiceDown(f"the workers are away: {problem}"))
                    since = time.monotonic()
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    async def _close(self) -> None:
        if self._crew is not None:
            await self._crew.disband()
            await self._crew.cluster.close()

    # In the thread of who calls

    def _check_that_somebody_works(self) -> None:
        if self._keeper.done():
            self._keeper.result()
        if not self._held or (self._crew is not None and self._crew.n_ready):
            self._lonely_since = time.monotonic()
        elif time.monotonic() - self._lonely_since > self.patience_s:
            self._lonely_since = time.monotonic()
            raise ServiceDown(f"no worker of {self.settings.kind} has come for {self.patience_s:.0f} s")

    def _let_go(self, job_id: int | None) -> None:
        if job_id is not None and job_id in self._held:
            self._held[job_id] -= 1
            self._held += Counter()

    def _ask(self, coroutine: Coroutine[Any, Any, Any], *, timeout_s: float | None = None) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout_s)

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        if not self._thread.is_alive():
            self._loop.close()
        if self._probe is not None:
            Path(self._probe).unlink(missing_ok=True)


def _probe_in(scratch: str | None) -> str | None:
    """Write a small file that every worker must see; None where there is no place for it."""
    if scratch is None:
        return None
    folder = Path(scratch)
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f"seen-by-all-workers-{uuid.uuid4().hex}"
    probe.write_text("workers that see this file share the repository's file system\n")
    return str(probe)


def make_engine(settings: ClusterSettings, *, scratch: str | None = None) -> DaskEngine:
    """Return an engine of worker processes; ``scratch`` is a folder within the repository.

    Raises ConfigError where what it needs is missing, ServiceDown where a scheduler does not answer.
    """
    return DaskEngine(settings, scratch=scratch)
