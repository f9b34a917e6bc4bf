"""A worker that can no longer reach the scheduler."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from gueststar.operations.drills.networks import INSIDE, OUTSIDE, Namespace, namespace
from gueststar.operations.drills.operating import Operating
from gueststar.operations.drills.stage import Stage
from gueststar.operations.drills.verdict import Protocol
from gueststar.operations.drills.world import one_thread_each

UNIT_LIMIT_S = 10.0


def worker_partition(stage: Stage, told: Protocol) -> None:
    """One of two workers, in a network of its own, is cut off in the middle of its work; later it is joined again."""
    with namespace() as network, ExitStack() as stack:
        address = f"tcp://{OUTSIDE}:{_free_port()}"
        stack.enter_context(_running(["dask_scheduler", "--host", OUTSIDE, "--port", address.rsplit(":", 1)[1]]))
        stack.enter_context(_running(_worker(address, OUTSIDE)))
        stack.enter_context(_running(_worker(address, INSIDE), network))
        cluster = {"kind": "scheduler", "address": address, "workers": 2, "unit_limit_s": UNIT_LIMIT_S}
        root = stage.survey("worker-partition", {"cluster": cluster})
        with stage.operating(root, workers=2) as operator, stage.link(root):
            operator.wait_until(lambda: _n_workers(operator) == 2, "both workers are there", timeout_s=300)
            stage.wait_for(root, operator, 1)
            network.cut()
            told.did("cut one worker off")
            told.did(f"the night was done {stage.wait_for_all(root, operator):.1f} s later")
            network.join()
            told.did("joined it again")
            operator.stop()
        stage.judge(root, told)


def _n_workers(operator: Operating) -> int:
    state = operator.state()
    return len(state.workers) if state else 0


def _worker(address: str, host: str) -> list[str]:
    return ["dask_worker", address, "--host", host, "--nthreads", "1", "--memory-limit", "3GB", "--no-dashboard"]


@contextmanager
def _running(words: list[str], network: Namespace | None = None) -> Iterator[None]:
    """Run a program of Dask, in a network of its own if one is given; ended with the ``with`` statement."""
    command = [sys.executable, "-m", f"distributed.cli.{words[0]}", *words[1:]]
    process = subprocess.Popen(
        network.command(command) if network else command, env=one_thread_each(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
