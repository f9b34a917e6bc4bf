"""Alarms as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from gueststar.operations.watch.kinds import advice_on
from gueststar.store.alarms import Alarm


def alarm_lines(alarms: Sequence[Alarm], *, now: float, has_advice: bool = False) -> Iterator[str]:
    """Yield a line for each alarm, with what to do below it where that is asked for."""
    if not alarms:
        yield "no alarms"
    for alarm in alarms:
        number = f"{alarm.id:>4}" if alarm.id else "   -"
        yield f"{number} {alarm.severity:<8} {alarm.name}: {alarm.text} ({_times(alarm, now)})"
        if has_advice and alarm.closed is None and (advice := advice_on(alarm.kind)):
            yield f"       -> {advice.replace('`', '')}"


def _times(alarm: Alarm, now: float) -> str:
    parts = [f"since {datetime.fromtimestamp(alarm.opened, UTC):%Y-%m-%d %H:%M} UTC"]
    if alarm.closed is not None:
        parts.append(f"over after {duration(alarm.closed - alarm.opened)}")
    else:
        parts.append(f"for {duration(now - alarm.opened)}")
    if alarm.acknowledged:
        parts.append(f"{alarm.acknowledged} takes care of it")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Return a time span as a person says it: 45 s, 12 min, 3.4 h, 2.1 d."""
    for size, unit, limit in ((1.0, "s", 90.0), (60.0, "min", 90.0), (3600.0, "h", 48.0)):
        if abs(seconds) < limit * size:
            value = seconds / size
            return f"{value:.1f} {unit}" if unit == "h" else f"{value:.0f} {unit}"
    return f"{seconds / 86400.0:.1f} d"
