"""A landing place that goes away in the middle of taking a file in costs neither the operator nor the file."""

import time
from pathlib import Path

import pytest

from gueststar.operations.operator import intake as rooms
from gueststar.operations.operator.intake import Intake
from gueststar.store.ledger import FileStatus
from gueststar.store.repo import SurveyRepo

from ._rehearsal import CAMERA, ToldEngine, make_repo, operator_of


@pytest.mark.parametrize("is_late", [False, True], ids=["before it is read", "while it is taken in"])
def test_it_is_taken_when_it_is_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_late: bool) -> None:
    (landing := tmp_path / "landing").mkdir()
    place = {"path": str(landing), "scan_s": 0.1, "stable_s": 0.05}
    take_raw = rooms.take_raw

    def vanishing(repo: SurveyRepo, file, settings):
        if is_late:
            landing.rename(tmp_path / "away")
            raise FileNotFoundError(file.path)
        return take_raw(repo, file, settings)

    with make_repo(tmp_path / "survey", landing=[place]) as repo:
        intake = Intake(repo.settings.operation.landing[0], CAMERA, prompt_s=600.0)
        operator = operator_of(repo, ToldEngine(), intakes=(intake,))
        operator.start()
        try:
            (landing / "a.fits").write_bytes(b"no pixels")
            wait_until(lambda: operator.parts.n_landed)
            if not is_late:
                landing.rename(tmp_path / "away")
            with monkeypatch.context() as patched:
                patched.setattr(rooms, "take_raw", vanishing)
                operator.guarded_turn()
            assert operator.standing.mode == "running"
            assert repo.ledger.files() == []
            (tmp_path / "away").rename(landing)
            wait_until(lambda: operator.guarded_turn() and repo.ledger.files())
            assert [row.status for row in repo.ledger.files()] == [FileStatus.REFUSED]  # there are no pixels in it
        finally:
            operator.close(patience_s=1.0)


def wait_until(condition) -> None:
    end = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
