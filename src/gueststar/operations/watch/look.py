"""One look at a survey: gather the facts, raise and settle alarms, tell people."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gueststar.cameras.load import load_camera
from gueststar.core.clock import Clock
from gueststar.core.errors import GueststarError
from gueststar.operations.actions.contract import Condition
from gueststar.operations.watch.alarms import Courier, Watched, deliver, raise_alarm, settle_alarm
from gueststar.operations.watch.conditions import conditions_of, limits_of
from gueststar.operations.watch.facts import Facts
from gueststar.operations.watch.history import write_history
from gueststar.operations.watch.watcher import Watcher

_log = logging.getLogger(__name__)


class Look:
    """Looks at a survey again and again, and tells people in a thread of its own: for loops that must not wait."""

    def __init__(
        self, root: Path, *, clock: Clock | None = None, machine: Clock | None = None, courier: Courier | None = None
    ) -> None:  # fmt: skip
        self.watcher = Watcher(root, clock=clock, machine=machine)
        self.courier = courier or Courier()

    def turn(self) -> Facts:
        """Look once; return what was seen."""
        facts = self.watcher.facts()
        survey = self.watcher.survey(facts)
        judge(survey, facts, judged(self.watcher, facts))
        with suppress(OSError):  # a full disk must not keep its own alarm from leaving
            write_history(self.watcher.root, facts.history)
        self.courier.turn(survey, facts.now)
        return facts

    def close(self) -> None:
        """Wait a moment for messages that are under way."""
        self.courier.close()
        self.watcher.close()


@contextmanager
def looking(root: Path, *, every_s: float = 60.0, clock: Clock | None = None) -> Iterator[None]:
    """Look again and again, in a thread of its own, while the body of a ``with`` statement runs."""
    is_over = threading.Event()
    thread = threading.Thread(target=_look_until, args=(is_over, root, every_s, clock), name="look", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(10.0)


def _look_until(is_over: threading.Event, root: Path, every_s: float, clock: Clock | None) -> None:
    look = None
    while not is_over.wait(every_s):
        try:
            look = look or Look(root, clock=clock)
            look.turn()
        except (GueststarError, OSError) as problem:  # a disk that is away, settings that are being edited: next time
            _log.warning("could not look at the survey: %s", problem)
    if look is not None:
        look.close()


def look_at(root: Path, *, is_dry: bool = False, clock: Clock | None = None) -> Iterator[str]:
    """Look once and yield what was found, in lines; a dry look changes and sends nothing."""
    watcher = Watcher(root, clock=clock)
    try:
        facts = watcher.facts()
        conditions = judged(watcher, facts)
        yield from (
            f"{one.severity}: {f'{one.kind} {one.subject}'.strip()}: {one.text}" for one in conditions if one.is_wrong
        )
        yield f"{len(conditions)} conditions looked at, {sum(one.is_wrong for one in conditions)} wrong"
        if is_dry:
            return
        survey = watcher.survey(facts)
        judge(survey, facts, conditions)
        with suppress(OSError):
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
