"""Files are taken when they are whole, once, whatever the folder does in between."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gueststar.operations.landing.completeness import Stamp
from gueststar.operations.landing.journal import ArrivedFile, ReceiptJournal
from gueststar.operations.landing.place import PlaceAway, WatchedPlace, WholeFile
from gueststar.operations.landing.watcher import PlaceWatcher
from gueststar.store.operation_settings import LandingPlace


class Hours:
    """A monotonic clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def watched(folder: Path, monotonic: Callable[[], float], known: Callable[..., bool] = lambda *_: False, **settings):
    folder.mkdir(parents=True, exist_ok=True)
    return WatchedPlace(LandingPlace(path=folder, **settings), is_known=known, monotonic=monotonic)


def names(files: list[WholeFile]) -> list[str]:
    return [file.path.name for file in files]


def test_a_file_that_is_renamed_into_place_is_whole_at_once(tmp_path: Path) -> None:
    place = watched(tmp_path, Hours(), complete_by="rename")
    for unfinished in (".a.fits", "a.fits.part", "a.fits.tmp", "a.fits~", "b.txt"):
        (tmp_path / unfinished).write_bytes(b"half")
    assert place.scan() == []
    (tmp_path / "a.fits.part").rename(tmp_path / "a.fits")
    assert names(place.look_at([tmp_path / "a.fits"])) == ["a.fits"]
    assert place.scan() == []  # once


def test_a_growing_file_is_taken_when_it_has_stayed_the_same(tmp_path: Path) -> None:
    clock = Hours()
    place = watched(tmp_path, clock, complete_by="stable", stable_s=5)
    path = tmp_path / "night" / "a.fits"
    path.parent.mkdir()
    path.write_bytes(b"1234")
    assert place.scan() == []
    clock.now += 4
    path.write_bytes(b"12345678")
    assert place.scan() == []
    clock.now += 4.9
    assert place.scan() == []
    clock.now += 0.2
    assert names(place.look_at([])) == ["a.fits"]  # no event tells that nothing happened
    assert place.n_arriving == 0


@pytest.mark.parametrize("rule", ["stable", "checksum"])
def test_an_empty_file_is_handed_over_when_it_has_been_empty_for_long_and_again_when_it_grows(
    tmp_path: Path, rule: str
) -> None:
    clock = Hours()
    place = watched(tmp_path, clock, complete_by=rule, stable_s=1, empty_s=600)
    path = tmp_path / "a.fits"
    path.touch()
    place.scan()
    clock.now += 599
    assert place.scan() == []
    assert place.n_arriving == 1
    clock.now += 2
    assert [file.stamp.size for file in place.look_at([])] == [0]
    assert place.n_arriving == 0
    assert place.scan() == []  # once
    path.write_bytes(b"pixels")
    (tmp_path / "a.fits.md5").write_text(hashlib.md5(b"pixels").hexdigest())
    place.scan()
    clock.now += 2
    assert [file.stamp.size for file in [*place.look_at([path])]] == [6] if rule == "stable" else True
    assert place.n_arriving == 0


@pytest.mark.parametrize("name", ["sha256", "md5"])
def test_a_file_is_whole_when_its_checksum_agrees(tmp_path: Path, name: str) -> None:
    place = watched(tmp_path, Hours(), complete_by="checksum")
    path = tmp_path / "a.fits"
    path.write_bytes(b"half")
    assert place.scan() == []
    (tmp_path / f"a.fits.{name}").write_text(f"{hashlib.new(name, b'whole').hexdigest()}  a.fits\n")
    assert place.look_at([tmp_path / f"a.fits.{name}"]) == []
    path.write_bytes(b"whole")
    assert names(place.look_at([path])) == ["a.fits"]
    assert place.scan() == []


