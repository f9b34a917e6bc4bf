"""Why a rule would match or fire, and why the others do not: each condition with the value that it meets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gueststar.operations.rules.book import RuleBook
from gueststar.operations.rules.catching_up import catch_up_of
from gueststar.operations.rules.coming import next_moment
from gueststar.operations.rules.conditions import fallback_findings, is_of_tonight
from gueststar.operations.rules.contract import Decision, ExposureFacts, Firing, SurveyFacts
from gueststar.operations.rules.grammar import Rule
from gueststar.operations.rules.quantities import duration_text
from gueststar.operations.rules.words import do_words, moment_words, only_if_words, when_words


def explain_exposure(book: RuleBook, facts: ExposureFacts) -> list[str]:
    """Return which rule decides about an exposure, and why those before it do not."""
    info = facts.exposure.info
    glass = f" through {info.physical_filter}" if info.physical_filter else ""
    whose = "tonight's" if is_of_tonight(facts) else "an earlier night's"
    lines = [f"exposure {facts.exposure.id}: {info.observation_type}, {info.exposure_s:g} s{glass}, {whose}"]
    for rule in book.file.rules:
        if rule.when.exposure is None:
            continue
        if not rule.enabled:
            lines.append(f"rule {rule.name!r} is disabled")
            continue
        findings = book.findings(rule, facts)
        if all(finding.holds for finding in findings):
            return [*lines, f"rule {rule.name!r} matches", *(f"  {finding}" for finding in findings),
                    *_fallbacks(rule, facts), decision_words(book.decide(facts))]  # fmt: skip
        lines.append(f"rule {rule.name!r} does not match")
        lines += [f"  {finding}" for finding in findings if not finding.holds]
    return [*lines, decision_words(book.decide(facts))]


def _fallbacks(rule: Rule, facts: ExposureFacts) -> Iterator[str]:
    for fallback in rule.otherwise:
        findings = list(fallback_findings(fallback.condition, facts))
        verb = "taken" if all(finding.holds for finding in findings) else "not taken"
        yield f"  fallback {fallback.do} is {verb}: {'; '.join(map(str, findings))}"


def decision_words(decision: Decision) -> str:
    """Return a decision as a line."""
    told = [f"-> {decision.recipe.value}", f"priority {decision.priority.name.lower()}"]
    if decision.deadline_s is not None:
        told.append(f"deadline {duration_text(decision.deadline_s)}")
    told.append(f"at most {decision.retry.attempts} attempts")
    return ", ".join(told) + (f" ({decision.why})" if decision.why else "")


def explain_moment(book: RuleBook, facts: SurveyFacts, last_fired: Mapping[str, float]) -> list[str]:
    """Return what every rule that follows the clock, or the survey's state, would do at a moment."""
    sun = "" if facts.sun_altitude_deg is None else f", sun at {facts.sun_altitude_deg:+.1f} deg"
    lines = [f"{moment_words(facts.now)}: night {facts.night}{sun}, {facts.received} science exposures received"]
    window = book.maintenance_at(facts.now)
    if window is not None:
        lines.append(f"planned downtime until {moment_words(window.end)}: {window.reason}; other rules wait")
    for rule in book.file.rules:
        if rule.when.exposure is None:
            lines += _explain_rule(book, rule, facts, last_fired, is_down=window is not None)
    return lines


def _explain_rule(
    book: RuleBook, rule: Rule, facts: SurveyFacts, last_fired: Mapping[str, float], *, is_down: bool
) -> list[str]:
    if not rule.enabled:
        return [f"rule {rule.name!r} is disabled"]
    found = book.open_occasions(rule, facts, last_fired)
    if not found:
        last = last_fired.get(rule.name)
        fired = f"; it fired last at {moment_words(last)}" if last is not None else "; it never fired"
        coming = next_moment(rule.when, book.almanac, now=facts.now, last=last)
        follows = "" if coming is None else f"; next at {moment_words(coming)}"
        return [f"rule {rule.name!r} is not due: {when_words(rule.when)}{fired}{follows}"]
    lines = []
    for occasion in found:
        findings = book.besides(rule, facts, occasion)
        waits = is_down and rule.when.kind != "maintenance"
        is_due = all(finding.holds for finding in findings) and not waits
        verb = "is due" if is_due else "waits"
        verb = "catches up in its turn" if is_due and occasion.is_behind else verb
        lines.append(f"rule {rule.name!r} {verb}: {occasion.why} -> {do_words(rule)}")
        lines += [f"  {finding}" for finding in findings]
    return lines


def firing_words(firing: Firing) -> str:
    """Return a firing as a line."""
    return f"{firing.rule}: {firing.why} -> {', '.join(name for name, _ in firing.actions)}"


def table_of(book: RuleBook, last_fired: Mapping[str, float], *, now: float) -> list[str]:
    """Return the rules as a table: name, when, what, and when each fired last and comes next."""
    rows = [("rule", "when", "does", "catches up", "last fired", "next")]
    for rule in book.file.rules:
        besides, last = only_if_words(rule.only_if), last_fired.get(rule.name)
        coming = next_moment(rule.when, book.almanac, now=now, last=last) if rule.enabled else None
        name = rule.name if rule.enabled else f"({rule.name}: disabled)"
        when = when_words(rule.when) + (f"; if {besides}" if besides else "")
        rows.append((name, when, do_words(rule), catch_up_of(rule) or "", _minute(last), _minute(coming)))
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _minute(unix: float | None) -> str:
    return "" if unix is None else moment_words(unix)[:16]
