"""Rules that follow the clock and the survey's state: asked when they may be due, their actions carried out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gueststar.core.errors import ConfigError
from gueststar.operations.actions.contract import Action, ActionResult
from gueststar.operations.operator.control import signal_answered, signals_given
from gueststar.operations.operator.firings import ActiveFiring, Firings, InThread, RunningAction
from gueststar.operations.operator.night_work import NightWork
from gueststar.operations.operator.parts import Parts
from gueststar.operations.operator.past_nights import CLOSE, PastNights
from gueststar.operations.operator.pipeline_actions import (
    Calibrate,
    WaitFor,
    link_movers,
    publish_alerts,
    series_action,
)
from gueststar.operations.operator.standing import Standing
from gueststar.operations.rules.contract import Firing
from gueststar.operations.rules.facts import SurveyFactsSource
from gueststar.operations.rules.record import SIGNAL
from gueststar.store.repo import SurveyRepo

RULES_EVERY_S = 5.0
"""Rules that follow the clock are asked this often while exposures are worked on."""
RULES_AT_REST_S = 15.0
"""The same while nothing is."""
SIGNALS_EVERY_S = 1.0
"""Signals of the observatory are looked for this often."""


class ClockRules:
    """Asks the rules, and begins, advances and ends what they name."""

    def __init__(self, standing: Standing, work: NightWork, parts: Parts, pool: ThreadPoolExecutor) -> None:
        self.standing, self.work, self.parts, self._pool = standing, work, parts, pool
        self.firings = Firings(self._begin, clock=standing.clock)
        self.nights = PastNights(standing, work, self.firings)
        self._facts = SurveyFactsSource(standing.repo)
        self._idle_since = standing.clock.now()

    def use(self, repo: SurveyRepo) -> None:
        """Ask a repository that was opened anew."""
        self._facts = SurveyFactsSource(repo)

    def note_work(self) -> None:
        """Remember when exposures were last worked on."""
        if self._has_exposures():
            self._idle_since = self.standing.clock.now()

    def _has_exposures(self) -> bool:
        return bool(self.work.hands or self.work.undecided or self.parts.n_landed)

    # Asking

    def ask(self) -> None:
        """Answer the observatory's signals, and fire the rules that are due."""
        standing = self.standing
        signals = signals_given(standing.repo.root) if standing.is_due("signals", SIGNALS_EVERY_S) else {}
        if not signals and not standing.is_due("rules", RULES_EVERY_S if self.work.hands else RULES_AT_REST_S):
            return
        now = standing.clock.now()
        for name, text in signals.items():
            standing.repo.ledger.event(SIGNAL, name, text, at=now)
            standing.say(f"signal {name}")
        self._fire(now, signals)
        if "night_begins" in signals:
            self.work.sets.ask(standing.night)
        for name in signals:
            signal_answered(standing.repo.root, name)

    def _fire(self, now: float, signals: Mapping[str, str]) -> None:
        facts = self._facts.facts(
            now=now, signals=frozenset(signals), is_idle=not (self._has_exposures() or self.firings.n_at_work),
            idle_since=self._idle_since,
        )  # fmt: skip
        for firing in self.standing.rules.due(facts, self.firings.last_fired):
            self.firings.fire(firing)
            self.standing.say(f"rule {firing.rule}: {', '.join(name for name, _ in firing.actions)}")

    # Beginning

    def _begin(self, name: str, firing: Firing, arguments: Mapping[str, Any]) -> RunningAction:
        since = self.firings.last_fired.get(firing.rule, self.standing.clock.now())
        if name == CLOSE:
            return _AtOnce(lambda: self.nights.close(firing.night))
        found = series_action(
            name, self.work, firing.night, arguments, priority=int(firing.priority), since=since,
            is_night_over=lambda: self.nights.is_over(firing.night),
        )  # fmt: skip
        if found is not None:
            return found
        if name == "calibrate":
            return Calibrate(self.work, firing.night)
        if name == "publish":
            return self._in_thread(publish_alerts, firing, arguments)
        if name == "movers":
            return WaitFor(self.work, firing.night, lambda: self._in_thread(link_movers, firing, arguments))
        if name in self.parts.actions:
            return self._in_thread(self.parts.actions[name], firing, arguments)
        raise ConfigError(f"{name!r} is no action: gueststar rules check {self.standing.repo.root}")

    def _in_thread(self, action: Action, firing: Firing, arguments: Mapping[str, Any]) -> InThread:
        now = self.standing.clock.now()
        return InThread(self._pool, action, self.standing.open_again, night=firing.night, now=now, arguments=arguments)

    # Ending

    def advance(self, now: float) -> bool:
        """Begin and end actions; whether one ended. ``now`` is monotonic."""
        ended = self.firings.advance(now=now)
        for active, name, result in ended:
            self.standing.say(f"{name}: {result.text}")
            self._ended(active, name, result)
            if active.is_over:
                self.nights.firing_ended(active)
                self.standing.hurry("rules")  # one that waited for it may be due
        return bool(ended)

    def _ended(self, active: ActiveFiring, name: str, result: ActionResult) -> None:
        alarming = self.standing.alarming
        for condition in result.conditions:
            if condition.is_wrong:
                alarming.wrong(condition.kind, condition.subject, condition.text, condition.severity)
            else:
                alarming.settle(condition.kind, condition.subject)
        if result.state == "failed":
            text = f"{name} of rule {active.firing.rule} failed: {result.text}"
            alarming.wrong("action_failed", name, text, "warning")
        else:
            alarming.right("action_failed", name)
        if name == "update_ephemerides" and result.state == "done":
            self.work.forget_orbits()


class _AtOnce:
    """An action that the operator does itself, in no time."""

    def __init__(self, act: Callable[[], ActionResult]) -> None:
        self._act = act

    def result(self) -> ActionResult:
        """Do it, and return what was done."""
        return self._act()
