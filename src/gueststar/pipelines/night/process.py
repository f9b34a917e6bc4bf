"""`process_nights`: open the repository, start the engine, run the nights, say what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import tenacity

from gueststar.core.errors import ConfigError, ServiceDown
from gueststar.pipelines.engine.contract import Engine
from gueststar.pipelines.engine.dask_engine import make_engine
from gueststar.pipelines.engine.inline import InlineEngine
from gueststar.pipelines.engine.on_demand import OnDemandEngine
from gueststar.pipelines.night.runner import STAGES, NightRunner, Progress
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.store.ledger import JobState
from gueststar.store.operation_settings import ClusterSettings
from gueststar.store.repo import SurveyRepo

PATIENCE_S = 3600.0
"""How long a run waits for its database to come back."""
MOST_OUTAGES = 20
"""A run that is broken off more often than this ends: what comes back does not work."""


class AnyEngine(Engine, AbstractContextManager[Engine], Protocol):
    """An engine that is closed at the end of a ``with`` statement."""


@dataclass(frozen=True)
class Summary:
    """Numbers of jobs by kind and state after a run."""

    nights: tuple[int, ...]
    counts: dict[tuple[str, JobState], int]

    @property
    def is_complete(self) -> bool:
        """Whether no work is left waiting or quarantined."""
        left = (JobState.PENDING, JobState.RUNNING, JobState.QUARANTINED)
        return not any(n for (_, state), n in self.counts.items() if state in left)

    def lines(self) -> list[str]:
        """Return one line a kind of job."""
        kinds = sorted({kind for kind, _ in self.counts})
        rows = []
        for kind in kinds:
            parts = [f"{n} {state.value}" for (k, state), n in sorted(self.counts.items()) if k == kind and n]
            rows.append(f"{kind:<12} {', '.join(parts)}")
        return rows


def process_nights(
    root: Path,
    *,
    nights: Sequence[int] = (),
    n_workers: int | None = None,
    cluster: str | None = None,
    engine: Callable[[SurveyRepo], AnyEngine] | None = None,
    until: str = STAGES[-1],
    do_retry: bool = False,
    do_again: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Summary:
    """Process nights of a repository (all of them when none is named) and return what stands in the ledger.

    They are processed where the survey's ``operation.cluster`` says, on another kind of ``cluster``, or by the engine
    that ``engine`` makes.

    ``do_again``: calibrate and subtract anew what is done already, with the calibration products and parameters of
    now. The images and catalogs become new versions; alerts that went out and the objects they made stay.

    A database that stops in the middle is waited for, and the run goes on from what the ledger knows; ``tell`` gets a
    line when that happens. Raises ConfigError for a night without exposures, an unknown parameter in the settings, and
    ``do_again`` without nights; TransientError while another process works on the repository; ServiceDown when the
    wait was in vain.
    """

    if do_again and not nights:
        raise ConfigError("name the nights that are to be processed again: --night YYYYMMDD")
    renew_before = time.time() if do_again else None

    def ours(repo: SurveyRepo) -> AnyEngine:
        return _engine(repo, cluster, n_workers)

    def run(repo: SurveyRepo) -> Summary:
        return _process(
            repo, nights, open_engine=engine or ours, until=until, do_retry=do_retry,
            renew_before=renew_before, progress=progress,
        )  # fmt: skip

    return _patiently(root, run, tell)


def _patiently(root: Path, run: Callable[[SurveyRepo], Summary], tell: Callable[[str], None]) -> Summary:
    """Run as the only writer of a repository; again, from where it stood, when the database was away."""
    with SurveyRepo.open(root) as held, held.only_writer():
        for _ in range(MOST_OUTAGES):
            try:
                with SurveyRepo.open(root) as repo:
                    return run(repo)
            except ServiceDown as problem:
                tell(f"{problem}; waiting for it")
                _wait_until_back(root)
                tell("it works again: going on")
        with SurveyRepo.open(root) as repo:
            return run(repo)


def _wait_until_back(root: Path) -> None:
    """Return as soon as the repository's databases can be written to; ServiceDown after `PATIENCE_S`."""
    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(ServiceDown),
        wait=tenacity.wait_exponential(multiplier=1.0, max=30.0),
        stop=tenacity.stop_after_delay(PATIENCE_S),
        reraise=True,
    )
    attempts(_knock, root)


def _knock(root: Path) -> None:
    with SurveyRepo.open(root) as repo:
        repo.ledger.event("recovered", text="the database works again")


def cluster_settings(survey: ClusterSettings, *, cluster: str | None, n_workers: int | None) -> ClusterSettings:
    """Return where work runs: as the survey says, but with another kind of cluster or number of workers if told."""
    changes: dict[str, Any] = {}
    if cluster is not None and cluster != survey.kind:
        changes |= {"kind": cluster, "options": {}}
    if n_workers is not None:
        changes["workers"] = n_workers
    return survey.model_copy(update=changes)


def _engine(repo: SurveyRepo, cluster: str | None, n_workers: int | None) -> InlineEngine | OnDemandEngine:
    """Return an engine: this process where one worker on this machine is asked for, else workers once there is work."""
    settings = cluster_settings(repo.settings.operation.cluster, cluster=cluster, n_workers=n_workers)
    if settings.kind == "local" and (settings.workers or 1) == 1:
        return InlineEngine()
    return OnDemandEngine(lambda: make_engine(settings, scratch=str(repo.root / "scratch")))


def inject_nights(
    root: Path,
    *,
    nights: Sequence[int] = (),
    n_images: int | None = None,
    seed: int = 1,
    overrides: Mapping[str, Any] | None = None,
    n_workers: int | None = None,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Summary:
    """Inject artificial sources into images of nights (the last one when none is named); return how the work stands.

    ``overrides`` are parameters of the section ``injection``. Raises ConfigError for a night without calibrated
    images, and TransientError while another process works on the repository.
    """

    def run(repo: SurveyRepo) -> Summary:
        layers = (repo.camera.settings, repo.settings.parameters, {"injection": dict(overrides or {})})
        settings = PipelineSettings.of(*layers)
        with _engine(repo, None, n_workers) as engine:
            runner = NightRunner(repo, engine, settings)
            runner.progress = progress or runner.progress
            runner.recover()
            chosen = tuple(sorted(nights)) or tuple(runner.nights()[-1:])
            for night in chosen:
                runner.inject_images(night, n_images=n_images, seed=seed)
        return Summary(chosen, {key: n for key, n in repo.ledger.job_counts().items() if key[0] == "injection"})

    return _patiently(root, run, tell)


def _process(
    repo: SurveyRepo,
    nights: Sequence[int],
    *,
    open_engine: Callable[[SurveyRepo], AnyEngine],
    until: str,
    do_retry: bool,
    renew_before: float | None,
    progress: Progress | None,
) -> Summary:
    settings = PipelineSettings.of(repo.camera.settings, repo.settings.parameters)
    with open_engine(repo) as engine:
        options = {} if progress is None else {"progress": progress}
        runner = NightRunner(repo, engine, settings, do_retry=do_retry, renew_before=renew_before, **options)
        runner.recover()
        known = runner.nights()
        if unknown := [night for night in nights if night not in known]:
            raise ConfigError(f"no exposures of night {unknown[0]} in {repo.root}; nights are {known}")
        chosen = tuple(nights) or tuple(known)
        runner.run(sorted(chosen), until=until)
    return Summary(chosen, repo.ledger.job_counts())
