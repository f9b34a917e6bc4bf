"""A stage of a campaign as a workflow of `lsst.ctrl.bps`, run by its plugin for Parsl."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gueststar.core.errors import ConfigError
from gueststar.pipelines.engine.clusters import ONE_THREAD

SERVICE = "lsst.ctrl.bps.parsl.ParslService"


@dataclass(frozen=True)
class Batch:
    """Where and how workflows run."""

    site: str = "local"
    """A site of ``config``; local is always there."""
    config: Path | None = None
    """A BPS file with sections ``site.NAME`` (class, nodes, walltime, queue...)."""
    n_workers: int = 1
    """Cores of the site local."""
    n_units: int = 8
    """Units in one job: each job starts a Python, which costs some seconds."""
    unit_limit_s: float = 900.0
    """A unit that takes longer has its job ended."""
    memory_mb: int = 4096
    """Memory that a job asks for."""


@dataclass(frozen=True)
class WorkflowJob:
    """One job: files of its units and of their outcomes."""

    name: str
    units: Path
    outcomes: Path


def bps_config(batch: Batch, folder: Path, name: str) -> Any:
    """Return the workflow's BPS configuration: the survey's file, with what a campaign needs.

    Raises ConfigError for a file that cannot be read, a site that it does not describe, and a missing package.
    """
    try:
        from lsst.ctrl.bps import BpsConfig
    except ModuleNotFoundError as problem:
        raise ConfigError(f"{problem.name} is not installed: pip install gueststar[batch]") from None
    document = _read(batch.config) if batch.config else {}
    local = {"class": "lsst.ctrl.bps.parsl.sites.Local", "cores": batch.n_workers}
    sites = {"local": local, **document.get("site", {})}
    if batch.site not in sites:
        raise ConfigError(
            f"no site {batch.site}: describe site.{batch.site} in a BPS file (--config); have {sorted(sites)}"
        )
    site = {"run_dir": str(folder.parent / "parsl"), "retries": 0, **sites[batch.site]}
    ours = {
        "project": "gueststar", "campaign": name, "operator": os.environ.get("USER", "operator"),
        "submitPath": str(folder), "computeSite": batch.site, "wmsServiceClass": SERVICE, "payloadName": name,
        "site": {**sites, batch.site: site}, "parsl": {"log_level": "WARN"},
    }  # fmt: skip
    return BpsConfig({**document, **ours})


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as problem:
        raise ConfigError(f"{path}: not a BPS file: {problem}") from None
    if not isinstance(document, Mapping):
        raise ConfigError(f"{path}: not a BPS file: no sections in it")
    return dict(document)


class Parsl:
    """Parsl under BPS's plugin: started by the first workflow, kept for the next ones, ended at the close."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self._first: Any = None

    def run(self, folder: Path, name: str, jobs: Sequence[WorkflowJob]) -> None:
        """Submit jobs as one workflow and return when all of them have ended, however they did."""
        config = bps_config(self.batch, folder, name)
        try:
            from lsst.ctrl.bps.parsl import ParslService
        except ModuleNotFoundError as problem:
            raise ConfigError(f"{problem.name} is not installed: pip install gueststar[batch]") from None
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        workflow = ParslService(config).prepare(config, _generic(self.batch, name, jobs), str(folder))
        if self._first is None:
            workflow.start()
            self._first = workflow
        workflow.dfk = self._first.dfk
        for future in workflow.run(block=False):
            if future is not None:
                future.exception()  # waits; how a job's units ended is told by their outcomes

    def close(self) -> None:
        """End Parsl and its workers."""
        if self._first is not None:
            self._first.shutdown()
            self._first = None


def _generic(batch: Batch, name: str, jobs: Sequence[WorkflowJob]) -> Any:
    """Return jobs as BPS's description of a workflow."""
    from lsst.ctrl.bps import GenericWorkflow, GenericWorkflowExec, GenericWorkflowJob

    environment = {**ONE_THREAD, **{key: os.environ[key] for key in ("PYTHONPATH",) if key in os.environ}}
    program = " ".join(["env", *(f"{key}={shlex.quote(value)}" for key, value in environment.items()), sys.executable])
    workflow = GenericWorkflow(name)
    for job in jobs:
        words = ("-m", "gueststar.pipelines.batch.run_units", str(job.units), str(job.outcomes))
        node = GenericWorkflowJob(
            job.name, label="units", executable=GenericWorkflowExec("python", src_uri=program),
            arguments=shlex.join((*words, "--limit", str(batch.unit_limit_s))), request_cpus=1,
            request_memory=batch.memory_mb,
        )  # fmt: skip
        workflow.add_job(node)
    return workflow


def last_words(folder: Path, job: WorkflowJob) -> str:
    """Return the last line that a job wrote before it ended."""
    found = sorted(folder.rglob(f"{job.name}.stderr"))
    lines = found[0].read_text(errors="replace").split("\n") if found else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
