"""A worker that can no longer reach the scheduler."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from gueststar.core.errors import ConfigError
from gueststar.operations.drills.network import network, why_not
from gueststar.operations.drills.stage import UNIT_LIMIT_S, Stage
from gueststar.operations.drills.verdict import Protocol
from gueststar.operations.drills.world import one_thread_each
from gueststar.stream.broker import free_ports

WORKER = ("--nthreads", "1", "--memory-limit", "3GB")


def worker_partition(stage: Stage, told: Protocol) -> None:
    """One of two workers, on a machine of its own, is cut off in the middle of its work; later it is joined again."""
    if reason := why_not():
        raise ConfigError(f"no machine of its own for a worker: {reason}")
    with network() as net, ExitStack() as stack:
        far, address = net.add("far"), f"tcp://{net.here}:{free_ports(1)[0]}"
        port = address.rsplit(":", 1)[1]
        stack.enter_context(_running(subprocess.Popen, "dask_scheduler", "--host", net.here, "--port", port))
        stack.enter_context(_running(subprocess.Popen, "dask_worker", address, "--host", net.here, *WORKER))
        start = partial(net.start, "far")
        stack.enter_context(_running(start, "dask_worker", address, "--host", far, *WORKER))
        cluster = {"kind": "scheduler", "address": address, "workers": 2, "unit_limit_s": UNIT_LIMIT_S}
        root = stage.survey("worker-partition", {"cluster": cluster})
        with stage.operating(root, workers=2) as operator, stage.link(root):
            operator.wait_until(lambda: operator.n_workers == 2, "both workers are there")
            stage.wait_for(root, operator, 1)
            net.cut("far")
            told.did("cut one worker off")
            told.did(f"the night was done {stage.wait_for_all(root, operator):.1f} s later")
            net.mend("far")
            told.did("joined it again")
            operator.stop()
        stage.judge(root, told)


@contextmanager
def _running(start: Callable[..., subprocess.Popen[bytes]], program: str, *words: str) -> Iterator[None]:
    """Run a program of Dask; ended with the ``with`` statement."""
    process = start(
        [sys.executable, "-m", f"distributed.cli.{program}", "--no-dashboard", *words], env=one_thread_each(),
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
