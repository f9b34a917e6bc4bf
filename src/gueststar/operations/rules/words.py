"""Rules in words: one line each, for tables and explanations."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from gueststar.operations.rules.conditions import wanted_text
from gueststar.operations.rules.grammar import (
    DiskWhen,
    EveryWhen,
    ExposureWhen,
    NightEdgeWhen,
    OnlyIf,
    Rule,
    When,
)
from gueststar.operations.rules.quantities import duration_text


def when_words(when: When) -> str:
    """Return what triggers a rule."""
    kind, value = when.kind, getattr(when, when.kind)
    if isinstance(value, ExposureWhen):
        return f"exposure: {_conditions(value)}" if value.model_fields_set else "exposure"
    if isinstance(value, NightEdgeWhen):
        return _edge_words(kind.replace("_", " "), value)
    if isinstance(value, EveryWhen):
        return _every_words(value)
    if isinstance(value, DiskWhen):
        return f"{value.disk} disk below {'its mark' if value.below is None else f'{value.below:g} GB'}"
    if when.calibration_set is not None:
        kinds, quiet = ", ".join(when.calibration_set.kinds), duration_text(when.calibration_set.quiet_for)
        return f"{when.calibration_set.at_least} frames or more of {kinds}, none for {quiet}"
    if when.good_epochs is not None:
        return f"good epochs of a field and band reach {', '.join(map(str, when.good_epochs.reach))}"
    if when.idle is not None:
        return f"idle for {duration_text(when.idle.duration)}"
    return f"{kind} {value}"


def do_words(rule: Rule) -> str:
    """Return what a rule runs, and what instead."""
    told = ", ".join(name if not arguments else f"{name} {arguments}" for name, arguments in rule.do)
    steps = [told]
    for item in rule.otherwise:
        if item.do not in steps:
            steps.append(item.do)
    return ", else ".join(steps)


def only_if_words(only_if: OnlyIf | None) -> str:
    """Return what must hold besides."""
    return "" if only_if is None else _conditions(only_if)


def moment_words(unix: float) -> str:
    """Return a time as people read it."""
    return f"{datetime.fromtimestamp(unix, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _conditions(part: Any) -> str:
    given = ((name, getattr(part, name)) for name in type(part).model_fields if name in part.model_fields_set)
    return ", ".join(f"{name} {wanted_text(value)}" for name, value in given if value is not None)


def _edge_words(edge: str, value: NightEdgeWhen) -> str:
    if value.before:
        return f"{duration_text(value.before)} before {edge}"
    return f"{duration_text(value.after)} after {edge}" if value.after else edge


def _every_words(value: EveryWhen) -> str:
    period = value.period if isinstance(value.period, str) else duration_text(value.period)
    place = {"week": value.weekday or "monday", "month": f"day {value.day or 1}"}.get(str(period))
    return " ".join(
        ["every", str(period), *([f"on {place}"] if place else []), *([f"at {value.at}"] if value.at else [])]
    )
