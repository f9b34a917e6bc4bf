"""Science and difference in one go: the same products, to the bit, and the same accounts as one after the other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gueststar.core.errors import DataError
from gueststar.pipelines.engine.inline import InlineEngine
from gueststar.pipelines.engine.outcome import Outcome
from gueststar.pipelines.night.chain import ChainWork, run_chain
from gueststar.pipelines.night.difference import run_difference
from gueststar.pipelines.night.runner import NightRunner
from gueststar.pipelines.night.science import run_science
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.store.ledger import JobState
from gueststar.store.repo import SurveyRepo

from ..end_to_end._survey import gueststar, make_survey, set_parameters

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(small_sky: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A survey with a reference of three exposures, and two more exposures of the place that wait."""
    folder = tmp_path_factory.mktemp("chain")
    files = sorted(small_sky.glob("raw/*/*"))
    science = [path for path in files if path.name.startswith("sci_")]
    make_survey(folder / "survey", small_sky, *(set(files) - set(science)), *science[:3])
    set_parameters(folder / "survey", {"reference_selection": {"min_epochs": 3}})
    gueststar("process", folder / "survey", "--until", "difference")
    gueststar("ingest", folder / "survey", *science[3:5], "--transfer", "link")
    return folder / "survey"


@pytest.fixture
def repo(root: Path) -> Iterator[SurveyRepo]:
    with SurveyRepo.open(root) as found:
        yield found


def runner_of(repo: SurveyRepo) -> NightRunner:
    return NightRunner(repo, InlineEngine(), PipelineSettings.of(repo.camera.settings, repo.settings.parameters))


def waiting(repo: SurveyRepo) -> list[ChainWork]:
    runner = runner_of(repo)
    works = [work for night in runner.nights() for work in runner.planner.science(night, is_chained=True)]
    assert len(works) == 2
    assert all(isinstance(work, ChainWork) for work in works)
    return works


def digests(outcome: Outcome) -> dict[str, str]:
    return {staged.product: staged.sha256 for staged in outcome.result.staged}


def test_products_and_figures_are_those_of_the_steps_apart_to_the_bit(repo: SurveyRepo) -> None:
    work = waiting(repo)[0]
    chained = run_chain(work)
    science = run_science(work.science)
    lain = repo.commit(science.result.staged)
    difference = run_difference(work.difference(lain[0].path))
    (further,) = chained.further
    assert digests(chained) == digests(science)
    assert digests(further) == digests(difference)
    assert {"difference_image", "dia_source", "streak"} <= digests(further).keys()
    assert (chained.job_id, further.job_id) == (work.science.job_id, difference.job_id)
    assert json.dumps(chained.result.metrics) == json.dumps(science.result.metrics)  # as text: some are NaN
    assert json.dumps(further.result.metrics) == json.dumps(difference.result.metrics)
    assert (chained.result.inputs, further.result.inputs) == (science.result.inputs, difference.result.inputs)


def test_a_difference_that_fails_leaves_the_science_image(repo: SurveyRepo, tmp_path: Path) -> None:
    damaged = tmp_path / "reference.fits"
    damaged.write_bytes(b"no image")
    work = waiting(repo)[0]
    outcome = run_chain(ChainWork(work.science, work.further, damaged, work.reference_sources))
    assert outcome.state == "done"
    assert [part.state for part in outcome.further] == ["failed"]
    assert outcome.further[0].error_kind == DataError.__name__


def test_without_a_science_image_there_is_no_difference(repo: SurveyRepo, tmp_path: Path) -> None:
    work = waiting(repo)[0]
    outcome = run_chain(replace(work, science=replace(work.science, raw_path=tmp_path / "lost.fits")))
    assert outcome.state == "failed"
    assert outcome.further == ()


def test_the_ledger_knows_both_jobs_as_if_each_had_been_asked_for(repo: SurveyRepo) -> None:
    works, runner = waiting(repo), runner_of(repo)
    runner.is_chained = True
    nights = {work.further.day_obs for work in works}
    for night in nights:
        runner.science(night)
    for work in works:
        science, difference = repo.ledger.job(work.job_id), repo.ledger.job(work.further.job_id)
        assert science is not None
        assert difference is not None
        assert science.state is difference.state is JobState.DONE
        assert difference.kind == "difference"
        assert (difference.exposure_id, difference.detector) == (science.exposure_id, science.detector)
        assert difference.day_obs == science.day_obs
        assert difference.attempts == 1
        assert difference.config.keys() == {"reference_warp", "subtraction", "detection", "vetting", "streaks"}
        assert Path(difference.metrics["inputs"]["science"]).exists()
        assert difference.cpu_s
        assert difference.metrics["steps"]["subtract"] > 0.0
    for night in nights:
        assert runner.planner.differences(night) == []
        assert runner.planner.science(night, is_chained=True) == []
