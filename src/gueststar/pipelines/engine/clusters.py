"""Where the workers are: processes of this machine, jobs of a batch system, pods, or a scheduler that runs already.

Every worker, wherever it is, is one process with one thread on one core, watched by a nanny that ends it when it takes
more memory than its share and puts another in its place.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gueststar.core.errors import ConfigError, ServiceDown
from gueststar.store.operation_settings import ClusterSettings

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}
"""Environment of every worker: one core each."""

DASK = {
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.worker-ttl": "120s",
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.999,
    "distributed.worker.memory.monitor-interval": "1s",
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "10s",
    "distributed.admin.tick.cycle": "10s",
    "distributed.admin.tick.limit": "60s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.client.scheduler-info-interval": "60s",
    "distributed.comm.timeouts.connect": "10s",
    "distributed.comm.timeouts.tcp": "20s",
}
"""How Dask is set: a unit is never run twice by Dask itself (that is the ledger's to decide), nothing is moved between
workers, memory is a limit and not a reason to pause, and an idle worker is not asked fifty times a second how it is."""

START_S = 60.0
"""How long a scheduler may take to answer."""

BATCH_SYSTEMS: Mapping[str, tuple[str, str]] = {
    "slurm": ("SLURMCluster", "sbatch"),
    "htcondor": ("HTCondorCluster", "condor_submit"),
    "pbs": ("PBSCluster", "qsub"),
}
"""Kind -> class of dask-jobqueue, and the program that must be here to submit jobs."""


@dataclass(frozen=True)
class Cluster:
    """An open connection to a scheduler, and what starts its workers."""

    client: Any
    deployment: Any = None
    """Dask's cluster object; None: workers are somebody else's."""
    n_wanted: int = 0
    """Workers that there should be; 0: as many as there are."""
    words: str = ""
    is_here: bool = False
    """Whether workers are processes that this one started."""

    def heal(self) -> None:
        """Ask for as many workers as there should be, where some were lost with what kept them."""
        if self.deployment is not None:
            self.deployment.scale(self.n_wanted)

    async def close(self) -> None:
        """Let go of the scheduler, and end the workers that were started for it."""
        with contextlib.suppress(TimeoutError, OSError):
            await self.client.close(timeout=10)
        if self.deployment is not None:
            # On a busy machine it may take longer to say goodbye; its workers end with this process anyway.
            with contextlib.suppress(TimeoutError, OSError):
                await self.deployment.close(timeout=30)


def with_workers(settings: ClusterSettings) -> ClusterSettings:
    """Return settings that say how many workers there are and what memory they have, where that can be told.

    Raises ConfigError where a batch system is not told how many, and where an address is missing.
    """
    import psutil

    if settings.kind == "scheduler":
        if not settings.address:
            raise ConfigError("operation.cluster.address: kind scheduler needs one, such as tcp://host:8786")
        return settings
    if settings.kind == "local":
        n_workers = settings.workers or max(1, len(os.sched_getaffinity(0)))
        memory = settings.memory_gb or 0.9 * psutil.virtual_memory().total / n_workers / 1e9
        return settings.model_copy(update={"workers": n_workers, "memory_gb": memory})
    if settings.workers is None:
        raise ConfigError(f"operation.cluster.workers: say how many workers {settings.kind} should start (--workers N)")
    return settings.model_copy(update={"memory_gb": settings.memory_gb or 4.0})


async def open_cluster(settings: ClusterSettings, *, scratch: str | None = None) -> Cluster:
    """Start (or connect to) what runs the workers, from within an event loop.

    ``settings`` are those of `with_workers`. Raises ConfigError where something is not installed or refused, and
    ServiceDown where a scheduler does not answer.
    """
    import dask
    from distributed import Client

    dask.config.set(DASK)
    if settings.kind == "scheduler":
        client = await _connect(settings.address)
        return Cluster(client, None, settings.workers or 0, f"the workers of {settings.address}")
    if settings.kind == "local":
        _fork_workers()
    deployment = _deployment(settings, scratch)
    try:
        await deployment
        client = await Client(deployment, asynchronous=True, set_as_default=False)
    except (RuntimeError, OSError, ValueError) as problem:
        line = " ".join(str(problem).split())
        raise ConfigError(f"{settings.kind} does not start workers: {line}") from problem
    n_workers = settings.workers or 1
    return Cluster(client, deployment, n_workers, f"{n_workers} workers of {settings.kind}", settings.kind == "local")


def _fork_workers() -> None:
    """Let workers of this machine be forks of one process that has read the code, its compiled kernels too.

    A new one, in the place of one that was ended, takes a moment to be there instead of ten seconds.
    """
    import dask
    from distributed.utils import get_mp_context

    dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
    get_mp_context().set_forkserver_preload(["distributed", "gueststar.pipelines.engine.all_read"])


async def _connect(address: str | None) -> Any:
    from distributed import Client

    try:
        return await Client(address, asynchronous=True, set_as_default=False, timeout=START_S)
    except (OSError, TimeoutError) as problem:
        raise ServiceDown(f"no Dask scheduler answers at {address}: {problem}") from problem


def _deployment(settings: ClusterSettings, scratch: str | None) -> Any:
    """Return Dask's cluster object, not yet started."""
    arguments = deployment_arguments(settings, scratch=scratch)
    if settings.kind == "local":
        from distributed import LocalCluster

        made = LocalCluster
    elif settings.kind == "kubernetes":
        made = _extra("dask_kubernetes.operator", "kubernetes").KubeCluster
    else:
        name, program = BATCH_SYSTEMS[settings.kind]
        made = getattr(_extra("dask_jobqueue", "cluster"), name)
        if shutil.which(program) is None:
            raise ConfigError(f"no {program} on this machine: start gueststar where {settings.kind} takes jobs")
    try:
        deployment = made(**arguments)
    except (TypeError, ValueError) as problem:
        line = " ".join(str(problem).split())
        raise ConfigError(f"operation.cluster.options: {made.__name__} does not take them: {line}") from problem
    _calm(deployment)
    return deployment


def _calm(deployment: Any) -> None:
    """Let a cluster whose scheduler lives in this process, not started yet, have one that idle workers cost little."""
    from distributed import Scheduler

    from gueststar.pipelines.engine.calm_scheduler import CalmScheduler

    told = getattr(deployment, "scheduler_spec", None)
    if isinstance(told, dict) and told.get("cls") is Scheduler:
        deployment.scheduler_spec = {**told, "cls": CalmScheduler}


def load_package(kind: str) -> None:
    """Import what a kind of cluster needs; from the main thread, since dask-jobqueue takes the interrupt when imported.

    It is given back. Raises ConfigError naming what is to be installed.
    """
    before = signal.getsignal(signal.SIGINT)
    if kind == "kubernetes":
        _extra("dask_kubernetes.operator", "kubernetes")
    elif kind in BATCH_SYSTEMS:
        _extra("dask_jobqueue", "cluster")
        if signal.getsignal(signal.SIGINT) is not before:
            signal.signal(signal.SIGINT, before)


def _extra(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as problem:
        raise ConfigError(f"{problem.name} is not installed: pip install gueststar[{extra}]") from None


def deployment_arguments(settings: ClusterSettings, *, scratch: str | None = None) -> dict[str, Any]:
    """Return the arguments of Dask's cluster class; the settings' own ``options`` are added and win."""
    memory = int((settings.memory_gb or 4.0) * 1e9)
    ours: dict[str, Any]
    if settings.kind == "local":
        ours = {
            "n_workers": settings.workers, "threads_per_worker": 1, "processes": True, "memory_limit": memory,
            "scheduler_sync_interval": 30, "dashboard_address": "127.0.0.1:0", "local_directory": scratch,
            "silence_logs": 50, "env": ONE_THREAD,
        }  # fmt: skip
    elif settings.kind == "kubernetes":
        ours = {
            "name": "gueststar", "n_workers": settings.workers, "env": {**ONE_THREAD, **_dask_environment()},
            "resources": {
                "requests": {"cpu": "1", "memory": str(memory)},
                "limits": {"cpu": "1", "memory": str(int(1.1 * memory))},
            },
            "worker_command": ["dask", "worker", "--nthreads", "1", "--memory-limit", str(memory)], "quiet": True,
        }  # fmt: skip
    else:
        environment = {**ONE_THREAD, **_dask_environment(), **_paths()}
        ours = {
            "n_workers": settings.workers, "cores": 1, "processes": 1, "memory": f"{memory} B", "nanny": True,
            "death_timeout": 120, "silence_logs": 50, "scheduler_options": {"dashboard_address": "127.0.0.1:0"},
            "job_script_prologue": [f"export {name}='{value}'" for name, value in environment.items()],
            "worker_extra_args": ["--no-dashboard"], "job_name": "gueststar",
        }  # fmt: skip
    mine = dict(settings.options)
    for name, value in ours.items():
        if isinstance(value, list) and name in mine and name != "worker_command":
            mine[name] = [*value, *mine[name]]
        elif isinstance(value, dict) and isinstance(mine.get(name), dict):
            mine[name] = {**value, **mine[name]}
    return {**ours, **mine, "asynchronous": True}


def _dask_environment() -> dict[str, str]:
    """Return `DASK` as a worker of another machine reads it from its environment."""
    return {f"DASK_{key.replace('.', '__').replace('-', '_').upper()}": str(value) for key, value in DASK.items()}


def _paths() -> dict[str, str]:
    """Return where a job finds the packages of this process."""
    return {name: os.environ[name] for name in ("PYTHONPATH", "NUMBA_CACHE_DIR") if name in os.environ}
