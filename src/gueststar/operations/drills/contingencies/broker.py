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
    with running_broker(root) as broker, stage.operating(root) as operator, stage.link(root):
        stage.wait_for(root, operator, 1)
        broker.stop()
        told.did("stopped the broker")
        stage.wait_for(root, operator, 3)
        told.did("two more images were done without it")
        broker.start()
        told.did("started the broker")
        stage.wait_for_all(root, operator)
        is_whole, said = wait_until_published(root, stage.world.night, timeout_s=180)
        told.expect("each alert is on its topic, once", is_met=is_whole, seen=" / ".join(said.splitlines()))
        operator.stop()
    stage.judge(root, told)


def wait_until_published(root: Path, night: int, *, timeout_s: float) -> tuple[bool, str]:
    """Wait until the topics of a night agree with the alert log; return whether they do, and what the check says."""
    end, said = time.monotonic() + timeout_s, ""
    while time.monotonic() < end:
        said = gueststar("alerts", "check", root, "--night", night, statuses=(0, 1, 3)).strip()
        lines = said.splitlines()
        if lines and all(line.rstrip(".").endswith("agree") for line in lines):
            return True, said
        time.sleep(0.5)
    return False, said
