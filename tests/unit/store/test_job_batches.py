"""Many jobs in one transaction fare as they would one by one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gueststar.core.errors import ConfigError
from gueststar.store.job_batches import JobBatches, JobEnding, JobRequest
from gueststar.store.ledger import Ledger
from gueststar.store.ledger_rows import JobState


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite3")
    yield made
    made.close()


def requests(n: int) -> list[JobRequest]:
    return [
        JobRequest("science", {"visit": i, "detector": 2}, i, 2, 20240101, inputs={"file": f"{i}"}) for i in range(n)
    ]


def test_they_are_the_same_jobs_as_those_submitted_one_by_one(ledger: Ledger) -> None:
    alone = ledger.submit("science", {"detector": 2, "visit": 1}, exposure_id=1, detector=2, day_obs=20240101)
    many = JobBatches(ledger).submit(requests(3))
    assert many[1] == alone
    assert JobBatches(ledger).submit(requests(3)) == many
    assert len(ledger.jobs()) == 3
    job = ledger.job(many[2])
    assert job is not None
    assert (job.exposure_id, job.detector, job.day_obs, job.inputs, job.priority) == (2, 2, 20240101, {"file": "2"}, 50)


def test_only_pending_ones_are_started_and_their_attempts_counted(ledger: Ledger) -> None:
    batches = JobBatches(ledger)
    ids = batches.submit(requests(1200))
    assert ledger.start(ids[3])
    assert batches.start(ids, worker="a") == [job for job in ids if job != ids[3]]
    assert batches.start(ids) == []
    assert {job.attempts for job in ledger.jobs()} == {1}
    assert {job.state for job in ledger.jobs()} == {JobState.RUNNING}


def test_each_gets_its_own_end(ledger: Ledger) -> None:
    batches = JobBatches(ledger)
    ids = batches.submit(requests(4))
    batches.start(ids)
    states = batches.settle(
        [
            JobEnding(ids[0], JobState.DONE, metrics={"fwhm": 2.0}, cpu_s=1.5, peak_rss_mb=300.0),
            JobEnding(ids[1], JobState.FAILED, reason="these pixels", error_kind="DataError"),
            JobEnding(ids[2], JobState.FAILED, reason="the disk", error_kind="TransientError", is_retryable=True),
            JobEnding(ids[3], JobState.HELD, reason="no catalog"),
        ]
    )
    assert list(states.values()) == [JobState.DONE, JobState.FAILED, JobState.PENDING, JobState.HELD]
    done = ledger.job(ids[0])
    assert done is not None
    assert (done.metrics, done.cpu_s, done.peak_rss_mb) == ({"fwhm": 2.0}, 1.5, 300.0)
    assert [ledger.job(job).reason for job in ids[1:]] == ["these pixels", "the disk", "no catalog"]  # type: ignore[union-attr]


def test_attempts_run_out_as_they_do_one_by_one(ledger: Ledger) -> None:
    batches = JobBatches(ledger)
    ids = batches.submit(requests(1))
    for expected in (JobState.PENDING, JobState.PENDING, JobState.QUARANTINED):
        batches.start(ids)
        assert batches.settle([JobEnding(ids[0], JobState.FAILED, is_retryable=True)]) == {ids[0]: expected}


def test_an_unknown_job_is_an_error_and_nothing_is_written(ledger: Ledger) -> None:
    batches = JobBatches(ledger)
    ids = batches.submit(requests(1))
    batches.start(ids)
    with pytest.raises(ConfigError, match="no job 77"):
        batches.settle([JobEnding(ids[0], JobState.DONE), JobEnding(77, JobState.DONE)])
    assert ledger.job(ids[0]).state is JobState.RUNNING  # type: ignore[union-attr]
