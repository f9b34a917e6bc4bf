"""Rules that were due: their actions, one after the other, each to its end; a restart goes on where one stopped."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import uuid4

from gueststar.core.clock import Clock
from gueststar.core.errors import GueststarError, MissingInput, ServiceDown, TransientError
from gueststar.operations.actions.contract import Action, ActionContext, ActionResult
from gueststar.operations.rules.contract import Firing, Priority, Retry
from gueststar.operations.rules.record import FIRED, FIRING, LEFT_OUT, last_fired
from gueststar.store.ledger import Ledger
from gueststar.store.repo import SurveyRepo

LOG = logging.getLogger(__name__)

_RECENT_S = 40 * 86400.0
"""Firings older than this are not looked for at a start."""


class RunningAction(Protocol):
    """An action that has begun."""

    def result(self) -> ActionResult | None:
        """Return what it did; None while it runs."""
        ...


class InThread:
    """An action that runs beside the operator's loop, with a door to the repository of its own."""

    def __init__(self, pool: ThreadPoolExecutor, action: Action, open_repo: Callable[[], SurveyRepo], **context: Any):
        self._future: Future[ActionResult] = pool.submit(self._run, action, open_repo, context)

    @staticmethod
    def _run(action: Action, open_repo: Callable[[], SurveyRepo], context: dict[str, Any]) -> ActionResult:
        with open_repo() as repo:
            return action(ActionContext(repo=repo, **context))

    def result(self) -> ActionResult | None:
        """Return what it did; None while it runs. Raises what the action raised."""
        return self._future.result() if self._future.done() else None


Begin = Callable[[str, Firing, Mapping[str, Any]], RunningAction]
"""Begins an action by its name for a firing, with arguments."""


@dataclass
class ActiveFiring:
    """A firing on its way."""

    firing: Firing
    number: str
    n_ended: int = 0
    """Actions that have ended."""
    attempts: int = 0
    """Attempts of the current action that failed."""
    not_before: float = 0.0
    running: RunningAction | None = None
    states: list[str] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        """Whether all actions have ended."""
        return self.n_ended >= len(self.firing.actions)


class Firings:
    """Carries out the actions of rules, and writes down what became of each."""

    ledger: Ledger

    def __init__(self, begin: Begin, *, clock: Clock) -> None:
        self._begin, self.clock = begin, clock
        self.active: list[ActiveFiring] = []
        self.last_fired: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self.active)

    @property
    def n_at_work(self) -> int:
        """Firings that do not wait for a night's end."""
        return sum(not getattr(active.running, "is_waiting", False) for active in self.active)

    def reload(self, ledger: Ledger) -> None:
        """Find again in the ledger when rules fired last, and the firings that did not come to their end."""
        self.ledger = ledger
        running = {active.number for active in self.active}
        self.last_fired = last_fired(ledger)
        found: dict[str, ActiveFiring] = {}
        for event in ledger.events(since=time.time() - _RECENT_S):
            number = event.data.get("firing", "")
            if event.what != FIRING or not number:
                continue
            if event.data["state"] == FIRED:
                found[number] = _again(event.subject, event.data)
            elif number in found:
                is_last = event.data.get("is_last", False)
                found[number].n_ended += len(found[number].firing.actions) if is_last else 1
        self.active += [one for one in found.values() if not one.is_over and one.number not in running]

    def fire(self, firing: Firing) -> None:
        """Write a firing down, and let its actions begin."""
        active, now = ActiveFiring(firing, uuid4().hex[:12]), self.clock.now()
        names = ", ".join(name for name, _ in firing.actions)
        self.ledger.event(
            FIRING, firing.rule, f"{firing.why}: {names}" if firing.why else names, night=firing.night, state=FIRED,
            actions=[{"action": name, "arguments": dict(arguments)} for name, arguments in firing.actions],
            occasion=firing.occasion, priority=firing.priority.name.lower(), at=now, why=firing.why,
            retry={"attempts": firing.retry.attempts, "backoff_s": firing.retry.backoff_s}, firing=active.number,
        )  # fmt: skip
        self.last_fired[firing.rule] = self.last_fired[firing.key] = now
        self.active.append(active)

    def advance(self, *, now: float) -> list[tuple[ActiveFiring, str, ActionResult]]:
        """Begin and end actions; return those that ended. ``now`` is monotonic."""
        ended = []
        for active in sorted(self.active, key=lambda one: one.firing.priority):
            if not active.is_over and now >= active.not_before and (result := self._advance(active, now)) is not None:
                ended.append((active, active.firing.actions[active.n_ended - 1][0], result))
        self.active = [active for active in self.active if not active.is_over]
        return ended

    def _advance(self, active: ActiveFiring, now: float) -> ActionResult | None:
        name, arguments = active.firing.actions[active.n_ended]
        try:
            if active.running is None:
                active.running = self._begin(name, active.firing, arguments)
            result = active.running.result()
        except ServiceDown:
            active.running = None
            raise
        except GueststarError as problem:
            is_again = isinstance(problem, TransientError | MissingInput)
            result = self._failed(active, str(problem), is_retried=is_again, now=now)
        except OSError as problem:
            result = self._failed(active, f"{type(problem).__name__}: {problem}", is_retried=True, now=now)
        except Exception as problem:  # a bug in one action must not stop the survey
            LOG.exception("action %s", name, extra={"night": active.firing.night})
            self.ledger.event("bug", name, traceback.format_exc(), night=active.firing.night)
            result = self._failed(active, f"{type(problem).__name__}: {problem}", is_retried=False, now=now)
        if result is None:
            return None
        self._write_down(active, name, result)
        active.running, active.attempts, active.n_ended = None, 0, active.n_ended + 1
        if result.is_last:
            self._leave_out_the_rest(active, name)
        return result

    def _leave_out_the_rest(self, active: ActiveFiring, last: str) -> None:
        """Write down that the actions after ``last`` are without purpose, and end with them."""
        why = f"left out: there is nothing for it to do after {last}"
        for name, _ in active.firing.actions[active.n_ended :]:
            self._write(active, name, why, state=LEFT_OUT)
            active.n_ended += 1

    def _failed(self, active: ActiveFiring, reason: str, *, is_retried: bool, now: float) -> ActionResult | None:
        active.running, active.attempts = None, active.attempts + 1
        retry = active.firing.retry
        if is_retried and active.attempts < retry.attempts:
            active.not_before = now + min(3600.0, retry.backoff_s * 2.0 ** (active.attempts - 1))
            return None
        return ActionResult("failed", reason)

    def _write_down(self, active: ActiveFiring, name: str, result: ActionResult) -> None:
        self._write(active, name, result.text, state=result.state, figures=dict(result.data), is_last=result.is_last)

    def _write(self, active: ActiveFiring, name: str, text: str, **facts: Any) -> None:
        self.ledger.event(
            FIRING, active.firing.rule, f"{name}: {text}", night=active.firing.night, actions=[name],
            firing=active.number, at=self.clock.now(), **facts,
        )  # fmt: skip


def _again(rule: str, data: Mapping[str, Any]) -> ActiveFiring:
    firing = Firing(
        rule=rule, actions=tuple((item["action"], item["arguments"]) for item in data["actions"]), night=data["night"],
        priority=Priority[data["priority"].upper()], retry=Retry(**data["retry"]), why=data["why"],
        occasion=data["occasion"],
    )  # fmt: skip
    return ActiveFiring(firing, data["firing"])
