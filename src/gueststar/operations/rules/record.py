"""What the diary of a survey holds of its rules: which were in force, what they fired, what they decided."""

from __future__ import annotations

from gueststar.operations.rules.book import RuleBook
from gueststar.operations.rules.contract import Decision
from gueststar.store.ledger import Event, Ledger
from gueststar.store.operation_facts import OperationFacts

RULES, FIRING, DECISION, SIGNAL = "rules", "rule", "decision", "signal"
"""Kinds of entries of the diary. Their ``at`` is the survey's clock, which in a rehearsal is not the machine's."""


OPERATOR, STARTED = "operator", "started"
"""Entry of an operator that was started."""

FIRED = "fired"
"""State of the entry of a firing; those of its actions hold what became of them."""
LEFT_OUT = "left out"
"""State of the entry of an action that was not run, because one before it found that there is nothing for it to do."""


def time_of(event: Event) -> float:
    """Return when something happened, Unix, by the survey's clock."""
    at = event.data.get("at")
    return float(at) if isinstance(at, int | float) else event.time


def write_rules(ledger: Ledger, book: RuleBook, *, now: float) -> bool:
    """Keep the text of the rules where it is not the one that was in force; return whether it changed."""
    ends = OperationFacts(ledger).first_and_last(RULES)
    if ends is not None and ends[1].data.get("sha256") == book.source.sha256:
        return False
    source, was = book.source, "" if ends is None else f", before {ends[1].subject}"
    enabled = len(book.for_exposures) + len(book.for_the_clock)
    text = f"{source.name}: {enabled} of {len(book.file.rules)} rules enabled{was}"
    names = [rule.name for rule in (*book.for_exposures, *book.for_the_clock)]
    ledger.event(
        RULES, source.sha256[:12], text, sha256=source.sha256, name=source.name, rules=source.text, names=names, at=now
    )
    return True


def in_force_since(ledger: Ledger, now: float) -> dict[str, float]:
    """Return rule -> since when it is in force without a break, Unix, of those that are in force at ``now``."""
    since: dict[str, float] = {}
    for event in ledger.events(what=RULES):
        if (when := time_of(event)) <= now and "names" in event.data:
            since = {name: since.get(name, when) for name in event.data["names"]}
    return since


def started_last(ledger: Ledger) -> float:
    """Return when an operator was started last, Unix; 0.0: none ever was."""
    starts = (event for event in OperationFacts(ledger).last_of_each(OPERATOR) if event.subject == STARTED)
    return max((time_of(event) for event in starts), default=0.0)


def rules_at(ledger: Ledger, unix: float) -> Event | None:
    """Return the entry of the rules that were in force at a time; its ``data["rules"]`` is their text."""
    before = [event for event in ledger.events(what=RULES) if time_of(event) <= unix]
    return before[-1] if before else None


def operated_since(ledger: Ledger, now: float) -> float | None:
    """Return when rules were first in force, Unix; None: never before ``now``."""
    ends = OperationFacts(ledger).first_and_last(RULES)
    return time_of(ends[0]) if ends is not None and time_of(ends[0]) <= now else None


def last_fired(ledger: Ledger) -> dict[str, float]:
    """Return what `gueststar.operations.rules.contract.Rules.due` asks: rule, and occasion -> last firing, Unix."""
    fired: dict[str, float] = {}
    for event in OperationFacts(ledger).in_state(FIRING, FIRED):
        fired[event.subject] = time_of(event)
        if "night" in event.data:
            fired[f"{event.subject} @ night {event.data['night']}"] = time_of(event)
        if occasion := event.data.get("occasion"):
            fired[f"{event.subject} @ {occasion}"] = time_of(event)
    return fired


def write_decision(ledger: Ledger, exposure_id: int, decision: Decision, *, now: float) -> None:
    """Write down what a rule decided for an exposure."""
    rule = f"rule {decision.rule!r}" if decision.rule else "no rule"
    why = f" because {decision.why}" if decision.why else ""
    ledger.event(
        DECISION, str(exposure_id), f"{rule}: {decision.recipe.value}{why}", rule=decision.rule,
        recipe=decision.recipe.value, why=decision.why, priority=decision.priority.name.lower(),
        deadline_s=decision.deadline_s, at=now,
    )  # fmt: skip


def decisions_on(ledger: Ledger, exposure_id: int) -> list[Event]:
    """Return what rules decided for an exposure, oldest first."""
    return ledger.events(what=DECISION, subject=str(exposure_id))


def firings_of(ledger: Ledger, night: int) -> list[Event]:
    """Return the firings of rules that concern a night, and what became of their actions, oldest first."""
    return [event for event in ledger.events(what=FIRING) if event.data.get("night") == night]


def signal_times(ledger: Ledger) -> dict[str, float]:
    """Return signal of the observatory -> when it last came, Unix."""
    return {event.subject: time_of(event) for event in OperationFacts(ledger).last_of_each(SIGNAL)}
