"""The alert broker goes down in the middle of a night."""

from __future__ import annotations

import time

from gueststar.operations.drills.judge import alert_packets
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
            n_made = len(alert_packets(root, stage.world.night))
            operator.wait_until(lambda: _is_published(root), f"{n_made} alerts published", timeout_s=60)
            operator.stop()
        said = gueststar("alerts", "check", root, "--night", stage.world.night, statuses=(0, 1))
        is_whole = "missing" not in said or " 0 missing" in said
        told.expect("each alert is on its topic, once", is_met=is_whole, seen=said.strip())
    stage.judge(root, told)


def _is_published(root: object) -> bool:
    time.sleep(0.5)
    return " 0 wait" in gueststar("alerts", "publish", root, statuses=(0, 3))
