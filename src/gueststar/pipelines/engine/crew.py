"""The workers of a cluster and what each of them is doing.

All of it happens in one event loop: a coroutine a worker takes the next call when its worker is free, so a worker never
holds a second unit that would die with it, and one coroutine looks after them all.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gueststar
from gueststar.core.errors import ConfigError, GueststarError, ServiceDown
from gueststar.pipelines.engine.clusters import Cluster
from gueststar.pipelines.engine.contract import Call
from gueststar.pipelines.engine.on_worker import UNITS, introduce, run_sealed, sealed
from gueststar.pipelines.engine.outcome import Outcome

LOOK_S = 1.0
"""How often the workers are looked after while there is work."""
IDLE_LOOK_S = 5.0
"""How often while there is none."""
HEAL_S = 10.0
"""A worker that is missing for so long is asked for anew."""
INTRODUCTION_S = 120.0
"""How long a new worker may take to read the code."""
LAST_WORDS_S = 0.5
"""How long the reason of a worker's end may lag behind the news of it."""


@dataclass
class Worker:
    """A worker process and what it does."""

    address: str
    name: str = ""
    pid: int | None = None
    is_ready: bool = False
    call: Call | None = None
    since: float | None = None
    """When it began what it does, Unix time."""
    memory_mb: float | None = None
    errands: deque[Callable[[], Any]] = field(default_factory=deque)
    """What it is to do before the next unit."""
    missed: int = 0
    """How many times in a row the scheduler did not know it."""
    served: asyncio.Task[None] | None = None


class WorkerEnded(Exception):
    """A worker is of no use any more; why."""


