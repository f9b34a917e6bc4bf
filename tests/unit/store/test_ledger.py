"""The ledger balances, whatever dies."""

from __future__ import annotations

import sqlite3
import time

import numpy as np
import pytest

from gueststar.core.errors import ConfigError
from gueststar.store.ledger import Ledger
from gueststar.store.ledger_rows import ExposureState, Field, FileStatus, JobState
from gueststar.store.sql import checked_url


@pytest.fixture
def ledger(tmp_path):
    made = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite3")
    yield made
    made.close()


def test_submitting_twice_is_the_same_as_once(ledger):
    first = ledger.submit("detector", {"visit": 5, "detector": 2}, exposure_id=5, day_obs=20240101)
    again = ledger.submit("detector", {"detector": 2, "visit": 5})
    other = ledger.submit("detector", {"visit": 5, "detector": 3})
    assert first == again != other
    assert len(ledger.jobs()) == 2
    assert ledger.job(first).day_obs == 20240101


def test_a_job_is_started_by_one_worker_only(ledger):
    job = ledger.submit("detector", {"visit": 5})
    assert ledger.start(job, worker="a")
    assert not ledger.start(job, worker="b")
    assert ledger.job(job).worker == "a"
    ledger.finish(job, {"seeing": 2.0}, cpu_s=3.0, peak_rss_mb=900.0)
    done = ledger.job(job)
    assert (done.state, done.metrics, done.cpu_s, done.peak_rss_mb) == (JobState.DONE, {"seeing": 2.0}, 3.0, 900.0)
    assert not ledger.start(job)


def test_a_retryable_failure_is_tried_three_times_then_quarantined_with_its_reason(ledger):
    job = ledger.submit("detector", {"visit": 5})
    states = []
    for _ in range(3):
        assert ledger.start(job)
        states.append(ledger.fail(job, "disk is gone", "TransientError", is_retryable=True, traceback="..."))
    assert states == [JobState.PENDING, JobState.PENDING, JobState.QUARANTINED]
    assert not ledger.start(job)
    assert (ledger.job(job).reason, ledger.job(job).error_kind) == ("disk is gone", "TransientError")
    ledger.release(job)
    assert ledger.start(job)
    assert ledger.job(job).attempts == 1


def test_a_failure_of_the_data_is_final(ledger):
    job = ledger.submit("detector", {"visit": 5})
    ledger.start(job)
    assert ledger.fail(job, "no stars", "DataError") is JobState.FAILED
    assert not ledger.start(job)


def test_an_unknown_job_is_an_error(ledger):
    with pytest.raises(ConfigError, match="no job 17"):
        ledger.finish(17)


def test_jobs_of_dead_workers_run_again_until_they_have_killed_three(ledger):
    poison = ledger.submit("detector", {"visit": 1})
    healthy = ledger.submit("detector", {"visit": 2})
    for attempt in range(3):
        assert ledger.start(poison, worker="w1")
        if attempt == 0:
            ledger.start(healthy, worker="w2")
        assert ledger.reset_running(worker="w1") == 1
    assert ledger.job(poison).state is JobState.QUARANTINED
    assert "died" in ledger.job(poison).reason
    assert ledger.job(healthy).state is JobState.RUNNING
    assert ledger.reset_running() == 1
    assert ledger.job(healthy).state is JobState.PENDING


