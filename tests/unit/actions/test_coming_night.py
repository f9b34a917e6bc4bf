"""Before a night: fields that nobody knew, the checklist; and the week's look at the references."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from gueststar.model.columns import REFCAT
from gueststar.model.expected import ExpectedExposure
from gueststar.operations.readiness import Line, readiness_lines
from gueststar.store.expected import Expectations
from gueststar.store.ledger import Field
from gueststar.store.operator_state import OperatorState, WorkerState, write_operator_state
from gueststar.store.products import DataId
from gueststar.store.refcats import RefcatStore
from gueststar.store.settings import SurveySettings
from tests.unit.actions.archived import with_archive
from tests.unit.actions.conftest import NIGHT, NOON

TONIGHT = NIGHT + 1


def expect(repo, *places: tuple[float, float, int | None], file: str = "tonight.csv") -> None:
    rows = [ExpectedExposure(TONIGHT, "schedule", ra=ra, dec=dec, field=field, file=file) for ra, dec, field in places]
    Expectations(repo.ledger).take(rows, file=file, source="schedule")


def stars(ra: float, dec: float, *, n: int = 4000, side: float = 3.0) -> np.ndarray:
    rng = np.random.default_rng(int(ra * 10))
    return np.array([(ra + rng.uniform(-side / 2, side / 2, n)) % 360.0, dec + rng.uniform(-side / 2, side / 2, n)])


def write_table(path: Path, *places: tuple[float, float]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = np.concatenate([stars(*place) for place in places], axis=1)
    lines = [f"{k},{ra:.7f},{dec:.7f},{15 + k % 5}" for k, (ra, dec) in enumerate(columns.T)]
    path.write_text("\n".join(["objID,ra,dec,gmag", *lines]) + "\n")
    return path


def cover(repo, ra: float, dec: float) -> None:
    columns = stars(ra, dec)
    blank = {column.name: np.zeros(columns.shape[1], dtype=column.dtype) for column in REFCAT.columns}
    values = blank | {"ra": columns[0], "dec": columns[1], "ref_id": np.arange(columns.shape[1])}
    RefcatStore(repo.root / "refcats").import_catalog("stars", REFCAT.catalog(values))


def test_a_field_that_nobody_knew_is_registered_and_gets_its_stars_from_the_tables_that_touch_it(
    act, repo, tmp_path
) -> None:
    write_table(tmp_path / "big catalog" / "a.csv", (200.0, 30.0), (10.0, -10.0))
    write_table(tmp_path / "big catalog" / "b.csv", (100.0, -50.0))
    expect(repo, (200.0, 30.0, None), (200.001, 30.001, None), (100.0, -50.0, 77))
    done = act("prepare_off_grid_fields", catalogs=[str(tmp_path / "big catalog")])
    assert done.state == "done", done.text
    assert (done.data["n_fields"], done.data["n_new"], done.data["n_made"]) == (2, 2, 2)
    assert {field.id for field in repo.ledger.fields()} >= {77}
    assert len(repo.ledger.fields()) == 2
    assert [made["files"] for made in done.data["made"]] == [["a.csv"], ["b.csv"]]
    store = RefcatStore(repo.root / "refcats")
    assert store.names() == ("big-catalog",)
    assert store.known_stars(ra=200.0, dec=30.0, radius_deg=0.1).n_rows > 10
    assert store.known_stars(ra=10.0, dec=-10.0, radius_deg=0.1).n_rows == 0, "nobody asked for those"
    assert not done.conditions[0].is_wrong
    assert act("prepare_off_grid_fields", catalogs=[str(tmp_path / "big catalog")]).state == "nothing"


def test_the_tables_are_read_once_to_know_what_they_hold(act, repo, tmp_path, monkeypatch) -> None:
    from gueststar.pipelines import catalog_files

    write_table(tmp_path / "cat" / "a.csv", (200.0, 30.0))
    write_table(tmp_path / "cat" / "b.csv", (100.0, -50.0))
    (tmp_path / "cat" / "c.csv").write_text("this,is\nno,catalog\n")
    expect(repo, (200.0, 30.0, 1))
    first = act("prepare_off_grid_fields", catalogs=[str(tmp_path / "cat")])
    assert first.data["unreadable"][0].startswith("c.csv: ")
    read = []
    real = catalog_files._read
    monkeypatch.setattr(catalog_files, "_read", lambda path: read.append(path.name) or real(path))
    expect(repo, (100.0, -50.0, 2), file="more.csv")
    act("prepare_off_grid_fields", catalogs=[str(tmp_path / "cat")])
    assert read == ["b.csv"]


def test_a_field_over_ra_zero_gets_stars_of_both_sides(act, repo, tmp_path) -> None:
    write_table(tmp_path / "cat" / "a.csv", (0.0, 5.0))
    expect(repo, (359.999, 5.0, 1))
    assert act("prepare_off_grid_fields", catalogs=[str(tmp_path / "cat")]).data["n_made"] == 1
    ra = RefcatStore(repo.root / "refcats").known_stars(ra=0.0, dec=5.0, radius_deg=0.1)["ra"]
    assert (ra > 180.0).any()
    assert (ra < 180.0).any()


def test_where_stars_lack_it_is_said_which_are_needed(act, repo, tmp_path) -> None:
    write_table(tmp_path / "cat" / "a.csv", (10.0, -10.0))
    expect(repo, (200.0, 30.0, None))
    told = act("prepare_off_grid_fields", catalogs=[str(tmp_path / "cat")])
    assert told.conditions[0].is_wrong
    assert "LACK STARS, first at 200.0, 30.0" in told.text
    assert str(tmp_path / "cat") in told.text
    assert told.data["missing"][0]["ra"] == 200.0


def test_an_expected_field_without_a_place_is_told_and_a_known_one_is_looked_up(act, repo) -> None:
    repo.ledger.add_field(Field(5, 150.0, 20.0))
    cover(repo, 150.0, 20.0)
    rows = [ExpectedExposure(TONIGHT, "schedule", field=5), ExpectedExposure(TONIGHT, "schedule", field=6)]
    Expectations(repo.ledger).take(rows, file="f.csv", source="schedule")
    told = act("prepare_off_grid_fields")
    assert told.data["nowhere"] == [6]
    assert told.data["n_missing"] == 0
    assert "no list tells where" in told.text


def test_what_was_observed_without_stars_is_prepared_as_well(act, repo, exposure, tmp_path) -> None:
    repo.add_exposure(exposure(ra=200.0, dec=30.0), [0])
    write_table(tmp_path / "cat" / "a.csv", (200.0, 30.0))
    assert act("prepare_off_grid_fields", catalogs=[str(tmp_path / "cat")]).data["n_made"] == 1


def test_a_dry_run_registers_nothing(act, repo) -> None:
    expect(repo, (200.0, 30.0, None))
    assert "would register 1 fields" in act("prepare_off_grid_fields", is_dry=True).text
    assert repo.ledger.fields() == []


# The checklist


def lines_of(repo, **limits) -> dict[str, Line]:
    return {line.name: line for line in readiness_lines(repo, TONIGHT, now=NOON, **limits)}


@pytest.fixture
def ready(repo, tmp_path):
    """A survey that is ready for the night in every respect."""
    (tmp_path / "landing").mkdir()
    (tmp_path / "tape").mkdir()
    repo.settings = SurveySettings(
        operation={
            "landing": [{"path": tmp_path / "landing"}],
            "disks": {"archive": tmp_path / "tape", "sandbox_low_gb": 0, "archive_low_gb": 0, "reserve_gb": 0},
            "mail": {"server": "localhost", "alarms_to": ["night@hill"]},
        }
    )
    cover(repo, 150.0, 20.0)
    expect(repo, (150.0, 20.0, None))
    (repo.root / "orbits").mkdir()
    (repo.root / "orbits" / "orbits.parquet").write_bytes(b"")
    beat = OperatorState(
        pid=os.getpid(), host=socket.gethostname(), version="1", started=0.0, beat=time.time(), clock=0.0,
        night=TONIGHT, mode="running", workers=(WorkerState(name="one", pid=os.getpid()),),
    )  # fmt: skip
    write_operator_state(repo.root, beat)
    return repo


def test_a_survey_that_is_ready_has_no_red_line(act, ready) -> None:
    told = act("readiness")
    assert told.state == "done", told.text
    assert {line["name"]: line["verdict"] for line in told.data["lines"] if line["verdict"] != "good"} == {
        "brokers": "fair"
    }
    assert not [condition for condition in told.conditions if condition.is_wrong]
    assert not list((ready.root / "operator").glob(".probe*"))


def test_each_red_line_is_told_by_name(act, ready, tmp_path) -> None:
    (tmp_path / "landing").rmdir()
    (ready.root / "rules.yaml").write_text("rules: [{name: x, colour: blue}]\n")
    state = OperatorState(
        pid=1, host=socket.gethostname(), version="1", started=0.0, beat=time.time(), clock=0.0, night=TONIGHT,
        mode="running", workers=(WorkerState(name="lost one", pid=2**22 + 1),),
    )  # fmt: skip
    write_operator_state(ready.root, state)
    expect(ready, (10.0, 10.0, None), file="far.csv")
    told = act("readiness")
    assert told.state == "failed"
    red = {condition.subject for condition in told.conditions if condition.is_wrong}
    assert red == {f"landing place {tmp_path / 'landing'}", "rules", "workers", "catalogs"}
    assert "lost one" in told.text
    assert "rules.yaml" in told.text


def test_an_operator_that_was_not_seen_for_long_is_red(ready) -> None:
    old = OperatorState(
        pid=1, host="h", version="1", started=0.0, beat=time.time() - 3600, clock=0.0, night=1, mode="running"
    )
    write_operator_state(ready.root, old)
    assert lines_of(ready)["workers"].verdict == "bad"
    (ready.root / "operator" / "state.json").unlink()
    assert lines_of(ready)["workers"].verdict == "unknown"


def test_brokers_are_asked_whether_they_take_connections(ready) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ready.settings = SurveySettings(stream={"bootstrap_servers": f"127.0.0.1:{port}"})
        assert lines_of(ready)["brokers"].verdict == "good"
        ready.settings = SurveySettings(stream={"bootstrap_servers": f"127.0.0.1:{port},127.0.0.1:1"})
        assert lines_of(ready)["brokers"].verdict == "fair"
    assert lines_of(ready)["brokers"].verdict == "bad"


def test_an_archive_that_is_away_and_a_disk_that_is_full_are_red(ready, tmp_path) -> None:
    assert lines_of(ready)["archive"].verdict == "good"
    (tmp_path / "tape").rename(tmp_path / "unplugged")
    assert lines_of(ready)["archive"].verdict == "bad"
    with_archive(ready, tmp_path / "other", reserve_gb=1e9)
    assert lines_of(ready)["disk"].verdict == "bad"


def test_exposures_that_came_before_their_shutter_closed_tell_of_a_wrong_clock(ready, exposure, monkeypatch) -> None:
    ready.ledger.add_exposure(exposure(day_obs=TONIGHT))
    assert lines_of(ready)["observatory's clock"].verdict == "good"
    ahead = 40587.0 + time.time() / 86400.0 + 0.1  # the observatory's clock is hours ahead
    ready.ledger.add_exposure(exposure(mjd_start=ahead, day_obs=TONIGHT))
    assert lines_of(ready)["observatory's clock"].verdict == "bad"


def test_a_clock_that_differs_from_the_disks_is_told(ready, monkeypatch) -> None:
    assert lines_of(ready)["clock"].verdict == "good"
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 10.0)
    assert lines_of(ready)["clock"].verdict == "fair"
    monkeypatch.setattr(time, "time", lambda: real() - 100.0)
    assert lines_of(ready)["clock"].verdict == "bad"


def test_masters_that_are_missing_or_old_are_told(ready, exposure, make_image) -> None:
    from gueststar.model.calibration import CalibrationMaster

    bias = {"observation_type": "bias", "physical_filter": None, "band": None, "ra": None, "dec": None}
    ready.ledger.add_exposure(exposure(**bias))
    assert lines_of(ready)["bias masters"].verdict == "bad"
    for detector in range(4):
        master = CalibrationMaster("bias", detector, make_image(1).pixels, 59990.3, 10, None, {})
        ready.put("bias", DataId(detector=detector), master)
        ready.certify("bias", DataId(detector=detector), 59990.3, 60100.0)
    line = lines_of(ready)["bias masters"]
    assert line.verdict == "good", line.text
    assert "11 nights old" in line.text
    from gueststar.operations.readiness import ReadinessLimits

    assert lines_of(ready, limits=ReadinessLimits(calibration_days=5.0))["bias masters"].verdict == "fair"


# References


def calibrate(repo, exposure, numbers, *, detectors=(0, 1), **quality) -> None:
    for number in numbers:
        info = exposure(number=number, field=5)
        repo.add_exposure(info, detectors)
        for detector in detectors:
            job = repo.ledger.submit(
                "science", {"n": number, "d": detector}, exposure_id=info.exposure_id, detector=detector, day_obs=NIGHT
            )
            repo.ledger.start(job)
            metrics = {
                "fwhm_arcsec": 2.0, "limiting_mag": 20.0 + 0.01 * number, "zero_point": 26.0,
                "astrometric_rms_mas": 50.0, "sky_electrons": 100.0,
            }  # fmt: skip
            repo.ledger.finish(job, metrics | quality)


def make_references(repo, n_epochs: int, detectors=(0, 1)) -> None:
    for detector in detectors:
        repo.put("reference_metrics", DataId(field=5, detector=detector, band="g"), {"n_epochs": n_epochs})


def test_references_that_lack_epochs_can_be_made_or_could_deepen_are_told(act, repo, exposure) -> None:
    assert act("reference_synopsis", days=None).state == "nothing"
    repo.ledger.add_field(Field(5, 150.0, 20.0))
    calibrate(repo, exposure, range(3))
    told = act("reference_synopsis", now=time.time())
    assert told.data["states"]["lacks epochs"] == 1
    assert "field 5 g, 3 of 5" in told.text
    calibrate(repo, exposure, range(3, 6))
    assert act("reference_synopsis", now=time.time()).data["states"]["can be made"] == 1
    make_references(repo, 6, detectors=(0,))
    (row,) = act("reference_synopsis", now=time.time()).data["fields"]
    assert (row["n_with_reference"], row["n_makeable"], row["n_detectors"]) == (1, 1, 2)
    make_references(repo, 6)
    assert act("reference_synopsis", now=time.time()).data["states"]["good"] == 1
    calibrate(repo, exposure, range(6, 12))
    told = act("reference_synopsis", now=time.time())
    assert told.data["states"]["could deepen"] == 1
    (row,) = json.loads(Path(told.data["file"]).read_text())
    assert (row["n_good"], row["n_in_reference"], row["median_fwhm_arcsec"]) == (12, 6, 2.0)


def test_bad_images_are_no_good_epochs_and_old_fields_are_not_looked_at(act, repo, exposure) -> None:
    repo.ledger.add_field(Field(5, 150.0, 20.0))
    calibrate(repo, exposure, range(4))
    calibrate(repo, exposure, range(4, 9), fwhm_arcsec=9.0)
    assert act("reference_synopsis", now=time.time()).data["fields"][0]["n_good"] == 4
    assert act("reference_synopsis", now=time.time() + 30 * 86400).state == "nothing"
    assert act("reference_synopsis", now=time.time() + 30 * 86400, days=None).state == "done"
