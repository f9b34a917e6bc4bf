"""Headers of files that landed are read beside the loop; tonight's files are taken in before those that came late."""

import threading
import time
from pathlib import Path

import pytest

from gueststar.operations.landing.completeness import Stamp
from gueststar.operations.landing.journal import ArrivedFile
from gueststar.operations.operator import intake as rooms
from gueststar.operations.operator.intake import HeaderReader, Intake, Waiting
from gueststar.store.operation_settings import LandingPlace

from ._rehearsal import CAMERA


def arrived(name: str, received: float = 0.0) -> ArrivedFile:
    return ArrivedFile(Path(name), Stamp(1, 1), received)


def entry(file: ArrivedFile) -> Waiting:
    return Waiting(False, file.received, file.path.name, file)


def test_the_last_that_came_is_read_first_and_nobody_waits_long_for_the_rest() -> None:
    let_go, woken = threading.Event(), threading.Event()

    def look(file: ArrivedFile) -> Waiting:
        assert let_go.wait(10.0)
        return entry(file)

    reader = HeaderReader(look, woken.set)
    reader.read([arrived("first")])
    time.sleep(0.1)  # it is being read
    reader.read([arrived(name) for name in ("second", "third", "fourth")])
    begun = time.monotonic()
    assert reader.seen(wait_s=0.05) == []
    assert time.monotonic() - begun < 5.0
    assert reader.n_in_hand == 4
    let_go.set()
    assert woken.wait(10.0)
    assert [item.name for item in reader.seen(wait_s=10.0)] == ["first", "fourth", "third", "second"]
    assert reader.n_in_hand == 0
    reader.stop()


def test_a_header_that_nobody_foresaw_is_told_of_when_it_is_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(path: Path) -> None:
        raise RecursionError(path)

    monkeypatch.setattr(rooms, "read_headers", crash)
    intake = Intake(LandingPlace(path=Path("/landing")), CAMERA, prompt_s=600.0)
    seen = intake._entry(arrived("odd.fits", 5.0))
    assert (seen.info, seen.is_late, seen.began) == (None, False, 5.0)


def test_files_that_came_late_wait_for_tonights_but_get_their_share() -> None:
    intake = Intake(LandingPlace(path=Path("/landing")), CAMERA, prompt_s=600.0, backlog_share=4)
    files = [Waiting(k >= 8, float(k), f"{k}", arrived(f"{k}")) for k in range(12)]
    intake.waiting = sorted(files)
    assert [item.name for item in intake.next_files(6)] == ["0", "1", "2", "8", "3", "4"]
    assert len(intake.waiting) == 12  # until they are taken


def test_what_is_read_waits_for_the_headers_of_the_rest_but_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    intake = Intake(LandingPlace(path=Path("/landing")), CAMERA, prompt_s=600.0)
    now = time.monotonic()
    intake.waiting = [Waiting(False, 0.0, "prompt", arrived("prompt"), None, now)]
    intake.waiting += [Waiting(True, 1.0, "late", arrived("late"), None, now - 30.0)]
    monkeypatch.setattr(Intake, "_n_unseen", 1)
    assert intake.next_files(4) == []
    monkeypatch.setattr(time, "monotonic", lambda: now + 6.0)
    assert [item.name for item in intake.next_files(4)] == ["prompt"]
    monkeypatch.setattr(time, "monotonic", lambda: now + 31.0)
    assert [item.name for item in intake.next_files(4)] == ["prompt", "late"]
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(Intake, "_n_unseen", 0)
    assert [item.name for item in intake.next_files(4)] == ["prompt", "late"]
