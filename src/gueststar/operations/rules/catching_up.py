"""What a rule does about moments that came while nobody operated the survey.

A rule of the clock catches up ``all`` nights that had exposures, the ``last`` of the moments that it missed, or
``none``. Of a rule that tells none it follows from what it does: what is made of every night (its account, its
coverage, its export) is made of all, what looks after disks and databases is done once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from gueststar.operations.rules.action_names import OF_A_NIGHT
from gueststar.operations.rules.contract import Firing, SurveyFacts
from gueststar.operations.rules.grammar import BY_THE_CLOCK, Rule
from gueststar.operations.rules.occasions import Almanac, Occasion, occasion_of_night

CatchUp = Literal["all", "last", "none"]

BELIEVED_S = 86400.0
"""A last firing further ahead of the clock than this was by a clock that was wrong; it does not count."""
PRESENT_S = 900.0
"""Who was started not later than this after a moment was there for it: a restart misses nothing."""


def catch_up_of(rule: Rule) -> CatchUp | None:
    """Return what a rule does about moments that it missed; None: its trigger is no moment."""
    if rule.when.kind not in BY_THE_CLOCK:
        return None
    if rule.catch_up is not None:
        return rule.catch_up
    return "all" if rule.when.is_of_nights and any(name in OF_A_NIGHT for name, _ in rule.do) else "last"


def open_of(
    rule: Rule, found: Sequence[Occasion], facts: SurveyFacts, almanac: Almanac, last_fired: Mapping[str, float]
) -> list[Occasion]:
    """Return what a rule of the clock has not fired for yet, of the moments ``found`` and of those before them."""
    policy = catch_up_of(rule)
    if policy == "all":
        newest = [replace(item, name=_night_name(item.night)) for item in found]
        return [item for item in newest if not _is_over(item, rule, facts, last_fired)] + [
            item for item in _before(rule, newest, facts, almanac) if _fired(rule, item, facts, last_fired) is None
        ]
    last = believed(last_fired.get(rule.name), facts.now)
    there = [item for item in found if item.time is not None and not _is_done(item, last, facts)]
    return [item for item in there if policy != "none" or not _is_missed(item, facts)]


def believed(fired: float | None, now: float) -> float | None:
    """Return when something fired, unless that was by a clock that was wrong."""
    return None if fired is None or fired > now + BELIEVED_S else fired


def _before(rule: Rule, newest: Sequence[Occasion], facts: SurveyFacts, almanac: Almanac) -> list[Occasion]:
    """Return the moments of nights that had exposures, before this one, since the rule is in force."""
    since = max(facts.since, facts.rules_since.get(rule.name, 0.0))
    told, found = {item.night for item in newest}, []
    for night, n_received in sorted(facts.received_by_night.items()):
        if n_received and night < facts.night and night not in told:
            item = occasion_of_night(rule.when, night, almanac)
            if item.time is not None and since <= item.time <= facts.now:
                found.append(replace(item, name=_night_name(night), is_behind=True))
    return found


def _night_name(night: int) -> str:
    return f"night {night}"


def _fired(rule: Rule, item: Occasion, facts: SurveyFacts, last_fired: Mapping[str, float]) -> float | None:
    """Return when a rule fired for an occasion that its name tells."""
    key = Firing(rule.name, (), item.night, occasion=item.name).key
    return believed(last_fired.get(key), facts.now)


def _is_over(item: Occasion, rule: Rule, facts: SurveyFacts, last_fired: Mapping[str, float]) -> bool:
    return _is_done(item, _fired(rule, item, facts, last_fired), facts)


def _is_done(item: Occasion, last: float | None, facts: SurveyFacts) -> bool:
    """Return whether a firing was for an occasion, or the occasion was before the survey's operation."""
    assert item.time is not None
    if last is not None:
        return last >= item.time
    return item.is_calendar and item.time < facts.since


def _is_missed(item: Occasion, facts: SurveyFacts) -> bool:
    return item.is_calendar and item.time is not None and item.time < facts.present_since - PRESENT_S
