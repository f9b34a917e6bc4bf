"""The second copy and the day's housekeeping from the command line."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gueststar.cli.main import group
from gueststar.core.errors import ConfigError, DataError, TransientError
from gueststar.operations.actions.catalog import ACTIONS
from gueststar.operations.by_hand import run_action
from gueststar.operations.rules.action_names import HOUSEKEEPING
from gueststar.operations.watch.disks import disks_of
from gueststar.operations.watch.kinds import ALARM_KINDS
from gueststar.store.alarms import Alarms
from gueststar.store.archive.archive import Archive
from gueststar.store.archive.volume import only_archiver
from gueststar.store.products import DataId
from gueststar.store.settings import write_settings
from tests.unit.actions.archived import put_file, with_archive
from tests.unit.actions.conftest import NIGHT, NOON


def gueststar(*words: object) -> Result:
    return CliRunner().invoke(group, [str(word) for word in words])


@pytest.fixture
def survey(repo, tmp_path) -> Path:
    """A survey with one old product, whose settings name an archive."""
    with_archive(repo, tmp_path / "tape")
    write_settings(repo.root / "survey.yaml", repo.settings)
    put_file(repo, NIGHT, b"pixels")
    return repo.root


def test_a_survey_is_archived_cleaned_and_brought_back_by_commands(survey) -> None:
    assert "1 files wait" in gueststar("archive", "status", survey).output
    assert "would archive 1 files" in gueststar("archive", "update", survey, "--dry-run").output
    assert "1 files archived" in gueststar("archive", "update", survey).output
    assert "nothing waits" in gueststar("archive", "status", survey).output
    assert "all as they were" in gueststar("archive", "verify", survey, "--all").output
    (product,) = (survey / "products" / "science_image").rglob("*.fits")
    cleaned = gueststar("archive", "clean", survey, "--until", "1e9", "--keep-nights", "1")
    assert "1 archived files" in cleaned.output or product.is_symlink(), cleaned.output
    assert gueststar("archive", "restore", survey, "--missing").output.startswith("0 files brought back")
    assert gueststar("archive", "restore", survey, "--night", NIGHT).output.startswith("1 files brought back")
    assert not product.is_symlink()
    product.unlink()
    assert gueststar("archive", "restore", survey, product).output.startswith("1 files brought back")
    assert product.read_bytes() == b"pixels"


def test_a_loss_is_an_exit_status(survey, tmp_path) -> None:
    gueststar("archive", "update", survey)
    (copy,) = (tmp_path / "tape" / "products").rglob("*.fits")
    (product,) = (survey / "products").rglob("*.fits")
    copy.write_bytes(b"rot")
    product.unlink()
    lost = gueststar("archive", "verify", survey)
    assert lost.exit_code == 1
    assert "science_image" in lost.output
    assert gueststar("archive", "restore", survey, "--night", NIGHT).exit_code == 1


def test_restore_asks_for_something_that_there_is(survey, tmp_path) -> None:
    gueststar("archive", "update", survey)
    assert "name FILES or a --night" in gueststar("archive", "restore", survey).output
    assert isinstance(gueststar("archive", "restore", survey, "--night", 20000101).exception, ConfigError)
    assert isinstance(gueststar("archive", "restore", survey, tmp_path / "other.fits").exception, ConfigError)
    assert isinstance(gueststar("archive", "begin", survey).exception, ConfigError)


def test_any_action_is_run_by_hand(survey) -> None:
    listed = gueststar("action", "list").output
    assert all(name in listed for name in ACTIONS)
    done = gueststar("action", "run", survey, "source_matching", "--json")
    assert json.loads(done.output)["state"] == "unavailable"
    assert "fair     mail" in gueststar("action", "run", survey, "readiness").output
    wrong = gueststar("action", "run", survey, "clean_depot", "colour=blue").exception
    assert isinstance(wrong, ConfigError)
    assert "colour" in str(wrong)


def test_arguments_are_read_as_rules_read_them(repo) -> None:
    done = run_action(repo, "update_ephemerides", ["folder=/nowhere", "old_after_days=12.5"], now=NOON)
    assert done.state == "nothing"
    with pytest.raises(ConfigError, match="argument=value"):
        run_action(repo, "readiness", ["calibration_days"], now=NOON)
    with pytest.raises(ConfigError, match="no action 'dance'"):
        run_action(repo, "dance", now=NOON)
    with pytest.raises(ConfigError, match="operator's queue"):
        run_action(repo, "movers", now=NOON)


def test_two_do_not_archive_at_once(survey, repo, act) -> None:
    with only_archiver(repo):
        for name in ("archive_products", "clean_sandbox", "verify_archive"):
            with pytest.raises(TransientError, match="wait for the end"):
                act(name)
        assert act("archive_products", is_dry=True).state == "nothing"
    assert act("archive_products").state == "done"


def test_every_action_that_rules_may_name_says_what_it_does(act) -> None:
    assert set(ACTIONS) <= set(HOUSEKEEPING)


def test_every_condition_of_an_action_is_a_kind_of_alarm_that_the_playbook_knows(act, repo, tmp_path) -> None:
    with_archive(repo, tmp_path / "tape")
    kinds = {condition.kind for name in ACTIONS if name not in _MEASURING for condition in act(name).conditions}
    assert kinds >= {"archive_away", "archive_low", "archive_damaged", "database_damaged", "disk_low", "not_ready"}
    assert kinds <= set(ALARM_KINDS)


_MEASURING = {"night_report", "weekly_report", "coverage_maps", "measure_metrics"}


def test_a_product_that_is_gone_or_whose_archive_is_away_is_told(repo, exposure, make_image, tmp_path) -> None:
    with_archive(repo, tmp_path / "tape")
    info = exposure()
    repo.add_exposure(info, [0])
    which = DataId(visit=info.exposure_id, detector=0)
    repo.put("science_image", which, make_image(1))
    path = repo.path("science_image", which)
    Archive(repo).update()
    path.unlink()
    with pytest.raises(DataError, match="archive restore"):
        repo.get("science_image", which)
    path.symlink_to(tmp_path / "unplugged" / path.name)
    with pytest.raises(TransientError, match="mount that disk"):
        repo.get("science_image", which)


def test_the_archive_is_of_use_without_us(survey, tmp_path) -> None:
    gueststar("archive", "update", survey)
    manifest = f"manifests/{NIGHT}.sha256"
    done = subprocess.run(["sha256sum", "-c", manifest], cwd=tmp_path / "tape", capture_output=True, text=True)
    assert done.stdout.strip().endswith("OK")


def test_an_archive_that_is_away_or_full_is_an_alarm_at_once_and_tried_again(repo, act, tmp_path, monkeypatch) -> None:
    with_archive(repo, tmp_path / "tape", archive_low_gb=0)
    put_file(repo, NIGHT, b"pixels")
    Archive(repo)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(TransientError, match="is full"):
            act("archive_products")
    (tmp_path / "tape").rename(tmp_path / "unplugged")
    with pytest.raises(TransientError, match="is away"):
        act("archive_products")
    assert {alarm.kind for alarm in Alarms(repo.ledger).open()} == {"archive_low", "archive_away"}
    (tmp_path / "unplugged").rename(tmp_path / "tape")
    right = {(item.kind, item.subject) for item in act("archive_products").conditions if not item.is_wrong}
    right |= {(item.kind, item.subject) for item in act("check_archive_disk").conditions if not item.is_wrong}
    assert {(alarm.kind, alarm.subject) for alarm in Alarms(repo.ledger).open()} <= right


def test_an_empty_mount_point_is_an_archive_that_is_away_for_those_who_watch(repo, tmp_path) -> None:
    with_archive(repo, tmp_path / "tape")
    assert [disk.trouble for disk in disks_of(repo.root, repo.settings.operation)] == ["", "No such file or directory"]
    Archive(repo)
    assert [disk.trouble for disk in disks_of(repo.root, repo.settings.operation)] == ["", ""]
    (tmp_path / "tape").rename(tmp_path / "unplugged")
    (tmp_path / "tape").mkdir()
    assert "not mounted" in disks_of(repo.root, repo.settings.operation)[1].trouble
