"""Several processes at one repository, and processes that are killed."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time

import pytest

from gueststar.cameras.load import load_camera
from gueststar.model.exposure import ExposureInfo
from gueststar.model.rights import Program
from gueststar.store.ledger import Ledger
from gueststar.store.ledger_rows import JobState
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo


@pytest.fixture
def repo(tmp_path):
    """A repository of the simulated camera."""
    with SurveyRepo.create(tmp_path / "survey", load_camera("simcam")) as made:
        yield made


@pytest.fixture
def visit(repo):
    """An exposure of all four detectors."""
    glass = repo.camera.filters[0]
    info = ExposureInfo(
        repo.camera.name,
        "science",
        60000.25,
        30.0,
        20230224,
        Program.PUBLIC,
        glass.physical_filter,
        glass.band,
        150.0,
        20.0,
    )
    return repo.add_exposure(info, range(4)).exposure_id


_SHARED = """
import os, sys
from gueststar.store.ledger import Ledger
ledger = Ledger(sys.argv[1])
for number in range(int(sys.argv[2]), int(sys.argv[2]) + 30):
    job = ledger.submit("shared", {"n": number % 40})
    if ledger.start(job, worker=str(os.getpid())):
        ledger.finish(job, {"by": os.getpid()})
"""

_ENDLESS = """
import sys
from gueststar.store.ledger import Ledger
ledger = Ledger(sys.argv[1])
for number in range(1_000_000):
    job = ledger.submit("endless", {"n": number})
    ledger.start(job, worker="w")
    ledger.finish(job)
"""


def test_several_processes_write_at_once_and_every_job_is_done_once(tmp_path):
    url = f"sqlite:///{tmp_path}/ledger.sqlite3"
    workers = [subprocess.Popen([sys.executable, "-c", _SHARED, url, first]) for first in ("0", "15")]
    assert [worker.wait(60) for worker in workers] == [0, 0]
    jobs = Ledger(url).jobs()
    assert len(jobs) == 40
    assert all(job.state is JobState.DONE and job.attempts == 1 for job in jobs)


def test_a_ledger_survives_a_process_that_is_killed_while_it_writes(tmp_path):
    path = tmp_path / "ledger.sqlite3"
    url = f"sqlite:///{path}"
    ledger = Ledger(url)
    worker = subprocess.Popen([sys.executable, "-c", _ENDLESS, url])
    while len(ledger.jobs(state=JobState.DONE)) < 20:
        assert worker.poll() is None
        time.sleep(0.01)
    worker.kill()
    worker.wait()
    ledger.reset_running()
    states = {job.state for job in ledger.jobs()}
    assert states <= {JobState.DONE, JobState.PENDING}
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


_COMMIT_FOR_EVER = """
import itertools, sys
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo
repo, visit = SurveyRepo.open(sys.argv[1]), int(sys.argv[2])
for number in itertools.count():
    names = ("science_metrics", "difference_metrics")
    which = [(name, DataId(visit=visit, detector=d)) for name in names for d in range(4)]
    repo.commit([repo.stage(name, one, {"n": number}) for name, one in which])
    print(number, flush=True)
"""


def test_a_writer_that_is_killed_leaves_whole_batches(repo, visit):
    command = [sys.executable, "-c", _COMMIT_FOR_EVER, str(repo.root), str(visit)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    writer.stdout.readline()
    time.sleep(0.11)
    writer.kill()
    writer.wait()
    writer.stdout.close()
    found = repo.find("science_metrics") + repo.find("difference_metrics")
    assert len(found) == 8
    assert all(isinstance(repo.read(ref)["n"], int) for ref in found)
    repo.sweep(older_than_s=-1.0)
    which = DataId(visit=visit, detector=0)
    repo.put("science_metrics", which, {"n": -1})
    assert repo.get("science_metrics", which) == {"n": -1}


def test_a_run_of_which_only_the_name_was_written_is_written_anew(repo, visit):
    which = DataId(visit=visit, detector=0)
    repo.put("science_metrics", which, {"n": 1})
    with sqlite3.connect(repo.root / "registry.sqlite3") as connection:
        connection.execute("INSERT INTO collection (name, type) VALUES ('products/v2', 1)")
    with SurveyRepo.open(repo.root) as again:
        again.put("science_metrics", which, {"n": 2})
        assert again.get("science_metrics", which) == {"n": 2}
