"""Workers of a scheduler that somebody else runs: it may end, a cable may be pulled, and what is wrong is said."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cloudpickle
import pytest

from gueststar.core.errors import ConfigError
from gueststar.operations.drills.network import network, why_not
from gueststar.pipelines.engine.contract import Call
from gueststar.pipelines.engine.dask_engine import DaskEngine
from gueststar.pipelines.engine.on_worker import end_with_parent
from gueststar.store.operation_settings import ClusterSettings
from tests.integration import engine_units as units
from tests.slurm_cluster import free_ports

MODULES = ("gueststar.pipelines.engine.outcome",)
QUICK = {
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "11s",
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
    "OMP_NUM_THREADS": "1",
}
"""A scheduler that notices silence soon."""


@contextmanager
def program(
    start: Callable[..., subprocess.Popen[bytes]], *words: str, folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run one of Dask's programs, in a group of its own, until the end of the ``with`` statement."""
    with (folder / "dask.log").open("ab") as log:
        process = start(
            [sys.executable, "-m", *words], cwd=folder, stdout=log, stderr=log, env={**os.environ, **QUICK},
            preexec_fn=end_with_parent, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def scheduler(host: str, port: int) -> tuple[str, ...]:
    return ("distributed.cli.dask_scheduler", "--host", host, "--port", str(port), "--no-dashboard", "--no-show")


def worker(address: str, *, n_threads: int = 1) -> tuple[str, ...]:
    return (
        "distributed.cli.dask_worker", address, "--nthreads", str(n_threads), "--nworkers", "1", "--no-dashboard",
        "--memory-limit", "1GB",
    )  # fmt: skip


def elsewhere(address: str, **settings: object) -> ClusterSettings:
    cloudpickle.register_pickle_by_value(units)  # workers need not find the tests
    return ClusterSettings.model_validate({"kind": "scheduler", "address": address, **settings})


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"


def n_free(engine: DaskEngine, n: int) -> Callable[[], bool]:
    return lambda: engine.collect(0.1) == [] and engine.n_free == n


@pytest.mark.slow
def test_units_run_again_when_the_scheduler_came_back(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    address = f"tcp://127.0.0.1:{port}"
    with ExitStack() as stack:
        first = stack.enter_context(program(subprocess.Popen, *scheduler("127.0.0.1", port), folder=tmp_path))
        stack.enter_context(program(subprocess.Popen, *worker(address), folder=tmp_path))
        engine = stack.enter_context(DaskEngine(elsewhere(address), scratch=str(tmp_path), modules=MODULES))
        wait_for(n_free(engine, 2))
        for n in (1, 2):
            engine.submit(Call(n, units.take_time, (n, 3.0)))
        time.sleep(0.5)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        assert engine.collect(0.5) == []
        stack.enter_context(program(subprocess.Popen, *scheduler("127.0.0.1", port), folder=tmp_path))
        stack.enter_context(program(subprocess.Popen, *worker(address), folder=tmp_path))
        found = []
        wait_for(lambda: bool(found.extend(engine.collect(0.5)) or len(found) == 2))
        assert {outcome.job_id: outcome.state for outcome in found} == {1: "done", 2: "done"}


@pytest.mark.slow
def test_a_worker_with_more_threads_is_refused(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    address = f"tcp://127.0.0.1:{port}"
    with ExitStack() as stack:
        stack.enter_context(program(subprocess.Popen, *scheduler("127.0.0.1", port), folder=tmp_path))
        stack.enter_context(program(subprocess.Popen, *worker(address, n_threads=2), folder=tmp_path))
        engine = stack.enter_context(DaskEngine(elsewhere(address), scratch=str(tmp_path), modules=MODULES))
        with pytest.raises(ConfigError, match="has 2 threads: start workers with --nthreads 1"):
            wait_for(lambda: engine.collect(1.0) == [()])


@pytest.mark.slow
@pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")
def test_a_worker_without_the_repositorys_file_system_is_refused(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    address = f"tcp://127.0.0.1:{port}"
    hidden = tmp_path / "scratch"
    hidden.mkdir()

    def without(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        script = f'mount -t tmpfs none {hidden} && exec "$@"'
        return subprocess.Popen(["unshare", "-m", "sh", "-c", script, "sh", *command], **options)  # type: ignore[call-overload, no-any-return]

    with ExitStack() as stack:
        stack.enter_context(program(subprocess.Popen, *scheduler("127.0.0.1", port), folder=tmp_path))
        stack.enter_context(program(without, *worker(address), folder=tmp_path))
        engine = stack.enter_context(DaskEngine(elsewhere(address), scratch=str(hidden), modules=MODULES))
        with pytest.raises(ConfigError, match=r"does not see .* \(a shared file system\)"):
            wait_for(lambda: engine.collect(1.0) == [()])


@pytest.mark.slow
@pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")
def test_a_worker_whose_cable_is_pulled_loses_its_own_unit_only(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    with network() as net, ExitStack() as stack:
        address = f"tcp://{net.here}:{port}"
        stack.enter_context(program(subprocess.Popen, *scheduler(net.here, port), folder=tmp_path))
        for machine in ("a", "b"):
            net.add(machine)
            start = lambda command, machine=machine, **options: net.start(machine, command, **options)  # noqa: E731
            stack.enter_context(program(start, *worker(address), folder=tmp_path))
        engine = stack.enter_context(DaskEngine(elsewhere(address), scratch=str(tmp_path), modules=MODULES))
        wait_for(n_free(engine, 4))
        for n in (1, 2):
            engine.submit(Call(n, units.take_time, (n, 8.0)))
        engine.submit(Call(3, units.succeed, (3,)))
        time.sleep(0.5)
        net.cut("a")
        found = []
        wait_for(lambda: bool(found.extend(engine.collect(0.5)) or len(found) == 3))
        states = sorted(outcome.state for outcome in found)
        assert states == ["done", "done", "failed"]
        lost = next(outcome for outcome in found if outcome.state == "failed")
        assert lost.is_retryable
        assert "the worker" in lost.reason
