"""Ephemerides, candidates, what to link, and pipelines that do not exist."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from gueststar.core.errors import ConfigError
from gueststar.formats.parquet import read_catalog
from gueststar.operations.actions.catalog import ACTIONS
from gueststar.store.candidate_exports import CANDIDATE, KEY, export_path
from gueststar.store.detections.store import DetectionStore
from gueststar.store.orbits import OrbitStore
from gueststar.store.settings import SurveySettings
from tests.unit.actions.conftest import NIGHT, NOON
from tests.unit.alerts.conftest import (
    make_record,
    make_sources,
    make_survey,  # noqa: F401
)

SBDB_CSV = "full_name,a,e,i,om,w,ma,epoch_mjd,H,G\n433 Eros,1.458,0.2228,10.8,304.2,178.9,{anomaly},59800,10.4,0.46\n"


def drop(folder: Path, name: str, text: str, *, days_ago: float = 1.0) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (NOON - days_ago * 86400, NOON - days_ago * 86400))
    return path


REPORTS = {"coverage_maps", "measure_metrics", "night_report", "weekly_report"}


@pytest.mark.parametrize("name", sorted(ACTIONS.keys() - REPORTS))
def test_an_action_refuses_an_argument_that_it_does_not_know(act, name) -> None:
    with pytest.raises(ConfigError, match=rf"action {name}: argument 'colour'"):
        act(name, colour="blue")


def test_dropped_orbits_are_taken_in_once_and_the_newest_file_wins(act, repo, tmp_path) -> None:
    drop(tmp_path / "mpc", "newer.csv", SBDB_CSV.format(anomaly=20.0), days_ago=1)
    drop(tmp_path / "mpc", "deep/older.csv", SBDB_CSV.format(anomaly=10.0), days_ago=3)
    done = act("update_ephemerides", folder=str(tmp_path / "mpc"))
    assert done.state == "done"
    assert [Path(row["file"]).name for row in done.data["taken"]] == ["older.csv", "newer.csv"]
    assert OrbitStore(repo.root).read()["mean_anomaly"].tolist() == [20.0]
    assert act("update_ephemerides", folder=str(tmp_path / "mpc")).state == "nothing"


def test_a_landing_place_of_ephemerides_is_looked_into(act, repo, tmp_path) -> None:
    place = {"landing": [{"path": tmp_path / "a", "holds": "ephemerides"}, {"path": tmp_path / "b", "holds": "raw"}]}
    repo.settings = SurveySettings(operation=place)
    drop(tmp_path / "a", "orbits.csv", SBDB_CSV.format(anomaly=2.0))
    drop(tmp_path / "b", "other.csv", SBDB_CSV.format(anomaly=1.0))
    done = act("update_ephemerides")
    assert [Path(row["file"]).name for row in done.data["taken"]] == ["orbits.csv"]


def test_a_broken_file_is_refused_once_with_its_reason_and_the_old_orbits_stay(act, repo, tmp_path) -> None:
    drop(tmp_path, "mpc/good.csv", SBDB_CSV.format(anomaly=10.0), days_ago=3)
    act("update_ephemerides", folder=str(tmp_path / "mpc"))
    drop(tmp_path, "mpc/bad.csv", "nothing,of\nthe,kind\n")
    refused = act("update_ephemerides", folder=str(tmp_path / "mpc"))
    assert refused.state == "failed"
    assert "bad.csv refused" in refused.text
    assert OrbitStore(repo.root).read().n_rows == 1
    assert act("update_ephemerides", folder=str(tmp_path / "mpc")).state == "nothing"
    assert any("refused" in event.text for event in repo.ledger.events(what="ephemerides"))


def test_a_file_that_still_grows_is_left_for_the_next_time(act, tmp_path) -> None:
    drop(tmp_path, "mpc/growing.csv", SBDB_CSV.format(anomaly=1.0), days_ago=10.0 / 86400)
    drop(tmp_path, "mpc/copying.csv.part", SBDB_CSV.format(anomaly=1.0))
    assert act("update_ephemerides", folder=str(tmp_path / "mpc")).state == "nothing"


def test_old_orbits_are_something_to_be_told_of(act, repo, tmp_path) -> None:
    assert not act("update_ephemerides").conditions[0].is_wrong  # a survey that never had any does without
    drop(tmp_path, "mpc/good.csv", SBDB_CSV.format(anomaly=10.0))
    act("update_ephemerides", folder=str(tmp_path / "mpc"))
    taken = OrbitStore(repo.root).path.stat().st_mtime
    assert not act("update_ephemerides", now=taken + 40 * 86400).conditions[0].is_wrong
    assert act("update_ephemerides", now=taken + 50 * 86400).conditions[0].is_wrong


def observe(root: Path, make_survey, programs=(1, 2, 3)) -> int:  # noqa: F811
    """Detect three objects on three exposures of one night; return the night."""
    survey = make_survey()
    survey.root.joinpath("detections.sqlite").rename(root / "detections.sqlite")
    survey.store.close()
    survey.store = DetectionStore.at(root)
    for step, program in enumerate(programs):
        record = make_record(61006.1 + 0.02 * step, program=program)
        ra, dec = np.array([359.99, 0.01, 359.97]), np.array([20.0, 20.01, 19.98])
        survey.observe(record, make_sources(record, ra, dec))
    return make_record(61006.1).day_obs


def test_candidates_of_a_night_lie_in_a_dated_file_by_place_for_their_owner_only(act, repo, make_survey) -> None:  # noqa: F811
    night = observe(repo.root, make_survey)
    assert act("export_candidates", night=night, is_dry=True).data["n_candidates"] == 9
    assert not export_path(repo.root, night).exists()
    done = act("export_candidates", night=night)
    assert done.state == "done"
    path = Path(done.data["path"])
    assert path == export_path(repo.root, night)
    assert path.stat().st_mode & 0o077 == 0
    table = read_catalog(path, CANDIDATE)
    assert np.all(np.diff(table[KEY]) >= 0)
    assert sorted(set(table["program"].tolist())) == [1, 2, 3]
    assert set(table["day_obs"].tolist()) == {night}
    assert len(set(table["dia_object_id"].tolist())) == 3 == done.data["n_objects"]
    assert len(set(table["object_number"].tolist())) == 3
    assert -1 not in table["object_number"]


def test_candidates_exported_again_are_the_same_bytes(act, repo, make_survey) -> None:  # noqa: F811
    night = observe(repo.root, make_survey)
    path = Path(act("export_candidates", night=night).data["path"])
    first = path.read_bytes()
    assert act("export_candidates", night=night).state == "nothing"
    path.unlink()
    assert act("export_candidates", night=night).state == "done"
    assert path.read_bytes() == first
    assert not list(path.parent.glob(".*"))


def test_a_night_without_candidates_exports_nothing(act, repo) -> None:
    DetectionStore.at(repo.root).close()
    assert act("export_candidates").state == "nothing"


def test_a_night_is_worth_linking_when_a_field_came_back_often_enough(act, repo, exposure) -> None:
    for number in range(3):
        info = exposure(number=20 * number, field=5)
        repo.ledger.add_exposure(info, detectors=[0])
        job = repo.ledger.submit("association", {"n": number}, exposure_id=info.exposure_id, detector=0, day_obs=NIGHT)
        enough = act("moving_objects")
        assert enough.state == "nothing", enough.text  # this exposure is not associated yet
        repo.ledger.start(job)
        repo.ledger.finish(job)
    assert act("moving_objects").state == "done"
    assert act("moving_objects", images=4).state == "nothing"
    assert "no field has 3 visits within 0.5 h" in act("moving_objects", hours=0.5).text


def test_source_matching_says_that_there_is_no_such_pipeline(act) -> None:
    told = act("source_matching")
    assert told.state == "unavailable"
    assert "not part of this version" in told.text
