"""Room is made, and nothing goes whose bytes are not elsewhere: whatever the files are like, whenever it is killed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gueststar.operations.actions.catalog import ACTIONS
from gueststar.operations.actions.contract import ActionContext, ActionResult
from gueststar.store.archive import cleanup as cleanup_module
from gueststar.store.archive import proofs
from gueststar.store.archive.cleanup import PLANS, read_plan, unfinished_plans
from gueststar.store.archive.manifest import Entry, Manifest
from gueststar.store.archive.places import archive_place
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo
from tests.unit.actions.archived import LONG_AGO, archived_all, fill, put_file, with_archive
from tests.unit.actions.conftest import NIGHT

LATER = 20240101
"""A night long after, so that all products are old."""

NOW = time.time()


def clean(repo: SurveyRepo, *, is_dry: bool = False, **arguments: object) -> ActionResult:
    """Ask for more room than there is anywhere."""
    given_arguments = {"below_gb": 1e12, "until_gb": 1e12, **arguments}
    return ACTIONS["clean_sandbox"](ActionContext(repo, LATER, NOW, given_arguments, is_dry))


def contents(root: Path) -> dict[Path, bytes]:
    """Return what one reads at every path of products, links followed."""
    return {path: path.read_bytes() for path in sorted((root / "products").rglob("*")) if path.is_file()}


def test_archived_products_become_links_to_their_copies_and_are_read_as_before(
    repo, exposure, write_raw, make_image, tmp_path
) -> None:
    with_archive(repo, tmp_path / "tape")
    fill(repo, exposure, write_raw, make_image)
    archived_all(repo)
    before, which = contents(repo.root), DataId(visit=exposure().exposure_id, detector=0)
    image = repo.get("science_image", which)
    done = clean(repo)
    assert done.state == "done", done.text
    assert done.data["n_archived"] == 2
    assert contents(repo.root) == before
    assert repo.path("science_image", which).is_symlink()
    assert (repo.get("science_image", which).pixels.image == image.pixels.image).all()
    assert not any(path.is_symlink() for path in (repo.root / "products" / "raw").rglob("*"))
    assert repo.sweep(older_than_s=0.0) == []


def test_raw_files_go_only_when_asked_for_and_references_never(repo, exposure, write_raw, make_image, tmp_path) -> None:
    with_archive(repo, tmp_path / "tape")
    fill(repo, exposure, write_raw, make_image)
    repo.commit([repo.stage("reference_metrics", DataId(field=_field(repo), detector=0, band="g"), {"n_epochs": 5})])
    archived_all(repo)
    clean(repo, raw=True)
    links = {path.relative_to(repo.root).parts[1] for path in (repo.root / "products").rglob("*") if path.is_symlink()}
    assert links == {"raw", "science_image", "source"}


def _field(repo: SurveyRepo) -> int:
    return repo.ledger.fields()[0].id


def test_the_plan_with_its_proofs_is_written_and_told_before_the_first_file_goes(repo, tmp_path, monkeypatch) -> None:
    with_archive(repo, tmp_path / "tape")
    file = put_file(repo, NIGHT, b"pixels")
    archived_all(repo)
    seen = []

    def watched(root: Path, proof: proofs.Proof) -> None:
        plan = read_plan(next((root / PLANS).glob("*.json")))
        seen.append((plan.state, plan.archived, repo.ledger.events(what="cleanup")))
        proofs.put_out(root, proof)

    monkeypatch.setattr(cleanup_module, "put_out", watched)
    done = clean(repo)
    ((state, (proof,), (event,)),) = seen
    assert state == "planned"
    assert (proof.file, proof.sha256) == (file, hashlib.sha256(b"pixels").hexdigest())
    assert Path(proof.archive).read_bytes() == b"pixels"
    assert (event.subject, event.data["state"]) == (done.data["plan"], "planned")
    assert read_plan(repo.root / done.data["plan"]).state == "done"


def test_a_dry_run_shows_the_plan_and_changes_nothing(repo, tmp_path) -> None:
    with_archive(repo, tmp_path / "tape")
    file = put_file(repo, NIGHT, b"pixels")
    archived_all(repo)
    told = clean(repo, is_dry=True)
    assert told.data["files"] == [file]
    assert not (repo.root / file).is_symlink()
    assert not (repo.root / PLANS).exists()


def test_no_more_goes_than_is_needed_and_the_oldest_night_goes_first(repo, tmp_path, monkeypatch) -> None:
    with_archive(repo, tmp_path / "tape")
    files = [put_file(repo, night, os.urandom(200_000)) for night in (20230301, 20230201, 20231225)]
    archived_all(repo)
    free = shutil.disk_usage(repo.root).free / 1e9
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(int(1e12), 0, int(free * 1e9)))
    clean(repo, below_gb=free + 0.0001, until_gb=free + 0.0003)
    assert [(repo.root / file).is_symlink() for file in files] == [True, True, False]
    assert clean(repo, below_gb=free - 1, until_gb=free).state == "nothing"


def test_the_last_nights_stay_at_hand(repo, tmp_path) -> None:
    with_archive(repo, tmp_path / "tape")
    files = [put_file(repo, night, str(night).encode()) for night in (20231218, 20231219, 20240101)]
    archived_all(repo)
    clean(repo, keep_nights=14)
    assert [(repo.root / file).is_symlink() for file in files] == [True, False, False]


def test_without_an_archive_only_leftovers_and_caches_go(repo) -> None:
    product = put_file(repo, NIGHT, b"pixels")
    for name, age_h in (("staging/old.fits", 30), ("staging/new.fits", 1), ("scratch/a/old", 30), ("cache/x/y", 1)):
        path = repo.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"left over")
        os.utime(path, (NOW - age_h * 3600,) * 2)
    done = clean(repo)
    assert done.data["n_loose"] == 3
    assert (repo.root / "staging" / "new.fits").exists()
    assert not (repo.root / "staging" / "old.fits").exists()
    assert (repo.root / product).exists()


def test_a_link_in_a_folder_for_leftovers_is_not_followed(repo, tmp_path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "only.fits").write_bytes(b"the only copy")
    os.utime(tmp_path / "precious" / "only.fits", (LONG_AGO, LONG_AGO))
    (repo.root / "cache").mkdir()
    (repo.root / "cache" / "link").symlink_to(tmp_path / "precious")
    (repo.root / "staging" / "link.fits").symlink_to(tmp_path / "precious" / "only.fits")
    clean(repo)
    assert (tmp_path / "precious" / "only.fits").exists()


def test_while_the_archive_is_away_no_product_goes(repo, tmp_path) -> None:
    with_archive(repo, tmp_path / "tape")
    file = put_file(repo, NIGHT, b"pixels")
    archived_all(repo)
    (tmp_path / "tape").rename(tmp_path / "unplugged")
    told = clean(repo)
    assert [c.kind for c in told.conditions if c.is_wrong] == ["archive_away", "disk_low"]
    assert not (repo.root / file).is_symlink()


def test_what_changed_after_it_was_proved_stays(repo, tmp_path) -> None:
    with_archive(repo, tmp_path / "tape")
    file = put_file(repo, NIGHT, b"pixels")
    archive = archived_all(repo)
    proof = proofs.prove(archive, file, now=NOW)
    assert isinstance(proof, proofs.Proof)
    stamp = (repo.root / file).stat()
    (repo.root / file).write_bytes(b"pixelz")
    os.utime(repo.root / file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # and hides it
    with pytest.raises(Exception, match="not what it was"):
        proofs.put_out(repo.root, proof)
    assert (repo.root / file).read_bytes() == b"pixelz"
    assert not [path for path in (repo.root / file).parent.iterdir() if path.name.startswith(".")]


def test_restored_files_are_files_again(repo, tmp_path) -> None:
    with_archive(repo, tmp_path / "tape")
    file = put_file(repo, NIGHT, b"pixels")
    archive = archived_all(repo)
    clean(repo)
    assert archive.lacking(str(NIGHT)) == [file]
    assert archive.lacking(str(NIGHT), with_links=False) == []
    assert archive.restore(file) == "brought back"
    assert not (repo.root / file).is_symlink()
    assert (repo.root / file).read_bytes() == b"pixels"
    assert clean(repo).data["n_archived"] == 1


# Whatever the files are like


OURS = ("whole", "damaged", "gone", "link to the copy", "link elsewhere", "one file with the copy", "longer")
THEIRS = (
    "whole", "damaged", "gone", "cut off", "link to ours", "not in the manifest", "manifest of another content",
    "folder",
)  # fmt: skip


@pytest.fixture(scope="module")
def workshop(tmp_path_factory, empty_survey):
    """One survey on which many cases are tried, each with its own products and archive."""
    folder = tmp_path_factory.mktemp("workshop")
    shutil.copytree(empty_survey, folder / "survey")
    with SurveyRepo.open(folder / "survey") as repo:
        yield repo


def arrange(repo: SurveyRepo, cases: list[tuple[str, str]]) -> None:
    """Archive one file a case, then spoil the file and its copy as the case says."""
    tape = repo.root.parent / "tape"
    for folder in (tape, repo.root / "products", repo.root / "operator", repo.root.parent / "elsewhere"):
        shutil.rmtree(folder, ignore_errors=True)
    with_archive(repo, tape)
    (repo.root / "products").mkdir()
    (repo.root.parent / "elsewhere").mkdir()
    files = [put_file(repo, 20230101 + k, f"pixels of {k}".encode()) for k in range(len(cases))]
    archived_all(repo)
    for file, (ours, theirs) in zip(files, cases, strict=True):
        spoil_copy(tape, repo.root / file, file, theirs)
        spoil_file(repo.root / file, tape / str(archive_place(file)), ours)


def spoil_copy(tape: Path, path: Path, file: str, how: str) -> None:
    copy, manifest = tape / str(archive_place(file)), Manifest(tape, file.split("/")[2])
    entry = manifest.entries()[file]
    if how == "damaged":
        copy.write_bytes(b"P" + copy.read_bytes()[1:])
    elif how == "cut off":
        copy.write_bytes(copy.read_bytes()[:-1])
    elif how in ("gone", "link to ours", "folder"):
        copy.unlink()
        if how == "link to ours":
            copy.symlink_to(path)
        elif how == "folder":
            copy.mkdir()
    elif how == "not in the manifest":
        manifest.path.unlink()
    elif how == "manifest of another content":
        manifest.add([Entry(**{**vars(entry), "sha256": hashlib.sha256(b"other").hexdigest()})])


def spoil_file(path: Path, copy: Path, how: str) -> None:
    if how == "damaged":
        path.write_bytes(b"p" + path.read_bytes()[1:].upper())
    elif how == "longer":
        path.write_bytes(path.read_bytes() + b"!")
    elif how == "gone":
        path.unlink()
    elif how == "link to the copy":
        path.unlink()
        path.symlink_to(copy)
    elif how == "link elsewhere":
        other = path.parents[4] / "elsewhere" / path.name
        shutil.move(path, other)
        path.symlink_to(other)
    elif how == "one file with the copy" and copy.is_file() and not copy.is_symlink():
        path.unlink()
        os.link(copy, path)


CASES = st.lists(st.tuples(st.sampled_from(OURS), st.sampled_from(THEIRS)), min_size=1, max_size=5)
SLOW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def assert_nothing_was_lost(repo: SurveyRepo, before: dict[Path, bytes]) -> None:
    """Every path reads as before; what became a link leads to a file of the same bytes on the other side."""
    assert contents(repo.root) == before
    for path, content in before.items():
        if path.is_symlink() and str(path.readlink()).startswith(str(repo.root.parent / "tape")):
            assert path.resolve().read_bytes() == content
            assert not path.resolve().is_relative_to(repo.root)


@SLOW
@given(cases=CASES)
def test_no_file_goes_whose_bytes_are_not_elsewhere(workshop, cases) -> None:
    arrange(workshop, cases)
    before = contents(workshop.root)
    done = clean(workshop)
    assert_nothing_was_lost(workshop, before)
    assert done.data["n_archived"] == cases.count(("whole", "whole"))


@SLOW
@given(cases=CASES, dies_at=st.integers(0, 12))
def test_killed_anywhere_it_loses_nothing_and_the_next_one_goes_on(workshop, cases, dies_at) -> None:
    arrange(workshop, [*cases, ("whole", "whole"), ("whole", "whole")])
    before, left = contents(workshop.root), [dies_at]
    real = os.replace

    def dying(source, target) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        real(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", dying)
        with contextlib.suppress(KeyboardInterrupt):
            clean(workshop)
    assert_nothing_was_lost(workshop, before)
    clean(workshop)
    assert_nothing_was_lost(workshop, before)
    assert unfinished_plans(workshop.root) == []
    n_links = sum(str(p.readlink()).startswith(str(workshop.root.parent / "tape")) for p in before if p.is_symlink())
    n_were = sum(
        ours == "link to the copy" and theirs not in ("gone", "link to ours", "folder") for ours, theirs in cases
    )
    assert 2 + cases.count(("whole", "whole")) <= n_links <= 2 + len(cases) + n_were


def test_a_plan_that_was_broken_off_proves_each_file_anew(repo, tmp_path, monkeypatch) -> None:
    with_archive(repo, tmp_path / "tape")
    good, rotten = put_file(repo, 20230101, b"good pixels"), put_file(repo, 20230102, b"other pixels")
    archive = archived_all(repo)

    def killed(root: Path, proof: proofs.Proof) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cleanup_module, "put_out", killed)
    with pytest.raises(KeyboardInterrupt):
        clean(repo)
    monkeypatch.undo()
    entry = archive.entry_of(rotten)
    assert entry is not None
    (archive.root / entry.archive).write_bytes(b"other pixelz")
    (path,) = unfinished_plans(repo.root)
    done = clean(repo, below_gb=0.0)
    assert done.data["resumed"] == [path.relative_to(repo.root).as_posix()]
    assert (repo.root / good).is_symlink()
    assert not (repo.root / rotten).is_symlink()
    assert [item["file"] for item in json.loads(path.read_text())["kept"]] == [rotten]


def test_the_archive_of_a_plan_may_be_away_when_it_is_taken_up(repo, tmp_path, monkeypatch) -> None:
    with_archive(repo, tmp_path / "tape")
    file = put_file(repo, 20230101, b"pixels")
    archived_all(repo)
    monkeypatch.setattr(cleanup_module, "put_out", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        clean(repo)
    monkeypatch.undo()
    (tmp_path / "tape").rename(tmp_path / "unplugged")
    clean(repo)
    assert (repo.root / file).read_bytes() == b"pixels"
