"""The second copy: whole, verified, restartable, and of use to whoever has nothing else."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from gueststar.core.errors import ConfigError, DataError, TransientError
from gueststar.store.archive import archive as archive_module
from gueststar.store.archive.archive import Archive
from gueststar.store.archive.manifest import Entry, Manifest
from gueststar.store.archive.places import archive_place, batch_of
from gueststar.store.archive.volume import MARK, begin_volume
from tests.unit.actions.archived import archived_all, fill, put_file, with_archive
from tests.unit.actions.conftest import NIGHT, NOON


@pytest.fixture
def filled(repo, exposure, write_raw, make_image, tmp_path):
    """A survey of one exposure with an archive that is set and empty; and what is to be archived."""
    with_archive(repo, tmp_path / "tape")
    return fill(repo, exposure, write_raw, make_image)


def copies(tape: Path) -> set[str]:
    return {p.relative_to(tape).as_posix() for p in tape.rglob("*") if p.is_file() and "manifests" not in p.parts}


@pytest.mark.parametrize(
    ("file", "place", "batch"),
    [
        ("products/raw/20230224/f.fits.fz", "raw/2023/02/24/f.fits.fz", "20230224"),
        ("products/source/20230224/f.parquet", "products/source/2023/02/24/f.parquet", "20230224"),
        (
            "products/reference_image/field_000007/f.fits",
            "products/reference_image/field_000007/f.fits",
            "field_000007",
        ),
        ("alerts/20230224/1/f.tar", "alerts/2023/02/24/1/f.tar", "20230224"),
        ("entered/20230224/f.fits", "entered/2023/02/24/f.fits", "20230224"),
        ("refused/abc-f.fits", "refused/abc-f.fits", "refused"),
    ],
)
def test_every_kind_of_file_has_its_place(file, place, batch) -> None:
    assert archive_place(file) == place
    assert batch_of(file) == batch


def test_what_can_be_made_anew_has_no_place() -> None:
    for file in ("staging/f.fits", "cache/association/1/forced/f.arrow", "alerts/table/f.parquet", "survey.yaml"):
        assert archive_place(file) is None


def test_all_is_archived_under_its_date_with_a_manifest_that_sha256sum_reads(act, filled, tmp_path) -> None:
    done = act("archive_products")
    assert done.state == "done", done.text
    tape = tmp_path / "tape"
    night = {path for path in copies(tape) if path != MARK}
    assert {path.split("/")[0] for path in night} == {"raw", "products"}
    assert all("/2023/02/24/" in path for path in night)
    subprocess.run(["sha256sum", "--quiet", "-c", f"manifests/{NIGHT}.sha256"], cwd=tape, check=True)
    entries = Manifest(tape, str(NIGHT)).entries()
    assert set(entries) == set(filled)
    assert all((tape / entries[file].archive).read_bytes() == content for file, content in filled.items())
    assert all(path.stat().st_mode & 0o077 == 0 for path in tape.iterdir() if path.is_dir())


def test_two_detectors_of_one_raw_file_share_one_copy(act, filled, tmp_path) -> None:
    act("archive_products")
    raw = [file for file in filled if file.startswith("products/raw/")]
    assert len(raw) == 2
    entries = Manifest(tmp_path / "tape", str(NIGHT)).entries()
    assert len({entries[file].archive for file in raw}) == 1


def test_archived_again_nothing_is_copied_and_new_files_are(act, repo, filled) -> None:
    assert act("archive_products").data["n_copied"] == len(filled) - 1
    assert act("archive_products").state == "nothing"
    put_file(repo, NIGHT, b"another image")
    assert act("archive_products").data["n_copied"] == 1


def test_an_archive_that_was_broken_off_goes_on_where_it_stopped(repo, filled, tmp_path, monkeypatch) -> None:
    real, n_calls = archive_module.copy_verified, []

    def failing(*args, **options):
        n_calls.append(1)
        if len(n_calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(archive_module, "copy_verified", failing)
    with pytest.raises(KeyboardInterrupt):
        Archive(repo).update()
    assert len(Manifest(tmp_path / "tape", str(NIGHT)).entries()) >= 1
    with Manifest(tmp_path / "tape", str(NIGHT)).path.open("ab") as file:
        file.write(b'{"file": "products/source/2023')  # the power went off
    report = Archive(repo).update()
    assert not report.left
    assert set(Manifest(tmp_path / "tape", str(NIGHT)).entries()) == set(filled)


def test_a_copy_that_is_there_without_its_line_is_recorded_and_not_made_again(repo, filled, tmp_path) -> None:
    archived_all(repo)
    Manifest(tmp_path / "tape", str(NIGHT)).path.unlink()
    (tmp_path / "tape" / "manifests" / "scanned.json").unlink()
    report = Archive(repo).update()
    assert report.n_copied == 0
    assert set(Manifest(tmp_path / "tape", str(NIGHT)).entries()) == set(filled)


def test_a_product_that_is_not_what_its_name_says_is_told_and_never_written_over_a_good_copy(act, repo, filled) -> None:
    archive = archived_all(repo)
    file = next(file for file in filled if "science_image" in file)
    path = repo.root / file
    path.unlink()
    path.write_bytes(filled[file][:-1] + b"?")
    told = act("archive_products")
    assert told.state == "failed"
    assert "damaged" in told.text
    assert [c.kind for c in told.conditions if c.is_wrong] == ["product_damaged"]
    entry = Archive(repo).entry_of(file)
    assert entry is not None
    assert (archive.root / entry.archive).read_bytes() == filled[file]
    assert archive.restore(file) == "brought back"
    assert path.read_bytes() == filled[file]
    assert [p.read_bytes()[-1:] for p in (repo.root / "operator" / "broken").iterdir()] == [b"?"]


def test_a_file_whose_name_tells_nothing_is_archived_beside_its_older_content(repo, filled, tmp_path) -> None:
    path = repo.root / "alerts" / str(NIGHT) / "1" / "77_abc.tar"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"first")
    archived_all(repo)
    path.unlink()
    path.write_bytes(b"second")
    archive = archived_all(repo)
    entry = archive.entry_of(f"alerts/{NIGHT}/1/77_abc.tar")
    assert entry is not None
    assert (archive.root / entry.archive).read_bytes() == b"second"
    assert (archive.root / "alerts/2023/02/24/1/77_abc.tar").read_bytes() == b"first"


def test_a_raw_file_that_was_left_where_it_is_is_archived_by_its_content(repo, exposure, write_raw, tmp_path) -> None:
    with_archive(repo, tmp_path / "tape")
    raw = write_raw()
    repo.ingest_raw(raw, exposure(), [0], transfer="direct")
    archived_all(repo)
    copied = next((tmp_path / "tape" / "raw").rglob("*.fits"))
    assert not copied.is_symlink()
    assert copied.read_bytes() == raw.read_bytes()


def test_an_empty_mount_point_is_not_taken_for_the_archive(act, repo, filled, tmp_path) -> None:
    archived_all(repo)
    (tmp_path / "tape").rename(tmp_path / "unplugged")
    for action in ("archive_products", "verify_archive", "check_archive_disk"):
        with pytest.raises(TransientError, match="is away"):
            act(action)
    (tmp_path / "tape").mkdir()
    with pytest.raises(TransientError, match="is away"):
        act("archive_products")
    assert not list((tmp_path / "tape").iterdir())
    (tmp_path / "tape").rmdir()
    (tmp_path / "unplugged").rename(tmp_path / "tape")
    assert not act("archive_products").conditions[0].is_wrong


def test_a_new_disk_is_begun_by_a_person_and_filled_anew(repo, filled, tmp_path) -> None:
    archived_all(repo)
    (tmp_path / "tape").rename(tmp_path / "lost")
    begin_volume(repo)
    # A folder that was archived as a whole is remembered: the new disk must not be taken for the old one.
    assert set(archived_all(repo).entries(str(NIGHT))) == set(filled)


def test_a_folder_of_other_things_or_another_archive_is_refused(repo, filled, tmp_path) -> None:
    (tmp_path / "tape").mkdir()
    (tmp_path / "tape" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="not empty"):
        Archive(repo)
    (tmp_path / "tape" / "thesis.txt").unlink()
    archived_all(repo)
    mark = tmp_path / "tape" / MARK
    mark.write_text(json.dumps(json.loads(mark.read_text()) | {"id": "other"}))
    with pytest.raises(ConfigError, match="another archive"):
        Archive(repo)


def test_an_archive_within_the_repository_is_none(repo) -> None:
    with_archive(repo, repo.root / "products" / "archive")
    with pytest.raises(ConfigError, match="one within the other"):
        Archive(repo)


def test_an_archive_is_taken_up_by_a_repository_that_was_brought_back(repo, filled, tmp_path) -> None:
    archived_all(repo)
    (repo.root / "operator" / "archive.json").unlink()
    assert Archive(repo).root == tmp_path / "tape"


def test_bit_rot_is_found_told_and_mended_from_the_repository(act, repo, filled, tmp_path) -> None:
    act("archive_products")
    victim = next((tmp_path / "tape" / "products" / "science_image").rglob("*.fits"))
    good = victim.read_bytes()
    victim.write_bytes(good[:100] + bytes([good[100] ^ 1]) + good[101:])
    told = act("verify_archive", mend=False)
    assert told.state == "failed"
    assert told.data["n_rotten"] == 1
    assert "science_image" in told.data["rotten"][0]
    assert [c.kind for c in told.conditions if c.is_wrong] == ["archive_damaged"]
    mended = act("verify_archive")
    assert mended.data["n_mended"] == 1
    assert victim.read_bytes() == good
    assert not act("verify_archive").data["n_rotten"]


def test_a_link_in_the_archive_that_leads_back_to_the_repository_is_no_copy(act, repo, filled, tmp_path) -> None:
    act("archive_products")
    victim = next((tmp_path / "tape" / "products" / "science_image").rglob("*.fits"))
    source = next((repo.root / "products" / "science_image").rglob("*.fits"))
    victim.unlink()
    victim.symlink_to(source)
    assert act("verify_archive").data["n_mended"] == 1
    assert not victim.is_symlink()


def test_samples_go_round_so_that_every_night_has_its_turn(repo, tmp_path) -> None:
    with_archive(repo, tmp_path / "tape")
    for night in range(20230201, 20230207):
        put_file(repo, night, str(night).encode())
    now = [1.0]
    archive = Archive(repo, clock=lambda: now[0])
    archive.update()
    checked = []
    for turn in range(6):
        now[0] = 2.0 + turn
        assert archive.check(n_files=1).n_files == 1
        told = json.loads((tmp_path / "tape" / "manifests" / "checked.json").read_text())
        checked.append(max(told, key=told.__getitem__))
    assert sorted(checked) == [str(night) for night in range(20230201, 20230207)]


def test_a_product_is_brought_back_and_one_whose_copy_is_bad_is_not_touched(repo, filled, tmp_path) -> None:
    archive = archived_all(repo)
    file = next(file for file in filled if "science_image" in file)
    assert archive.restore(file) == "whole"
    (repo.root / file).unlink()
    assert archive.lacking(str(NIGHT)) == [file]
    assert archive.restore(file) == "brought back"
    assert (repo.root / file).read_bytes() == filled[file]
    entry = archive.entry_of(file)
    assert entry is not None
    (archive.root / entry.archive).write_bytes(b"rot")
    (repo.root / file).write_bytes(b"also rot")
    with pytest.raises(DataError, match="copy of .* is damaged"):
        archive.restore(file)
    assert (repo.root / file).read_bytes() == b"also rot"
    with pytest.raises(DataError, match="not in the archive"):
        archive.restore("products/source/20200101/none.parquet")


def test_the_archive_stops_before_its_disk_is_full_and_when_its_time_is_over(repo, filled) -> None:
    archive = Archive(repo)
    assert "less than" in archive.update(reserve_gb=1e9).left
    assert "time is over" in archive.update(stop=lambda: True).left
    assert not archive.update().left


def test_a_disk_that_takes_nothing_is_told_and_leaves_no_half_file(repo, filled, tmp_path, monkeypatch) -> None:
    archive = Archive(repo)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TransientError, match="No space left"):
        archive.update()
    monkeypatch.undo()
    assert copies(tmp_path / "tape") == {MARK}
    assert not Archive(repo).update().left


def test_the_rate_at_which_the_archive_fills_says_how_long_it_lasts(act, repo, tmp_path) -> None:
    with_archive(repo, tmp_path / "tape", archive_low_gb=0.0)
    for night in (20230222, 20230223):
        put_file(repo, night, os.urandom(500_000))
    act("archive_products")
    told = act("check_archive_disk")
    assert told.data["gb_per_night"] == pytest.approx(0.0005)
    assert told.data["nights_left"] == pytest.approx(told.data["free_gb"] / 0.0005, rel=0.01)
    assert told.data["coming_night"] == 20230225
    assert (tmp_path / "tape" / "raw" / "2023" / "02" / "25").is_dir()
    assert not list((tmp_path / "tape" / "raw" / "2023" / "02" / "25").iterdir())
    assert not [c for c in told.conditions if c.is_wrong]
    with_archive(repo, tmp_path / "tape", archive_low_gb=1e9)
    assert [c.kind for c in act("check_archive_disk").conditions if c.is_wrong] == ["archive_low"] * 2


def test_without_an_archive_there_is_nothing_to_do(act) -> None:
    for action in ("archive_products", "verify_archive", "check_archive_disk"):
        assert act(action).state == "nothing"


def test_a_dry_run_archives_nothing(act, filled, tmp_path) -> None:
    told = act("archive_products", is_dry=True)
    assert f"would archive {len(filled)} files" in told.text
    assert copies(tmp_path / "tape") == {MARK}


def test_back_ups_of_the_databases_find_their_place_in_the_archive(act, repo, tmp_path) -> None:
    with_archive(repo, tmp_path / "tape")
    assert act("maintenance", now=NOON).state == "done"
    assert (tmp_path / "tape" / "databases" / "20230225" / "ledger.sqlite3").exists()
    assert act("archive_products").state == "nothing"


def test_a_manifest_with_a_torn_line_reads_as_if_it_were_not_there(tmp_path) -> None:
    manifest = Manifest(tmp_path, "20230224")
    manifest.add([Entry("a", "x", "1", 1, 1, 1.0)])
    with manifest.path.open("ab") as file:
        file.write(b'{"file": "b", "arch')
    manifest.add([Entry("c", "y", "2", 1, 1, 1.0)])
    assert set(manifest.entries()) == {"a", "c"}
