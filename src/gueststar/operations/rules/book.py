"""The rules of a survey, ready to be asked: pure functions of facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from zoneinfo import ZoneInfo

from gueststar.operations.rules.catching_up import believed, open_of
from gueststar.operations.rules.conditions import (
    Finding,
    exposure_findings,
    fallback_findings,
    is_of_tonight,
    survey_findings,
)
from gueststar.operations.rules.contract import (
    Decision,
    ExposureFacts,
    Firing,
    Maintenance,
    Priority,
    Recipe,
    SurveyFacts,
)
from gueststar.operations.rules.grammar import BY_THE_CLOCK, Fallback, MaintenancePart, Rule, RulesFile
from gueststar.operations.rules.occasions import BETWEEN_NAMES, Almanac, Occasion, occasions, together
from gueststar.operations.rules.reading import RulesText
from gueststar.operations.rules.sun import NightTimes

NO_RULE = "no rule matches"

OF_FIELDS = frozenset({"references"})
"""Actions that take a field and a band."""


class RuleBook:
    """The rules of a survey (`gueststar.operations.rules.contract.Rules`)."""

    def __init__(
        self, file: RulesFile, *, source: RulesText, nights: NightTimes, zone: ZoneInfo,
        low_marks: Mapping[str, float] | None = None,
    ) -> None:  # fmt: skip
        self.file, self.source = file, source
        windows = sorted((_window(part, zone) for part in file.maintenance), key=lambda window: window.start)
        self.almanac = Almanac(nights, file.night, zone, tuple(windows), low_marks)
        enabled = [rule for rule in file.rules if rule.enabled]
        self.for_exposures = tuple(rule for rule in enabled if rule.when.exposure is not None)
        self.for_the_clock = tuple(rule for rule in enabled if rule.when.exposure is None)

    @property
    def maintenance(self) -> Sequence[Maintenance]:
        """Planned downtimes, by their start."""
        return self.almanac.maintenance

    def maintenance_at(self, now: float) -> Maintenance | None:
        """Return the planned downtime at a (Unix) time, if there is one: nothing is dispatched during it."""
        return next((window for window in self.maintenance if window.start <= now < window.end), None)

    # Exposures

    def decide(self, facts: ExposureFacts) -> Decision:
        """Return what is to be done with an exposure: the first rule that matches wins.

        Where none matches, its raw file is kept and that is all.
        """
        for rule in self.for_exposures:
            if all(finding.holds for finding in self.findings(rule, facts)):
                return _decision(rule, facts)
        return Decision("", Recipe.ARCHIVE, _priority(None, facts), why=NO_RULE)

    def findings(self, rule: Rule, facts: ExposureFacts) -> list[Finding]:
        """Return the conditions of a rule for exposures, each with the value that it met."""
        assert rule.when.exposure is not None
        return list(exposure_findings(rule.when.exposure, facts))

    # The clock and the survey's state

    def due(self, facts: SurveyFacts, last_fired: Mapping[str, float]) -> list[Firing]:
        """Return the rules that are due now, in their order.

        ``last_fired``: rule, and `Firing.key` of the occasion -> Unix time of its last firing. During a planned
        downtime only rules that wait for one are due; the others catch up. Of nights before the last one, what came
        first is due first, alone, and only while nothing is at work: they are caught up as they went.
        """
        is_down = self.maintenance_at(facts.now) is not None
        firings: list[tuple[Rule, Occasion]] = []
        behind: list[tuple[Rule, Occasion]] = []
        for rule in self.for_the_clock:
            if is_down and rule.when.kind != "maintenance":
                continue
            for occasion in self.open_occasions(rule, facts, last_fired):
                if all(finding.holds for finding in self.besides(rule, facts, occasion)):
                    (behind if occasion.is_behind else firings).append((rule, occasion))
        if behind and not firings and facts.is_idle:
            firings = [min(behind, key=lambda pair: pair[1].time or 0.0)]
        return [_firing(rule, occasion) for rule, occasion in firings]

    def open_occasions(self, rule: Rule, facts: SurveyFacts, last_fired: Mapping[str, float]) -> list[Occasion]:
        """Return what a rule has not fired for yet, whether or not the rest of its conditions holds."""
        last = believed(last_fired.get(rule.name), facts.now)
        found = occasions(rule.when, facts, self.almanac, last=last)
        if rule.when.kind in BY_THE_CLOCK:
            return open_of(rule, found, facts, self.almanac, last_fired)
        known = _names_fired(rule, facts, last_fired) if any(item.name for item in found) else frozenset()
        return together([item for item in found if not _is_settled(item, last, known)])

    def besides(self, rule: Rule, facts: SurveyFacts, occasion: Occasion) -> list[Finding]:
        """Return the conditions under ``only_if``, each with the value that it met."""
        return [] if rule.only_if is None else list(survey_findings(rule.only_if, facts, occasion.night))


def _window(part: MaintenancePart, zone: ZoneInfo) -> Maintenance:
    start, end = (item if item.tzinfo else item.replace(tzinfo=zone) for item in (part.start, part.end))
    return Maintenance(start.timestamp(), end.timestamp(), part.reason)


def _names_fired(rule: Rule, facts: SurveyFacts, last_fired: Mapping[str, float]) -> frozenset[str]:
    """Return the names of the occasions for which a rule has fired."""
    prefix = Firing(rule.name, (), facts.night, occasion=" ").key[:-1]
    keys = [key for key, fired in last_fired.items() if key.startswith(prefix) and believed(fired, facts.now)]
    return frozenset(name for key in keys for name in key.removeprefix(prefix).split(BETWEEN_NAMES))


def _is_settled(occasion: Occasion, last: float | None, known: frozenset[str]) -> bool:
    """Return whether a rule fired for an occasion of the survey's state."""
    if occasion.time is None:
        return occasion.name in known
    return last is not None and last >= occasion.time


def _decision(rule: Rule, facts: ExposureFacts) -> Decision:
    recipe, reasons = Recipe(rule.do[0][0]), []
    for fallback in rule.otherwise:
        found = list(fallback_findings(fallback.condition, facts))
        if all(finding.holds for finding in found):
            recipe = max(recipe, Recipe(fallback.do), key=list(Recipe).index)
            reasons.append(_reason(fallback, found))
    return Decision(
        rule.name, recipe, _priority(rule.fixed_priority, facts), rule.deadline, rule.retry.retry, "; ".join(reasons)
    )


def _reason(fallback: Fallback, found: Sequence[Finding]) -> str:
    told = [f"no {item.condition}" if item.wanted == "missing" else f"{item.condition} {item.found}" for item in found]
    return f"{' and '.join(told)}: {fallback.do} only"


def _priority(fixed: Priority | None, facts: ExposureFacts) -> Priority:
    return fixed or (Priority.TONIGHT if is_of_tonight(facts) else Priority.BACKLOG)


def _firing(rule: Rule, occasion: Occasion) -> Firing:
    priority = rule.fixed_priority or Priority.DAYTIME
    actions = tuple((name, {**occasion.place, **args} if name in OF_FIELDS else args) for name, args in rule.do)
    return Firing(
        rule.name, actions, occasion.night, priority, rule.deadline, rule.retry.retry, occasion.why, occasion.name
    )