def test_the_same_name_with_other_content_is_another_file(tmp_path: Path) -> None:
    place = watched(tmp_path, Hours(), complete_by="rename")
    path = tmp_path / "a.fits"
    path.write_bytes(b"one")
    assert names(place.scan()) == ["a.fits"]
    path.write_bytes(b"another")
    assert names(place.scan()) == ["a.fits"]
    path.unlink()
    place.scan()
    path.write_bytes(b"another")
    assert names(place.scan()) == ["a.fits"]


def test_a_place_that_vanishes_says_so_and_is_taken_up_again(tmp_path: Path) -> None:
    folder = tmp_path / "landing"
    place = watched(folder, Hours(), complete_by="rename")
    (folder / "a.fits").write_bytes(b"a")
    assert len(place.scan()) == 1
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(PlaceAway, match="does not answer"):
        place.scan()
    (tmp_path / "elsewhere").rename(folder)
    (folder / "b.fits").write_bytes(b"b")
    assert names(place.scan()) == ["b.fits"]


def test_lists_and_orbits_have_any_name(tmp_path: Path) -> None:
    place = watched(tmp_path, Hours(), complete_by="rename", holds="schedule")
    (tmp_path / "tonight.csv").write_text("time\n")
    assert names(place.scan()) == ["tonight.csv"]


def test_receipts_survive_a_kill_and_are_not_asked_again(tmp_path: Path) -> None:
    (tmp_path / "operator").mkdir()
    files = [ArrivedFile(tmp_path / f"{k}.fits", Stamp(k, 10 * k), 1000.0 + k) for k in (1, 2, 3)]
    for file in files:
        file.path.write_bytes(b"x" * file.stamp.size)
    journal = ReceiptJournal(tmp_path)
    journal.add(files)
    journal.taken(files[0])
    with (tmp_path / "operator" / "landing.jsonl").open("a") as half:
        half.write('{"path": "/tm')  # killed in the middle of a line
    files[2].path.unlink()
    again = ReceiptJournal(tmp_path)
    assert again.is_taken(files[0].path, files[0].stamp)
    assert not again.is_taken(files[1].path, files[1].stamp)
    assert again.received(files[1].path, files[1].stamp) == 1002.0
    assert again.received(files[1].path, Stamp(9, 9)) is None
    assert again.received(files[2].path, files[2].stamp) is None  # it is gone
    again.add([ArrivedFile(files[1].path, files[1].stamp, 5000.0)])
    assert ReceiptJournal(tmp_path).received(files[1].path, files[1].stamp) == 1002.0  # when it was first there


class At:
    """A clock of the day."""

    def __init__(self, now: float) -> None:
        self.time = now

    def now(self) -> float:
        return self.time


def test_events_and_scans_hand_each_file_over_once_with_the_time_it_was_first_whole(tmp_path: Path) -> None:
    folder, clock, woken = tmp_path / "landing", At(5000.0), []
    folder.mkdir()
    (tmp_path / "operator").mkdir()
    settings = LandingPlace(path=folder, complete_by="rename", scan_s=0.3)
    watcher = PlaceWatcher(settings, ReceiptJournal(tmp_path), clock=clock, wake=lambda: woken.append(1))
    watcher.start()
    found: list[ArrivedFile] = []
    try:
        for k in range(4):
            (folder / f".{k}").write_bytes(b"pixels")
            os.rename(folder / f".{k}", folder / f"{k}.fits")
        for _ in range(200):
            found += watcher.arrived()
            if len(found) == 4 and watcher.n_scans > 2:
                break
            watcher._stop.wait(0.02)
    finally:
        watcher.stop()
    assert sorted(file.path.name for file in found) == ["0.fits", "1.fits", "2.fits", "3.fits"]
    assert {file.received for file in found} == {5000.0}
    assert woken
    later = PlaceWatcher(settings, ReceiptJournal(tmp_path), clock=At(9000.0), wake=lambda: None)
    later.scan()
    assert {file.received for file in later.arrived()} == {5000.0}  # the operator was killed before it took them
