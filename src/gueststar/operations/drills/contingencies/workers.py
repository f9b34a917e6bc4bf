"""Workers that die or hang in the middle of a unit of work."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import psutil

from gueststar.core.errors import TransientError
from gueststar.operations.drills import faults
from gueststar.operations.drills.operating import Operating
from gueststar.operations.drills.stage import UNIT_LIMIT_S, Stage
from gueststar.operations.drills.verdict import Protocol


def worker_killed(stage: Stage, told: Protocol) -> None:
    """A worker is killed (as the kernel does when memory runs out) three times while it works."""
    root = stage.survey("worker-killed")
    with stage.operating(root, workers=2) as operator, stage.link(root) as link:
        killed: set[int] = set()
        for n in range(3):
            operator.wait_until(lambda n=n: link.n_delivered > 2 * n, "the next exposure has come")  # type: ignore[misc]
            victim = a_worker(operator, but=killed)
            killed.add(victim.pid)
            faults.kill(victim)
            told.did(f"killed worker {victim.pid}")
            told.expect("it is gone", is_met=faults.wait_until_gone(victim))
        told.did(f"waited {stage.wait_for_all(root, operator):.1f} s for the rest of the night")
        took = operator.wait_until(lambda: operator.n_workers == 2, "two workers are there again")
        told.did(f"two workers were there {took:.1f} s later")
        told.expect("the operator leaves when asked to", is_met=operator.stop() == 0)
    stage.judge(root, told)


def worker_hung(stage: Stage, told: Protocol) -> None:
    """A worker stops in the middle of its unit and never comes back."""
    root = stage.survey("worker-hung", {"cluster": {"unit_limit_s": UNIT_LIMIT_S}})
    with stage.operating(root, workers=2) as operator, stage.link(root):
        stage.wait_for(root, operator, 1)
        with hung_at_work(operator) as victim:
            told.did(f"stopped worker {victim.pid}; a unit may take {UNIT_LIMIT_S:.0f} s")
            took = stage.wait_for_all(root, operator)
            told.did(f"the night was done {took:.1f} s later")
            told.expect("the hung worker was ended", is_met=faults.wait_until_gone(victim))
        operator.stop()
    stage.judge(root, told)


@contextmanager
def hung_at_work(operator: Operating, *, timeout_s: float = 60.0) -> Iterator[psutil.Process]:
    """Stop a worker that has a unit; TransientError if there is none for ``timeout_s``.

    What the operator tells is a moment old: a worker that had ended its unit when it was stopped goes on, and another
    look is taken.
    """
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        victim = a_worker(operator)
        with faults.hung(victim):
            if has_a_unit(operator, victim, since=time.time() + 1.0):
                yield victim
                return
    raise TransientError(f"no worker was stopped in the middle of a unit within {timeout_s:.0f} s")


def has_a_unit(operator: Operating, worker: psutil.Process, *, since: float) -> bool:
    """Return whether a worker has a unit, by what the operator tells next after ``since`` (Unix time)."""
    operator.wait_until(lambda: (state := operator.state()) is not None and state.beat > since, "it tells how it is")
    state = operator.state()
    return state is not None and any(one.pid == worker.pid and one.job is not None for one in state.workers)


def a_worker(operator: Operating, *, but: Collection[int] = ()) -> psutil.Process:
    """Wait until there is a worker, none of those named by process, and return it: one that works if there is one."""
    found: list[int] = []

    def is_there() -> bool:
        state = operator.state()
        workers = sorted(state.workers if state else (), key=lambda worker: worker.job is None)
        found[:] = [
            worker.pid for worker in workers if worker.pid and worker.pid not in but and psutil.pid_exists(worker.pid)
        ]
        return bool(found)

    operator.wait_until(is_there, "a worker is there")
    return psutil.Process(found[0])
