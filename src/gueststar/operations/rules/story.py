"""What rules did for an exposure or in a night, in words, from the diary: for `gueststar why`."""

from __future__ import annotations

from gueststar.operations.rules.record import FIRED, decisions_on, firings_of, rules_at, time_of
from gueststar.operations.rules.words import moment_words
from gueststar.store.ledger import Event, Ledger


def exposure_rule_lines(ledger: Ledger, exposure_id: int) -> list[str]:
    """Return what rules decided for an exposure, and which rules those were; empty where none was asked."""
    lines = []
    for event in decisions_on(ledger, exposure_id):
        lines.append(f"{moment_words(time_of(event))} {event.text}{_from(ledger, time_of(event))}")
    return lines


def night_rule_lines(ledger: Ledger, night: int) -> list[str]:
    """Return which rules fired for a night, why, and what became of their actions; empty where none did."""
    events = firings_of(ledger, night)
    if not events:
        return []
    in_force = _from(ledger, time_of(events[0]))
    return [f"rules of night {night}{in_force}", *(f"  {_line(event)}" for event in events)]


def _line(event: Event) -> str:
    state = str(event.data.get("state", ""))
    told = f"rule {event.subject!r} fired: {event.text}" if state == FIRED else f"{event.text} ({state})"
    return f"{moment_words(time_of(event))} {told}"


def _from(ledger: Ledger, unix: float) -> str:
    event = rules_at(ledger, unix)
    return "" if event is None else f", by {event.data.get('name', 'rules')} {event.subject}"
