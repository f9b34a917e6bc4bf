"""Planning a whole night holds no exposure up, and asks the registry little."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gueststar.operations.operator.pipeline_actions import END_OF_NIGHT
from gueststar.operations.rules.contract import Firing
from gueststar.pipelines.night.calibrations.known import APPLIED, CalibrationFinder
from gueststar.pipelines.night.plan import Planner
from gueststar.pipelines.night.reference_standing import ReferenceStandings
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.store.ledger import ExposureState
from gueststar.store.repo import SurveyRepo

from ._rehearsal import CAMERA, EVENING, ToldEngine, go_round, info, make_repo, operator_of, receive

GOOD = {
    "fwhm_arcsec": 2.0, "limiting_mag": 21.0, "zero_point": 25.0, "astrometric_rms_mas": 30.0, "sky_electrons": 100.0,
}  # fmt: skip


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[SurveyRepo]:
    with make_repo(tmp_path / "survey", queue={"calibrations_quiet_s": 0.0, "patience_s": 0.0}) as made:
        yield made


def calibrated(repo: SurveyRepo, *, night: int, n: int, first: int = 0) -> None:
    """Let ``n`` exposures of one field be calibrated, all of them good."""
    for number in range(first, first + n):
        told = info(number, night=night)
        exposure = receive(repo, told)
        facts = {"exposure_id": exposure, "detector": 0, "day_obs": told.day_obs}
        job = repo.ledger.submit("science", {"exposure": exposure, "detector": 0}, **facts)
        repo.ledger.start(job)
        repo.ledger.finish(job, GOOD)


def test_exposures_go_on_their_way_while_a_night_is_planned(repo: SurveyRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    may_end = threading.Event()
    monkeypatch.setattr(Planner, "learning", lambda *_: may_end.wait(10.0) and [])
    operator = operator_of(repo, engine := ToldEngine())
    operator.start()
    operator.firings.fire(Firing("a rule", [("learn", {})], info(0).day_obs))
    operator.turn()
    number = receive(repo, info(0, night=1))
    operator.work.look_for_exposures()
    for _ in range(20):
        operator.turn()
    assert any(series.is_being_planned for series in operator.work.series)
    assert any(str(number) in what for what in engine.begun)
    assert repo.ledger.exposure(number).state is not ExposureState.RECEIVED
    may_end.set()
    end = time.monotonic() + 10.0
    while len(operator.firings) and time.monotonic() < end:
        go_round(operator)
    assert not len(operator.firings)


def test_a_reference_of_a_night_does_not_depend_on_how_far_the_next_one_has_come(repo: SurveyRepo) -> None:
    calibrated(repo, night=0, n=4)
    calibrated(repo, night=1, n=1)
    field = repo.ledger.exposures(observation_type="science")[0].info.field
    settings = PipelineSettings.of(CAMERA.settings)
    earlier, later = (
        ReferenceStandings(repo, settings, until=info(0, night=n).day_obs).of(field, 0, "r") for n in (0, 1)
    )
    assert not earlier.is_due
    assert later.is_due
    assert Planner(repo, settings).references(info(0, night=0).day_obs) == []


def test_calibrations_of_a_night_are_asked_for_once_a_kind(repo: SurveyRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        SurveyRepo, "calibrations_during", lambda _, kind, begin, end: asked.append((kind, begin, end)) or []
    )
    finder = CalibrationFinder(repo)
    for number in range(30):
        for detector in range(4):
            assert finder.paths(detector, info(number)) == {}
    assert sorted(asked) == sorted((kind, int(EVENING), int(EVENING) + 1) for kind in APPLIED)


def test_references_that_come_late_are_for_the_nights_after_too(repo: SurveyRepo) -> None:
    numbers = [receive(repo, info(0, night=night)) for night in (0, 1)]
    operator = operator_of(repo, ToldEngine(), at=EVENING + 1.05)
    operator.start()
    go_round(operator)
    assert {repo.ledger.exposure(number).state for number in numbers} == {ExposureState.PROCESSED}
    first, second = (info(0, night=night).day_obs for night in (0, 1))
    assert operator.work.plan_held(first, is_later_too=True) == 2
    assert operator.work.plan_held(first) == 1
    assert operator.work.plan_held(second, is_later_too=True) == 1
    assert "references" in END_OF_NIGHT