def test_a_night_balances_and_what_nobody_works_on_is_unexplained(ledger, exposure):
    infos = [exposure(number) for number in range(5)]
    for info in infos:
        ledger.add_exposure(info, detectors={0: "abc", 1: "abc"})
    ledger.add_exposure(exposure(9, observation_type="bias"))
    jobs = [ledger.submit("exposure", {"visit": i.exposure_id}, exposure_id=i.exposure_id) for i in infos[:4]]
    for job in jobs[:3]:
        ledger.start(job)
    ledger.finish(jobs[0])
    ledger.fail(jobs[1], "no stars")
    ledger.hold(jobs[2], "no reference yet")
    states = [ledger.settle_exposure(info.exposure_id) for info in infos]
    received = ExposureState.RECEIVED
    assert states == [ExposureState.PROCESSED, ExposureState.FAILED, ExposureState.HELD, received, received]
    account = ledger.balance(20230224)
    assert (account.received, account.processed, account.failed, account.held, account.pending) == (5, 1, 1, 1, 1)
    assert account.unexplained_ids == (infos[4].exposure_id,)
    assert not account.is_balanced
    assert account.reasons == {"no stars": 1, "no reference yet": 1}
    ledger.set_exposure_state(infos[4].exposure_id, ExposureState.HELD, "bad weather")
    assert ledger.balance(20230224).is_balanced
    assert ledger.balance(20230224, observation_type=None).received == 6
    assert ledger.balance(19990101).received == 0


def test_an_exposure_with_one_bad_detector_is_processed_and_says_so(ledger, exposure):
    info = exposure()
    ledger.add_exposure(info, detectors=[0, 1])
    jobs = [ledger.submit("d", {"d": d}, exposure_id=info.exposure_id, detector=d) for d in (0, 1)]
    for job in jobs:
        ledger.start(job)
    ledger.finish(jobs[0])
    ledger.fail(jobs[1], "no stars")
    assert ledger.settle_exposure(info.exposure_id) is ExposureState.PROCESSED
    assert ledger.exposure(info.exposure_id).reason == "1 of 2 jobs without result: no stars"


def test_facts_of_an_exposure_come_back_as_they_were(ledger, exposure):
    info = exposure(3, airmass=1.25, field=12, object_name="M 31", principal_investigator="Zwicky")
    ledger.add_exposure(info, detectors={1: "x"})
    ledger.add_exposure(info, detectors={2: "y"})
    row = ledger.exposure(info.exposure_id)
    assert row.info == info
    assert row.detectors == (1, 2)
    assert ledger.pixel_checksums(info.exposure_id) == {1: "x", 2: "y"}
    assert [r.id for r in ledger.exposures(field=12, band="g")] == [info.exposure_id]
    assert ledger.exposure(1) is None


def test_a_file_that_was_ingested_stays_so_when_it_comes_again(ledger):
    first = ledger.record_file("/a.fits", "00", FileStatus.INGESTED, exposure_id=5)
    assert ledger.record_file("/a.fits", "00", FileStatus.ALREADY) == first
    ledger.record_file("/copy.fits", "00", FileStatus.ALREADY, exposure_id=5)
    rows = ledger.files(sha256="00")
    assert [(row.path, row.status) for row in rows] == [("/a.fits", "ingested"), ("/copy.fits", "already")]


def test_a_refused_file_can_be_ingested_later(ledger):
    ledger.record_file("/a.fits", "00", FileStatus.REFUSED, reason="unknown filter")
    ledger.record_file("/a.fits", "00", FileStatus.INGESTED, exposure_id=5)
    (row,) = ledger.files()
    assert (row.status, row.reason, row.exposure_id) == (FileStatus.INGESTED, "", 5)


def test_pointings_near_each_other_are_one_field_also_across_ra_zero_and_at_the_pole(ledger):
    first = ledger.assign_field(ra=359.99, dec=10.0, tolerance_deg=0.05)
    assert ledger.assign_field(ra=0.01, dec=10.01, tolerance_deg=0.05) == first
    assert ledger.assign_field(ra=0.2, dec=10.0, tolerance_deg=0.05) != first
    pole = ledger.assign_field(ra=10.0, dec=89.99, tolerance_deg=0.05)
    assert ledger.assign_field(ra=190.0, dec=89.99, tolerance_deg=0.05) == pole
    ledger.add_field(Field(700, 30.0, -5.0, "named"))
    assert ledger.assign_field(ra=30.01, dec=-5.0, tolerance_deg=0.05).name == "named"
    assert ledger.assign_field(ra=50.0, dec=-5.0, tolerance_deg=0.05).id > 999_999


