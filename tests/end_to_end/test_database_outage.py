"""A database server that stops in the middle of a night and comes back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gueststar.store.ledger import JobState
from gueststar.store.repo import SurveyRepo

from ..postgres_server import PostgresServer, running_server
from ._survey import gueststar, processing, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    """A new server; skips where none is installed."""
    with running_server() as server:
        yield server


def read_until(words: str, process: subprocess.Popen[str]) -> None:
    """Read what a process says up to the line with these words."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if words in line:
            return
    raise AssertionError(f"it never said {words!r}, but {''.join(said)}")


def test_a_night_goes_on_when_its_database_comes_back(
    postgres: PostgresServer, small_sky: Path, tmp_path: Path
) -> None:
    root, (first_night, _) = tmp_path / "survey", sorted(small_sky.glob("raw/*"))
    gueststar("init", root, "--camera", "simcam", "--db", postgres.url)
    gueststar("refcat", "import", root, small_sky / "refcat.parquet")
    gueststar("ingest", root, first_night, "--transfer", "link")
    n_done = 0
    with SurveyRepo.open(root) as repo, processing(root) as process:
        for stage in ("science", "difference"):  # out in the middle of both
            wait_until(lambda stage=stage: repo.ledger.jobs(kind=stage, state=JobState.DONE), process)
            n_done = len(repo.ledger.jobs(state=JobState.DONE))
            postgres.stop()
            assert gueststar("night", "list", root, status=3).startswith("gueststar: the database does not work now")
            read_until("waiting for it", process)
            postgres.start()
            read_until("going on", process)
        said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    (night,) = (line.split()[0] for line in gueststar("night", "list", root).splitlines())
    report = json.loads(gueststar("night", "report", root, "--night", night, "--json", "-"))
    assert report["is_explained"]
    assert report["processed"] == report["received"] > 0
    with SurveyRepo.open(root) as repo:
        jobs = repo.ledger.jobs()
    assert len(jobs) > n_done
    assert all(job.state is JobState.DONE for job in jobs)
