"""`process_nights`: open the repository, start the engine, run the nights, say what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gueststar.core.errors import ConfigError
from gueststar.pipelines.night.engine import make_engine
from gueststar.pipelines.night.runner import STAGES, NightRunner, Progress
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.store.ledger import JobState
from gueststar.store.repo import SurveyRepo


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
    n_workers: int = 1,
    until: str = STAGES[-1],
    do_retry: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Process nights of a repository (all of them when none is named) and return what stands in the ledger.

    Raises ConfigError for a night that has no exposures or an unknown parameter in the settings, and
    TransientError while another process works on the repository.
    """
    repo = SurveyRepo.open(root)
    with repo.only_writer():
        return _process(repo, nights, n_workers=n_workers, until=until, do_retry=do_retry, progress=progress)


def inject_nights(
    root: Path,
    *,
    nights: Sequence[int] = (),
    n_images: int | None = None,
    seed: int = 1,
    overrides: Mapping[str, Any] | None = None,
    n_workers: int = 1,
    progress: Progress | None = None,
) -> Summary:
    """Inject artificial sources into images of nights (the last one when none is named); return how the work stands.

    ``overrides`` are parameters of the section ``injection``. Raises ConfigError for a night without calibrated
    images, and TransientError while another process works on the repository.
    """
    repo = SurveyRepo.open(root)
    layers = (repo.camera.settings, repo.settings.parameters, {"injection": dict(overrides or {})})
    settings = PipelineSettings.of(*layers)
    with repo.only_writer(), make_engine(n_workers=n_workers, scratch=str(repo.root / "scratch")) as engine:
        runner = NightRunner(repo, engine, settings)
        runner.progress = progress or runner.progress
        runner.recover()
        chosen = tuple(sorted(nights)) or tuple(runner.nights()[-1:])
        for night in chosen:
            runner.inject(night, n_images=n_images, seed=seed)
    return Summary(chosen, {key: n for key, n in repo.ledger.job_counts().items() if key[0] == "injection"})


def _process(
    repo: SurveyRepo,
    nights: Sequence[int],
    *,
    n_workers: int,
    until: str,
    do_retry: bool,
    progress: Progress | None,
) -> Summary:
    settings = PipelineSettings.of(repo.camera.settings, repo.settings.parameters)
    with make_engine(n_workers=n_workers, scratch=str(repo.root / "scratch")) as engine:
        options = {} if progress is None else {"progress": progress}
        runner = NightRunner(repo, engine, settings, do_retry=do_retry, **options)
        runner.recover()
        known = runner.nights()
        if unknown := [night for night in nights if night not in known]:
            raise ConfigError(f"no exposures of night {unknown[0]} in {repo.root}; nights are {known}")
        chosen = tuple(nights) or tuple(known)
        runner.run(sorted(chosen), until=until)
    return Summary(chosen, repo.ledger.job_counts())
