"""Workers that die or hang in the middle of a unit of work."""

from __future__ import annotations

import psutil

from gueststar.operations.drills import faults
from gueststar.operations.drills.operating import Operating
from gueststar.operations.drills.stage import Stage
from gueststar.operations.drills.verdict import Protocol


def worker_killed(stage: Stage, told: Protocol) -> None:
    """A worker is killed (as the kernel does when memory runs out) three times while it works."""
    root = stage.survey("worker-killed")
    with stage.operating(root, workers=2) as operator, stage.link(root):
        for n in range(3):
            stage.wait_for(root, operator, 2 * n)
            victim = busy_worker(operator)
            faults.kill(victim)
            told.did(f"killed worker {victim.pid}")
        told.did(f"waited {stage.wait_for_all(root, operator):.1f} s for the rest of the night")
        told.expect("two workers are there at the end", is_met=len(operator.workers()) == 2)
        told.expect("the operator leaves when asked to", is_met=operator.stop() == 0)
    stage.judge(root, told)


def worker_hung(stage: Stage, told: Protocol) -> None:
    """A worker stops in the middle of its unit and never comes back."""
    limit_s = 6.0
    root = stage.survey("worker-hung", {"cluster": {"unit_limit_s": limit_s}})
    with stage.operating(root, workers=2) as operator, stage.link(root):
        stage.wait_for(root, operator, 1)
        victim = busy_worker(operator)
        with faults.hung(victim):
            told.did(f"stopped worker {victim.pid}; a unit may take {limit_s:.0f} s")
            took = stage.wait_for_all(root, operator)
            told.did(f"the night was done {took:.1f} s later")
            told.expect("the hung worker was ended", is_met=faults.wait_until_gone(victim))
        operator.stop()
    stage.judge(root, told)


def busy_worker(operator: Operating, *, must_be_busy: bool = True) -> psutil.Process:
    """Wait until there is a worker (that has work), and return it."""
    found: list[int] = []

    def is_there() -> bool:
        state = operator.state()
        workers = state.workers if state else ()
        found[:] = [w.pid for w in workers if w.pid and (w.job is not None or not must_be_busy)]
        return bool(found) and psutil.pid_exists(found[0])

    operator.wait_until(is_there, "a worker is busy", timeout_s=300)
    return psutil.Process(found[0])