def test_the_number_of_a_field_does_not_depend_on_which_others_there_are(ledger, tmp_path):
    alone, crowded = ledger, Ledger(f"sqlite:///{tmp_path}/another.sqlite3")
    for ra in (10.0, 20.0, 30.0):
        crowded.assign_field(ra=ra, dec=3.0, tolerance_deg=0.05)
    here = {"ra": 40.0, "dec": 3.0, "tolerance_deg": 0.05}
    assert alone.assign_field(**here).id == crowded.assign_field(**here).id
    assert crowded.assign_field(ra=40.3, dec=3.0, tolerance_deg=0.05).id != crowded.assign_field(**here).id
    crowded.close()


def test_the_diary_keeps_what_happened_in_order(ledger):
    ledger.event("start", "night 20240101", "began", n=3)
    ledger.event("stop", "night 20240101")
    assert [(e.what, e.data) for e in ledger.events()] == [("start", {"n": 3}), ("stop", {})]
    assert ledger.events(what="stop")[0].subject == "night 20240101"
    assert ledger.events(since=time.time() + 10) == []


def test_a_ledger_of_the_first_layout_grows_and_keeps_its_exposures(tmp_path, exposure):
    path = tmp_path / "ledger.sqlite3"
    old, other = exposure(1), exposure(2, is_target_of_opportunity=True)
    first = Ledger(f"sqlite:///{path}")
    first.add_exposure(old)
    first.close()
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE exposures DROP COLUMN is_target_of_opportunity")
        for column in ("priority", "not_before"):
            connection.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
        for table in ("alarms", "metric_values", "expected_exposures"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("UPDATE ledger_versions SET version = 1")
    for _ in range(2):
        ledger = Ledger(f"sqlite:///{path}")
        assert ledger.exposure(old.exposure_id).info == old
        ledger.close()
    ledger = Ledger(f"sqlite:///{path}")
    ledger.add_exposure(other)
    assert ledger.exposure(other.exposure_id).info == other
    ledger.close()


def test_a_ledger_of_a_newer_code_is_not_touched(tmp_path):
    path = tmp_path / "ledger.sqlite3"
    Ledger(f"sqlite:///{path}").close()
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO ledger_versions VALUES (99, 0.0)")
    with pytest.raises(ConfigError, match="layout 99"):
        Ledger(f"sqlite:///{path}")


@pytest.mark.parametrize(
    ("url", "reason"),
    [("mysql://host/db", "not supported"), ("nonsense", "not a database URL"), ("postgresql://u:pw@h/d", "pgpass")],
)
def test_a_wrong_database_url_is_told_with_its_mend(url, reason):
    with pytest.raises(ConfigError, match=reason):
        checked_url(url)


def test_what_json_cannot_hold_is_kept_as_nothing_and_numpy_as_plain_numbers(ledger):
    job = ledger.submit("detector", {"visit": 5}, config={"limit": float("inf")})
    ledger.start(job)
    ledger.finish(
        job, {"rms": float("nan"), "n": np.int64(3), "corners": np.eye(2), "nested": [{"x": np.float32(0.5)}]}
    )
    done = ledger.job(job)
    assert done.metrics == {"rms": None, "n": 3, "corners": [[1.0, 0.0], [0.0, 1.0]], "nested": [{"x": 0.5}]}
    assert done.config == {"limit": None}


def test_what_was_done_before_a_time_is_done_anew_once_with_the_parameters_of_now(ledger):
    job = ledger.submit("science", {"exposure": 1}, config={"threshold": 5})
    ledger.start(job)
    ledger.finish(job, {"fwhm": 3.0})
    later = time.time() + 1.0
    assert not ledger.redo(job, before=later - 3600.0), "done since"
    assert ledger.redo(job, before=later, config={"threshold": 6})
    found = ledger.job(job)
    assert (found.state, found.config, found.attempts) == (JobState.PENDING, {"threshold": 6}, 0)
    assert not ledger.redo(job, before=later), "it waits already"
