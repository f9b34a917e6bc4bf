"""Nights that are over: whether one is, what is still to follow it, and that all of it is done."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from gueststar.operations.actions.contract import ActionResult
from gueststar.operations.operator.firings import ActiveFiring, Firings
from gueststar.operations.operator.night_work import NightWork
from gueststar.operations.operator.pipeline_actions import END_OF_NIGHT
from gueststar.operations.operator.standing import Standing
from gueststar.operations.rules.contract import Firing
from gueststar.operations.rules.record import signal_times

CLOSING = "nights that are over"
"""Name under which the operator itself lets follow what follows a night, where images of it come later."""
CLOSE = "close"
_CLOSES = frozenset({"references", "precover"})
"""A firing with these actions closes its night."""


class PastNights:
    """Lets follow what follows a night, where images of it come to their end after it is over."""

    def __init__(self, standing: Standing, work: NightWork, firings: Firings) -> None:
        self.standing, self.work, self.firings = standing, work, firings

    def find_open(self) -> None:
        """Note the nights of which images were associated since they were closed: a killed operator left them."""
        ledger = self.standing.repo.ledger
        closed: dict[int, float] = {}
        for what in ("closed", "processed"):
            for event in ledger.events(what=what):
                closed[int(event.subject)] = max(closed.get(int(event.subject), 0.0), event.time)
        for night, finished in ledger.last_finished("science").items():
            if finished > closed.get(night, 0.0):
                self.work.changed[night] += 1

    def is_over(self, night: int) -> bool:
        """Return whether a night has ended, by the date, the sun or the observatory's signal."""
        if night != self.standing.night:
            return True
        almanac = self.standing.rules.almanac
        if almanac.night.by != "signal":
            end = almanac.nights.edge(night, "ends", altitude_deg=almanac.night.sun_altitude)
            if end is not None and self.standing.clock.now() >= end:
                return True
        came = signal_times(self.standing.repo.ledger).get("night_ends") if almanac.night.by != "sun" else None
        return came is not None and almanac.nights.night_of(came) == night

    def to_close(self) -> list[int]:
        """Return the nights before this one of which images came to their end since they were closed."""
        if not self.work.changed:
            return []
        tonight = self.standing.night
        return [night for night, n in self.work.changed.items() if n and night != tonight]

    def close_next(self, known: Collection[str]) -> None:
        """Let what follows a night follow, one night at a time; ``known``: the actions that there are."""
        if any(active.firing.rule == CLOSING for active in self.firings.active):
            return
        closing = {active.firing.night for active in self.firings.active if _is_closing(active)}
        for night in sorted(self.to_close()):
            if night not in closing and not self.work.has_work_of(night):
                n = self.work.changed[night]
                names = [*END_OF_NIGHT, *(name for name in ("night_report",) if name in known)]
                actions: list[tuple[str, Mapping[str, Any]]] = [(name, {}) for name in [*names, CLOSE]]
                why = f"{n} detector images of a night that is over have come to their end"
                self.firings.fire(Firing(CLOSING, actions, night, why=why))
                return

    def firing_ended(self, active: ActiveFiring) -> None:
        """Close a night where the firing of a rule did all that is needed for that."""
        if _is_closing(active) and not self.work.has_work_of(active.firing.night):
            self.close(active.firing.night)

    def close(self, night: int) -> ActionResult:
        """Write down that all that follows a night is done."""
        self.work.changed.pop(night, None)
        self.standing.repo.ledger.event("closed", str(night), f"night {night}: all that follows it is done")
        return ActionResult("done", f"night {night} is closed")


def _is_closing(active: ActiveFiring) -> bool:
    """Return whether a rule's firing does all that closes its night."""
    actions = {action for action, _ in active.firing.actions}
    return actions >= _CLOSES and CLOSE not in actions
