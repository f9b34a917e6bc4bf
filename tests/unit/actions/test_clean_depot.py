"""What is old goes by age, and never the only copy of a raw file."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from gueststar.pipelines.ingest import ingest_paths
from gueststar.store.archive.archive import Archive
from tests.unit.actions.archived import LONG_AGO, with_archive

NOW = time.time()


def write(path: Path, *, days: float = 1000.0, content: bytes = b"old") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (NOW - days * 86400,) * 2)
    return path


def refuse(repo, path: Path) -> Path:
    """Hand in a file that is no exposure, and let its copy grow old; return the copy."""
    assert ingest_paths(repo, [path]).refused
    (copy,) = (p for p in (repo.root / "refused").iterdir() if p.name.endswith(path.name))
    for kept in (repo.root / "refused").iterdir():
        os.utime(kept, (LONG_AGO, LONG_AGO))
    return copy


@pytest.fixture
def broken(tmp_path) -> Path:
    """A file that cannot become an exposure."""
    path = tmp_path / "link" / "broken.fits"
    path.parent.mkdir()
    path.write_bytes(b"SIMPLE  = no")
    return path


def test_old_reports_logs_and_exports_go_and_younger_ones_stay(act, repo) -> None:
    old = [
        write(repo.root / "reports" / "20200101" / "report.html"),
        write(repo.root / "logs" / "operator.jsonl.3.20200101T000000.gz", days=121),
        write(repo.root / "exports" / "candidates" / "2020" / "01" / "01" / "c.parquet", days=181),
    ]
    young = [
        write(repo.root / "reports" / "20260101" / "report.html", days=700),
        write(repo.root / "logs" / "operator.jsonl", days=119),
        write(repo.root / "exports" / "mine.tar", days=10),
        write(repo.root / "products" / "raw" / "20200101" / "raw.fits"),
        write(repo.root / "elsewhere.txt"),
    ]
    assert act("clean_depot", now=NOW, is_dry=True).text == "would remove 1 reports, 1 logs, 1 exports"
    assert all(path.exists() for path in old)
    done = act("clean_depot", now=NOW)
    assert done.data["removed"] == {"reports": 1, "logs": 1, "exports": 1, "refused": 0}
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in young)
    assert not (repo.root / "exports" / "candidates").exists(), "empty folders go as well"
    assert act("clean_depot", now=NOW).state == "nothing"
    assert [event.what for event in repo.ledger.events(what="depot")] == ["depot"]


def test_zero_days_mean_never(act, repo) -> None:
    path = write(repo.root / "logs" / "old.log")
    assert act("clean_depot", now=NOW, log_days=0).state == "nothing"
    assert path.exists()


def test_links_are_neither_followed_nor_removed(act, repo, tmp_path) -> None:
    precious = write(tmp_path / "home" / "thesis.tex")
    (repo.root / "exports").mkdir()
    (repo.root / "exports" / "home").symlink_to(tmp_path / "home")
    (repo.root / "exports" / "thesis.tex").symlink_to(precious)
    act("clean_depot", now=NOW)
    assert precious.exists()
    assert (repo.root / "exports" / "thesis.tex").is_symlink()


def test_a_refused_file_whose_origin_is_still_there_goes_with_its_reason(act, repo, broken) -> None:
    copy = refuse(repo, broken)
    done = act("clean_depot", now=NOW)
    assert done.data["removed"]["refused"] == 2
    assert not copy.exists()
    assert list((repo.root / "refused").iterdir()) == []
    assert broken.exists()


@pytest.mark.parametrize("fate", ["removed", "changed", "a link to the copy"])
def test_a_refused_file_that_is_the_only_copy_stays(act, repo, broken, fate) -> None:
    copy = refuse(repo, broken)
    broken.unlink()
    if fate == "changed":
        broken.write_bytes(b"another file of this name")
    elif fate == "a link to the copy":
        broken.symlink_to(copy)
    done = act("clean_depot", now=NOW)
    assert done.data["n_refused_kept"] == 1
    assert "the only copies" in done.text
    assert copy.read_bytes() == b"SIMPLE  = no"


def test_a_refused_file_that_is_archived_goes_unless_its_copy_is_damaged(act, repo, broken, tmp_path) -> None:
    with_archive(repo, tmp_path / "tape")
    copy = refuse(repo, broken)
    broken.unlink()
    Archive(repo).update()
    kept = tmp_path / "tape" / "refused" / copy.name
    content = kept.read_bytes()
    kept.write_bytes(content[:-1] + b"?")
    act("clean_depot", now=NOW)
    assert copy.exists()
    kept.write_bytes(content)
    act("clean_depot", now=NOW)
    assert not copy.exists()


def test_a_file_that_was_refused_first_and_ingested_later_goes(act, repo, write_raw, tmp_path) -> None:
    raw = write_raw("early.fits", FILTER="z")  # no filter of this camera: a person adds it later
    assert ingest_paths(repo, [raw]).refused
    (copy,) = (p for p in (repo.root / "refused").iterdir() if p.suffix == ".fits")
    os.utime(copy, (LONG_AGO, LONG_AGO))
    glass = repo.camera.filters[0].model_copy(update={"aliases": ("g", "z")})
    repo.camera = repo.camera.model_copy(update={"filters": (glass, *repo.camera.filters[1:])})
    shutil.move(raw, tmp_path / "late.fits")
    assert ingest_paths(repo, [tmp_path / "late.fits"]).ingested == 1
    (tmp_path / "late.fits").unlink()
    act("clean_depot", now=NOW)
    assert not copy.exists()


def test_young_refused_files_stay(act, repo, broken) -> None:
    copy = refuse(repo, broken)
    os.utime(copy, (NOW - 89 * 86400,) * 2)
    act("clean_depot", now=NOW)
    assert copy.exists()


def test_a_rehearsals_clock_makes_no_file_old(act, repo) -> None:
    path = write(repo.root / "logs" / "young.log", days=1)
    act("clean_depot", now=NOW + 10_000 * 86400)
    assert path.exists()
