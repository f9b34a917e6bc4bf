"""Disks that are full, read-only or away."""

from __future__ import annotations

import time

from gueststar.operations.drills import faults
from gueststar.operations.drills.stage import Stage
from gueststar.operations.drills.verdict import Protocol
from gueststar.operations.drills.world import fresh_survey

DISK_MB = 400
PAUSE_S = 4.0


def disk_full(stage: Stage, told: Protocol) -> None:
    """The repository's disk is filled by somebody else in the middle of the night, and emptied again."""
    with faults.small_disk(DISK_MB) as disk:
        root = fresh_survey(stage.world, disk / "survey")
        stage.prepared(root, {"disks": {"reserve_gb": 0.03, "sandbox_low_gb": 0.05}})
        with stage.operating(root) as operator, stage.link(root):
            stage.wait_for(root, operator, 1)
            with faults.filled(disk, left_mb=1.0):
                told.did("filled the disk, but for a megabyte")
                operator.wait_until(lambda: (s := operator.state()) and s.mode == "waiting", "the operator waits")
                time.sleep(PAUSE_S)
                state = operator.state()
                why = state.why if state else ""
                told.expect("it waits, and names the disk", is_met="disk" in why, seen=why)
            told.did("emptied the disk")
            told.did(f"waited {stage.wait_for_all(root, operator):.1f} s for the rest of the night")
            operator.stop()
        stage.judge(root, told)


def disk_vanished(stage: Stage, told: Protocol) -> None:
    """The landing place is unmounted for a while, then comes back as another folder (a stale handle)."""
    root = stage.survey("disk-vanished")
    landing = stage.landing(root)
    with stage.operating(root) as operator, stage.link(root):
        stage.wait_for(root, operator, 1)
        with faults.vanished(landing):
            told.did("the landing place is gone")
            time.sleep(PAUSE_S)
            told.expect("the operator goes on", is_met=operator.is_running)
        told.did("it is back")
        stage.wait_for(root, operator, 3)
        with faults.replaced(landing):
            told.did("another folder is in its place")
            told.did(f"waited {stage.wait_for_all(root, operator):.1f} s for the rest of the night")
        operator.stop()
    stage.judge(root, told)
