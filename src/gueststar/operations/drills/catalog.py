"""All drills by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol as Typed

from gueststar.core.errors import TransientError
from gueststar.operations.drills.contingencies import (
    archive,
    broker,
    daemon,
    data_link,
    databases,
    disks,
    network,
    workers,
)
from gueststar.operations.drills.stage import Stage
from gueststar.operations.drills.verdict import Protocol


class Drill(Typed):
    """A contingency that is made to happen on a stage; what it did and saw is told to the protocol."""

    __doc__: str | None

    def __call__(self, stage: Stage, told: Protocol) -> None:
        """Play it."""
        ...


DRILLS: Mapping[str, Drill] = {
    "database-down": databases.database_down,
    "broker-down": broker.broker_down,
    "archive-stopped": archive.archive_stopped,
    "archive-lagging": archive.archive_lagging,
    "link-backlog": data_link.link_backlog,
    "missing-metadata": data_link.missing_metadata,
    "observatory-glitches": data_link.observatory_glitches,
    "worker-partition": network.worker_partition,
    "worker-killed": workers.worker_killed,
    "worker-hung": workers.worker_hung,
    "disk-full": disks.disk_full,
    "disk-vanished": disks.disk_vanished,
    "daemon-killed": daemon.daemon_killed,
    "clock-step": daemon.clock_step,
}
"""Name -> drill."""


def play(name: str, stage: Stage) -> Protocol:
    """Play a drill and return its record; an operator that fails to recover is a finding, not an error."""
    told = Protocol(name)
    try:
        DRILLS[name](stage, told)
    except TransientError as problem:
        told.expect("the survey recovers", is_met=False, seen=problem)
    return told
