"""The archive's volume is away, or full, when the night is to be copied there."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from gueststar.core.errors import GueststarError
from gueststar.operations.drills import faults
from gueststar.operations.drills.operating import Operating
from gueststar.operations.drills.stage import Stage
from gueststar.operations.drills.verdict import Protocol
from gueststar.operations.drills.world import gueststar
from gueststar.operations.rules.load import SHIPPED
from gueststar.store.alarms import Alarms
from gueststar.store.archive.archive import Archive
from gueststar.store.repo import SurveyRepo

RULE = """\
  - name: archive
    description: As it ships, but as soon as all that follows the night is done; a rehearsal has no morning to wait for.
    when: {night_ends: {after: 5 s}}
    only_if: {idle: true}
    do: archive_products
    retry: {attempts: 30, backoff: 2 s}
"""
"""Stands for the shipped rule of this name."""

TOO_SMALL_MB, LARGE_MB = 2, 200


def archive_stopped(stage: Stage, told: Protocol) -> None:
    """The archive's volume is not there at the end of the night, and comes back later."""
    root, archive = _survey(stage, "archive-stopped", stage.folder / "archive-stopped.archive")
    with stage.operating(root) as operator, stage.link(root):
        stage.wait_for(root, operator, 1)
        _open_archive(root, operator)
        with faults.vanished(archive):
            told.did("the archive is away")
            told.did(f"the night was done {stage.wait_for_all(root, operator):.1f} s later")
            _end_night(root)
            alarm = _alarm_within(root, 90)
            told.expect("an alarm tells of the archive", is_met="archive" in alarm, seen=alarm)
        told.did("the archive is back")
        _expect_archived(root, operator, told)
        operator.stop()
    stage.judge(root, told)


def archive_lagging(stage: Stage, told: Protocol) -> None:
    """The archive's disk is full in the middle of copying; later there is room."""
    with faults.small_disk(TOO_SMALL_MB) as disk:
        root, _ = _survey(stage, "archive-lagging", disk / "archive")
        with stage.operating(root) as operator, stage.link(root):
            stage.wait_for_all(root, operator)
            _end_night(root)
            told.did(f"the night is to be copied to a disk of {TOO_SMALL_MB} MB")
            alarm = _alarm_within(root, 90)
            told.expect("an alarm tells of the archive", is_met="archive" in alarm, seen=alarm)
            faults.resize(disk, LARGE_MB)
            told.did(f"the disk has {LARGE_MB} MB now")
            _expect_archived(root, operator, told)
            operator.stop()
        stage.judge(root, told)


def _survey(stage: Stage, name: str, archive: Path) -> tuple[Path, Path]:
    """Return a survey that copies its night into an archive as soon as it ends, and the archive."""
    archive.mkdir(parents=True)
    root = stage.survey(name, {"disks": {"archive": str(archive), "archive_low_gb": 0.0, "reserve_gb": 0.0}})
    before, _, rest = SHIPPED.read_text().partition("\n  - name: archive\n")
    (root / "rules.yaml").write_text(f"{before}\n{RULE}\n  - name:{rest.partition('  - name:')[2]}")
    return root, archive


def _open_archive(root: Path, operator: Operating) -> None:
    """Let the archive be known to the survey before it goes away."""
    assert operator.is_running
    gueststar("archive", "status", root)


def _end_night(root: Path) -> None:
    """Give the observatory's signal."""
    signals = root / "operator" / "signals"
    signals.mkdir(parents=True, exist_ok=True)
    (signals / "night_ends").touch()


def _alarm_within(root: Path, timeout_s: float) -> str:
    """Wait for an alarm that tells of the archive; return what it says."""

    def text() -> str:
        with SurveyRepo.open(root) as repo:
            return next((alarm.text for alarm in Alarms(repo.ledger).open() if "archive" in alarm.kind), "")

    return _within(text, timeout_s)


def _expect_archived(root: Path, operator: Operating, told: Protocol) -> None:
    def left() -> str:
        with SurveyRepo.open(root) as repo:
            return "" if Archive(repo, clock=time.time).not_archived() else "nothing"

    is_met = _within(left, 180) == "nothing" and operator.is_running
    told.expect("everything is archived then", is_met=is_met)


def _within(look: Callable[[], str], timeout_s: float) -> str:
    """Look until there is something to tell, and return it."""
    end, seen = time.monotonic() + timeout_s, ""
    while not seen and time.monotonic() < end:
        try:
            seen = look()
        except (GueststarError, OSError):
            seen = ""
        time.sleep(0.3)
    return seen
