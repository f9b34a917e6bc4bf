"""An operated night, its files out of order and its operator killed, ends as one that was processed undisturbed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gueststar.store.detections.store import DetectionStore
from gueststar.store.ledger import JobState
from gueststar.store.repo import SurveyRepo

from ._survey import alert_digests, copied_survey, gueststar, make_survey, product_digests, wait_until

pytestmark = pytest.mark.slow


def operated(root: Path) -> subprocess.Popen[str]:
    """Run the operator as a process of its own until it is idle."""
    command = [
        sys.executable,
        "-c",
        "from gueststar.cli.main import main; main()",
        "operate",
        str(root),
        "--workers",
        "0",
        "--until-idle",
    ]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def let_land(landing: Path, files: list[Path]) -> None:
    """Write files under another name, then rename them."""
    for path in files:
        half = landing / f"{path.name}.part"
        shutil.copyfile(path, half)
        half.rename(landing / path.name)


def test_a_disturbed_operated_night_ends_as_an_undisturbed_processed_one(
    small_sky: Path, small_first_night: Path, tmp_path: Path
) -> None:
    sky, landing = small_sky, tmp_path / "landing"
    first_night = min(sky.glob("raw/*"))
    files = sorted(first_night.glob("*.fits*"))
    plain, root = copied_survey(small_first_night, tmp_path / "plain"), tmp_path / "operated"
    make_survey(root, sky)
    landing.mkdir()
    settings = yaml.safe_load((root / "survey.yaml").read_text())
    place = {"path": str(landing), "complete_by": "rename", "scan_s": 0.5, "after": "remove"}
    settings["operation"] = {"landing": [place], "queue": {"calibrations_quiet_s": 1.0}}
    (root / "survey.yaml").write_text(yaml.safe_dump(settings))
    random.Random(7).shuffle(files)
    (landing / "half.fits.part").write_bytes(b"SIMPLE")

    let_land(landing, files[:8])
    with SurveyRepo.open(root) as repo:
        first = operated(root)
        let_land(landing, files[8:])
        wait_until(lambda: repo.ledger.jobs(kind="science", state=JobState.DONE), first)
        busy = gueststar("process", root, status=3)
        first.send_signal(signal.SIGKILL)
        first.wait()
    let_land(landing, files[:2])  # these come again
    again = operated(root)
    said, _ = again.communicate(timeout=600)
    assert again.returncode == 0, said

    assert f"process {first.pid} on " in busy
    assert "operates" in busy
    assert [path.name for path in landing.iterdir()] == ["half.fits.part"]
    assert product_digests(root) == product_digests(plain)
    assert alert_digests(root) == alert_digests(plain) != {}
    tables = [DetectionStore.at(folder) for folder in (root, plain)]
    (night,) = {row.info.day_obs for row in SurveyRepo.open(root).ledger.exposures()}
    one, other = (store.sources_of_night(night) for store in tables)
    assert one.n_rows == other.n_rows > 0
    assert sorted(one["dia_object_id"].tolist()) == sorted(other["dia_object_id"].tolist())
    report = gueststar("night", "report", root)
    assert "every one is explained" in report
    with SurveyRepo.open(root) as repo:
        assert len(repo.ledger.events(what="operator", subject="started")) == 2
        assert {job.attempts for job in repo.ledger.jobs() if job.state is JobState.DONE} <= {1, 2}
        assert repo.ledger.events(what="closed")
        assert "decision" in {event.what for event in repo.ledger.events()}
