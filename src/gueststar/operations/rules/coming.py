"""When rules that follow the clock are due next, as far as it is known beforehand."""

from __future__ import annotations

from datetime import datetime, timedelta

from gueststar.operations.rules.grammar import DAY_S, EveryWhen, NightEdgeWhen, When
from gueststar.operations.rules.occasions import WEEKDAYS, Almanac, local_moment
from gueststar.operations.rules.sun import Edge, night_after, noon_before

_NIGHTS_AHEAD = 400
"""Where the sun does not set for months, the night that comes then is still told."""


def next_moment(when: When, almanac: Almanac, *, now: float, last: float | None) -> float | None:
    """Return the Unix time after ``now`` at which a trigger comes next; None where nobody can know.

    ``last``: when its rule last fired. Nights are told by the sun, also where the observatory's signal may come first.
    """
    if when.night_begins is not None:
        return _next_edge(when.night_begins, "begins", almanac, now)
    if when.night_ends is not None:
        return _next_edge(when.night_ends, "ends", almanac, now)
    if when.every is not None:
        return _next_period(when.every, almanac, now, last)
    if when.maintenance is not None:
        times = (window.start if when.maintenance == "begins" else window.end for window in almanac.maintenance)
        return min((time for time in times if time > now), default=None)
    return None


def _next_edge(when: NightEdgeWhen, edge: Edge, almanac: Almanac, now: float) -> float | None:
    if almanac.night.by == "signal" and not when.before:
        return None
    shift, night = when.after - when.before, night_after(almanac.nights.night_of(now), -2)
    for _ in range(_NIGHTS_AHEAD):
        found = almanac.nights.edge(night, edge, altitude_deg=almanac.night.sun_altitude)
        if found is not None and found + shift > now:
            return found + shift
        night = night_after(night)
    return None


def _next_period(when: EveryWhen, almanac: Almanac, now: float, last: float | None) -> float | None:
    if when.period == "night":
        return noon_before(almanac.nights.site, night_after(almanac.nights.night_of(now)))
    if isinstance(when.period, float) and when.at is None:
        return now if last is None else max(now, last + when.period)
    today = datetime.fromtimestamp(now, almanac.zone).date()
    first = today
    if isinstance(when.period, float) and last is not None:
        begun = datetime.fromtimestamp(last, almanac.zone).date()
        first = max(today, begun + timedelta(days=round(when.period / DAY_S)))
    for day in (first + timedelta(days=n) for n in range(32)):
        is_wanted = (when.period != "week" or day.weekday() == WEEKDAYS.index(when.weekday or "monday")) and (
            when.period != "month" or day.day == (when.day or 1)
        )
        moment = local_moment(day, when.at or "00:00", almanac.zone)
        if is_wanted and moment > now:
            return moment
    return None
