"""Quiet hours: when only critical alarms are sent."""

from __future__ import annotations

from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

from gueststar.store.alarms import Alarm
from gueststar.store.operation_settings import AlarmSettings


def is_quiet(settings: AlarmSettings, now: float) -> bool:
    """Return whether a moment (Unix time) is within the quiet hours, by the clock on the wall of that place.

    They may go over midnight, and are an hour longer or shorter where the clocks change within them.
    """
    if settings.quiet_hours is None:
        return False
    begin, end = (time.fromisoformat(text) for text in settings.quiet_hours)
    local = datetime.fromtimestamp(now, UTC).astimezone(ZoneInfo(settings.time_zone)).time()
    return begin <= local < end if begin <= end else local >= begin or local < end


def is_due(alarm: Alarm, settings: AlarmSettings, now: float) -> bool:
    """Return whether people are to be told of an open alarm now, for the first time or again."""
    if alarm.acknowledged is not None or is_held_back(alarm, settings, now):
        return False
    # The size of the difference counts: where the clock was set back, nobody waits for the old time to come again.
    return alarm.sent is None or abs(now - alarm.sent) >= 3600.0 * settings.repeat_hours


def is_held_back(alarm: Alarm, settings: AlarmSettings, now: float) -> bool:
    """Return whether an alarm waits for the end of the quiet hours."""
    return alarm.severity != "critical" and is_quiet(settings, now)