class Crew:
    """Runs calls on the workers of a cluster."""

    def __init__(
        self, cluster: Cluster, *, unit_limit_s: float, probe: str | None,
        deliver: Callable[[Outcome | GueststarError | None], None], modules: tuple[str, ...] = UNITS,
    ) -> None:  # fmt: skip
        self.cluster, self.unit_limit_s, self.probe = cluster, unit_limit_s, probe
        self.modules, self.deliver = modules, deliver
        """Gets every outcome, an error that concerns more than one unit, and None when a worker became ready."""
        self.workers: dict[str, Worker] = {}
        self.refused: set[str] = set()
        """Workers that cannot be used."""
        self._waiting: deque[Call] = deque()
        self._news = asyncio.Condition()
        self._greedy: dict[str, float] = {}
        self._short_since: float | None = None

    @property
    def n_ready(self) -> int:
        """How many workers take calls."""
        return sum(worker.is_ready for worker in list(self.workers.values()))

    @property
    def is_connected(self) -> bool:
        """Whether the scheduler is there."""
        return bool(self.cluster.client.status == "running")

    async def take(self, call: Call) -> None:
        """Let the next free worker run a call, after those of the same priority that wait."""
        async with self._news:
            behind = (k for k, other in enumerate(self._waiting) if other.priority > call.priority)
            self._waiting.insert(next(behind, len(self._waiting)), call)
            self._news.notify()

    async def send_round(self, errand: Callable[[], Any]) -> None:
        """Let every worker do something before its next unit."""
        async with self._news:
            for worker in self.workers.values():
                worker.errands.append(errand)
            self._news.notify_all()

    async def disband(self) -> list[Call]:
        """Stop serving; return the calls that have not come to an end."""
        served = [worker.served for worker in self.workers.values() if worker.served is not None]
        for task in served:
            task.cancel()
        await asyncio.gather(*served, return_exceptions=True)
        self.workers.clear()
        return list(self._waiting)

    async def look_after(self) -> None:
        """Meet new workers, let go of lost ones, and ask for those that are missing; while the scheduler is there."""
        self.cluster.client.subscribe_topic("worker-restart-memory", self._hear_of_memory)
        while self.is_connected:
            with suppress(OSError, TimeoutError):
                identity = await self.cluster.client.scheduler.identity(n_workers=-1)
                self._compare(identity["workers"])
                self._heal()
            busy = self._waiting or self.n_ready < max(1, self.cluster.n_wanted) or self._is_busy
            await asyncio.sleep(LOOK_S if busy else IDLE_LOOK_S)

    @property
    def _is_busy(self) -> bool:
        return any(worker.call is not None for worker in self.workers.values())

    def _hear_of_memory(self, event: tuple[float, dict[str, Any]]) -> None:
        self._greedy[event[1]["worker"]] = event[1]["rss"]

    def _compare(self, present: dict[str, dict[str, Any]]) -> None:
        for address, facts in present.items():
            if address not in self.workers and address not in self.refused:
                worker = self.workers[address] = Worker(address, name=str(facts.get("name", address)))
                worker.served = asyncio.create_task(self._serve(worker, int(facts["nthreads"])))
            elif address in self.workers:
                self.workers[address].missed = 0
                self.workers[address].memory_mb = facts.get("metrics", {}).get("memory", 0) / 2**20 or None
        self.refused &= set(present)
        for worker in [worker for worker in self.workers.values() if worker.address not in present]:
            worker.missed += 1
            if worker.missed > 1 and worker.served is not None:
                worker.served.cancel()

    def _heal(self) -> None:
        if self.cluster.n_wanted <= len(self.workers):
            self._short_since = None
        elif self._short_since is None:
            self._short_since = time.monotonic()
        elif time.monotonic() - self._short_since > HEAL_S:
            self._short_since = time.monotonic()
            self.cluster.heal()

    async def _serve(self, worker: Worker, n_threads: int) -> None:
        """Give one worker calls until its end."""
        try:
            await self._meet(worker, n_threads)
            worker.is_ready = True
            self.deliver(None)
            while True:
                await self._next(worker)
        except WorkerEnded:
            pass
        except ConfigError as problem:
            self.refused.add(worker.address)
            self.deliver(problem)
        except asyncio.CancelledError:
            if worker.missed <= 1:
                raise
        finally:
            worker.is_ready = False
            self.workers.pop(worker.address, None)

    async def _meet(self, worker: Worker, n_threads: int) -> None:
        if n_threads != 1:
            raise ConfigError(
                f"worker {worker.address} has {n_threads} threads: start workers with --nthreads 1 --memory-limit ..."
            )
        future = self._sent(worker, partial(introduce, is_here=self.cluster.is_here), (self.probe, self.modules))
        try:
            facts = await asyncio.wait_for(future.result(), INTRODUCTION_S)
        except TimeoutError:
            await self._end(worker)
            raise WorkerEnded from None
        except Exception as problem:
            raise self._unusable(worker, problem) from problem
        finally:
            future.release()
        worker.name, worker.pid = f"{facts['host']}:{facts['pid']}", facts["pid"]
        if facts["version"] != gueststar.__version__:
            raise ConfigError(
                f"worker {worker.name} has gueststar {facts['version']}, this is {gueststar.__version__}: "
                "install the same version everywhere"
            )
        if not facts["sees"]:
            raise ConfigError(
                f"worker {worker.name} does not see {self.probe}: workers need the repository's folder under the "
                "same path (a shared file system)"
            )

    def _unusable(self, worker: Worker, problem: Exception) -> Exception:
        from distributed.scheduler import KilledWorker

        if isinstance(problem, KilledWorker | CancelledError | OSError):
            return WorkerEnded()
        return ConfigError(f"worker {worker.name} cannot run gueststar: {type(problem).__name__}: {problem}")

    async def _next(self, worker: Worker) -> None:
        """Wait for something to do, and do it."""
        async with self._news:
            await self._news.wait_for(lambda: self._waiting or worker.errands)
            if worker.errands:
                errand = worker.errands.popleft()
                call = None
            else:
                call = self._waiting.popleft()
                worker.call, worker.since = call, time.time()
        if call is None:
            await self._run_errand(worker, errand)
            return
        try:
            await self._run(worker, call)
        except asyncio.CancelledError:
            if worker.call is not None and worker.missed > 1:
                self._fail(worker, call, "the worker left the cluster")
            elif worker.call is not None:
                self._waiting.appendleft(call)
            raise
        finally:
            worker.call = worker.since = None

    async def _run_errand(self, worker: Worker, errand: Callable[[], Any]) -> None:
        future = self._sent(worker, _without_result, (errand,))
        try:
            await asyncio.wait_for(future.result(), self.unit_limit_s)
        except TimeoutError:
            await self._end(worker)
            raise WorkerEnded from None
        except Exception as problem:
            unusable = self._unusable(worker, problem)
            if isinstance(unusable, WorkerEnded):
                raise unusable from problem  # anything else: an errand that fails changes nothing
        finally:
            future.release()

    async def _run(self, worker: Worker, call: Call) -> None:
        from distributed.scheduler import KilledWorker

        future = self._sent(worker, call.function, call.arguments)
        try:
            outcome = await asyncio.wait_for(future.result(), self.unit_limit_s)
            worker.call = None
            self.deliver(outcome)
        except TimeoutError:
            self._fail(worker, call, f"took longer than {self.unit_limit_s:g} s (operation.cluster.unit_limit_s)")
            await self._end(worker)
            raise WorkerEnded from None
        except KilledWorker:
            await asyncio.sleep(LAST_WORDS_S)
            self._fail(worker, call, self._why_killed(worker))
            raise WorkerEnded from None
        except CancelledError:  # the scheduler went away, and the unit with it: it is not the unit's fault
            await self._give_back(worker, call)
            raise WorkerEnded from None
        except (ConfigError, ServiceDown) as problem:
            problem.job_id = call.job_id  # type: ignore[union-attr]
            worker.call = None
            self.deliver(problem)
        except OSError as problem:  # its result was lost on the way
            self._fail(worker, call, f"the worker did not hand over its result: {problem}")
        except Exception as error:
            self._fail(worker, call, f"{type(error).__name__}: {error}", kind="Bug")
        finally:
            future.release()

    def _sent(self, worker: Worker, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        return self.cluster.client.submit(
            run_sealed,
            sealed(function, arguments),
            pure=False,
            retries=0,
            workers=[worker.address],
            allow_other_workers=False,
        )

    async def _give_back(self, worker: Worker, call: Call) -> None:
        worker.call = None
        async with self._news:
            self._waiting.appendleft(call)
            self._news.notify()

    def _fail(self, worker: Worker, call: Call, reason: str, *, kind: str = "TransientError") -> None:
        wall_s = round(time.time() - worker.since, 3) if worker.since else 0.0
        worker.call = None
        self.deliver(Outcome(call.job_id, "failed", reason=reason, error_kind=kind, worker=worker.name, wall_s=wall_s))

    def _why_killed(self, worker: Worker) -> str:
        taken = self._greedy.pop(worker.address, None)
        if taken is None:
            return "the worker process died while it ran (killed from outside, or out of memory)"
        return f"took {taken / 1e9:.1f} GB of memory, more than a worker has (operation.cluster.memory_gb)"

    async def _end(self, worker: Worker) -> None:
        """Have a worker's process ended, whatever it is doing; its nanny puts another in its place."""
        self.refused.add(worker.address)
        if self.cluster.is_here and worker.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
            return
        end = self.cluster.client.scheduler.restart_workers
        self._ends = asyncio.create_task(_suppressed(partial(
            end, workers=[worker.address], timeout=30, wait_for_workers=False, on_error="return",
            stimulus_id=f"unit-limit-{time.time()}",
        )))  # fmt: skip


async def _suppressed(ask: Callable[[], Any]) -> None:
    with suppress(Exception):  # a worker that cannot be reached is let go by the scheduler
        await ask()


def _without_result(errand: Callable[[], Any]) -> None:
    errand()
