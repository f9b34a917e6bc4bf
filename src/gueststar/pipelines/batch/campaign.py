"""`run_campaign`: nights of a repository as workflows of a batch system, committed by the one writer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gueststar.core.errors import ConfigError
from gueststar.pipelines.batch.engine import BatchEngine
from gueststar.pipelines.batch.workflow import Batch, bps_config
from gueststar.pipelines.night.process import Summary, process_nights
from gueststar.pipelines.night.runner import STAGES, Progress
from gueststar.store.repo import SurveyRepo


def nights_between(root: Path, first: int, last: int) -> tuple[int, ...]:
    """Return the nights with exposures from one to another (both included); ConfigError if there are none."""
    with SurveyRepo.open(root) as repo:
        nights = sorted({row.info.day_obs for row in repo.ledger.exposures()})
    chosen = tuple(night for night in nights if first <= night <= last)
    if not chosen:
        raise ConfigError(f"no exposures of nights {first}..{last} in {root}; nights are {nights}")
    return chosen


def run_campaign(
    root: Path,
    *,
    first: int,
    last: int,
    batch: Batch | None = None,
    until: str = STAGES[-1],
    do_retry: bool = False,
    do_again: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Summary:
    """Process nights with `process_nights`, each stage's units as one workflow of `lsst.ctrl.bps`.

    What comes out is what `process_nights` makes: the same units are planned and committed by the same writer.
    """
    chosen = batch or Batch()
    bps_config(chosen, root / "scratch" / "campaign", "check")

    def engine(repo: SurveyRepo) -> BatchEngine:
        return BatchEngine(chosen, repo.root / "scratch" / "campaign")

    return process_nights(
        root, nights=nights_between(root, first, last), engine=engine, until=until, do_retry=do_retry,
        do_again=do_again, progress=progress, tell=tell,
    )  # fmt: skip
