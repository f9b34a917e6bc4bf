"""What holds an operator up: a person's word, a planned downtime, a disk that is full."""

from __future__ import annotations

from gueststar.operations.operator.control import paused_because
from gueststar.operations.operator.standing import Standing
from gueststar.operations.operator.trouble import trouble_with_volume

CHECK_EVERY_S = 2.0
"""The disk below the repository is looked at this often."""
PAUSE_EVERY_S = 1.0
"""Whether somebody said pause is looked at this often."""


class HoldUps:
    """Tells whether new work may begin, and says when that changes."""

    def __init__(self, standing: Standing) -> None:
        self.standing = standing

    def is_held_up(self) -> bool:
        """Return whether nothing may be begun now."""
        return self._is_paused() or self._has_no_room()

    def _is_paused(self) -> bool:
        standing = self.standing
        if standing.is_due("paused", PAUSE_EVERY_S):
            reason = self._reason_to_pause()
            if reason is not None and standing.mode != "paused":
                standing.repo.ledger.event("operator", "paused", reason)
                standing.say(f"paused: {reason}")
            if reason is None and standing.mode == "paused":
                standing.repo.ledger.event("operator", "resumed", standing.why)
                standing.say("resumed")
            if reason is not None:
                standing.become("paused", reason)
            elif standing.mode == "paused":
                standing.become("running")
        return standing.mode == "paused"

    def _reason_to_pause(self) -> str | None:
        downtime = self.standing.rules.maintenance_at(self.standing.clock.now())
        return paused_because(self.standing.repo.root) if downtime is None else f"planned downtime: {downtime.reason}"

    def _has_no_room(self) -> bool:
        """Whether nothing may be begun because the disk is (nearly) full or cannot be written."""
        standing, root = self.standing, self.standing.repo.root
        if standing.is_due("disk", CHECK_EVERY_S):
            trouble = trouble_with_volume(root, reserve_gb=standing.repo.settings.operation.disks.reserve_gb)
            if trouble and standing.mode == "running":
                standing.become("waiting", trouble)
                standing.say(f"waiting: {trouble}")
                standing.alarming.wrong("disk_full", str(root), trouble, "critical")
            elif not trouble and standing.mode == "waiting":
                standing.become("running")
                standing.say("going on: there is room again")
                standing.alarming.right("disk_full", str(root))
        return standing.mode == "waiting"
