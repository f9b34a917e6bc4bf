"""The alert broker goes down in the middle of a night."""

from __future__ import annotations

import time
from pathlib import Path

from gueststar.operations.drills.servers import running_broker
from gueststar.operations.drills.stage import Stage
from gueststar.operations.drills.verdict import Protocol
from gueststar.operations.drills.world import gueststar


def broker_down(stage: Stage, told: Protocol) -> None:
    """The broker is stopped while alerts are made, and started again; each alert is on its topic once."""
    root = stage.survey("broker-down")
    with running_broker(root) as broker:
        with stage.operating(root) as operator, stage.link(root):
            stage.wait_for(root, operator, 1)
            broker.stop()
            told.did("stopped the broker")
            stage.wait_for(root, operator, 3)
            told.did("two more images were done without it")
            broker.start()
            told.did("started the broker")
            stage.wait_for_all(root, operator)
            told.expect("all alerts are published", is_met=wait_until_published(root, timeout_s=60))
            operator.stop()
        said = gueststar("alerts", "check", root, "--night", stage.world.night, statuses=(0, 1))
        is_whole = "missing" not in said or " 0 missing" in said
        told.expect("each alert is on its topic, once", is_met=is_whole, seen=said.strip())
    stage.judge(root, told)


def wait_until_published(root: Path, *, timeout_s: float) -> bool:
    """Wait until no alert waits any more; return whether that came about."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if " 0 wait" in gueststar("alerts", "publish", root, statuses=(0, 3)):
            return True
        time.sleep(0.5)
    return False
