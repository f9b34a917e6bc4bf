"""One look at a survey: gather the facts, raise and settle alarms, tell people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gueststar.cameras.load import load_camera
from gueststar.core.clock import Clock
from gueststar.operations.actions.contract import Condition
from gueststar.operations.watch.alarms import Courier, Watched, deliver, raise_alarm, settle_alarm
from gueststar.operations.watch.conditions import conditions_of, limits_of
from gueststar.operations.watch.facts import Facts
from gueststar.operations.watch.history import write_history
from gueststar.operations.watch.watcher import Watcher


class Look:
    """Looks at a survey again and again, and tells people in a thread of its own: for loops that must not wait."""

    def __init__(self, root: Path, *, clock: Clock | None = None, courier: Courier | None = None) -> None:
        self.watcher = Watcher(root, clock=clock)
        self.courier = courier or Courier()

    def turn(self) -> Facts:
        """Look once; return what was seen."""
        facts = self.watcher.facts()
        survey = self.watcher.survey(facts)
        judge(survey, facts, judged(self.watcher, facts))
        write_history(self.watcher.root, facts.history)
        self.courier.turn(survey, facts.now)
        return facts

    def close(self) -> None:
        """Wait a moment for messages that are under way."""
        self.courier.close()
        self.watcher.close()


def look_at(root: Path, *, is_dry: bool = False, clock: Clock | None = None) -> Iterator[str]:
    """Look once and yield what was found, in lines; a dry look changes and sends nothing."""
    watcher = Watcher(root, clock=clock)
    try:
        facts = watcher.facts()
        conditions = judged(watcher, facts)
        yield from (f"{one.severity}: {one.kind} {one.subject}: {one.text}" for one in conditions if one.is_wrong)
        yield f"{len(conditions)} conditions looked at, {sum(one.is_wrong for one in conditions)} wrong"
        if is_dry:
            return
        survey = watcher.survey(facts)
        judge(survey, facts, conditions)
        write_history(watcher.root, facts.history)
        told = deliver(survey, facts.now)
        yield f"{told.n_sent} messages sent, {told.n_waiting} wait" + (f": {told.trouble}" if told.trouble else "")
    finally:
        watcher.close()


def judged(watcher: Watcher, facts: Facts) -> list[Condition]:
    """Return what the facts say is wrong or right, by the limits of the survey."""
    camera = load_camera(str(watcher.root / "camera.yaml"))
    return conditions_of(facts, camera, limits_of(watcher.settings.operation.alarms.limits))


def judge(survey: Watched, facts: Facts, conditions: list[Condition]) -> None:
    """Raise an alarm for what is wrong, settle those of what is right."""
    for one in conditions:
        if one.is_wrong:
            raise_alarm(survey, one.kind, one.subject, one.text, one.severity, now=facts.now)
        else:
            settle_alarm(survey, one.kind, one.subject, now=facts.now)
