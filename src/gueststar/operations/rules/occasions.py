"""Occasions: the moments for which rules that follow the clock, or the survey's state, fire once.

Of each kind of moment the last one is found here; what is done about those before it, `catching_up` tells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from gueststar.operations.rules.contract import Maintenance, SurveyFacts
from gueststar.operations.rules.grammar import (
    DAY_S,
    CalibrationSetWhen,
    DiskWhen,
    EveryWhen,
    GoodEpochsWhen,
    IdleWhen,
    NightEdgeWhen,
    NightPart,
    When,
)
from gueststar.operations.rules.quantities import duration_text
from gueststar.operations.rules.sun import Edge, NightTimes, night_after, noon_before

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
BETWEEN_NAMES = "; "
"""Stands between the names of several occasions for which a rule fires at once."""


@dataclass(frozen=True)
class Occasion:
    """Something for which a rule fires once."""

    time: float | None
    """Since when it is due, Unix: a firing at or after it was for it. None: only ``name`` tells."""
    night: int
    """The night that it concerns."""
    why: str
    is_calendar: bool = False
    """It came by itself: one before the survey was operated is not caught up."""
    name: str = ""
    """Tells it from others of the rule, where its time does not."""
    is_behind: bool = False
    """Others of its rule came since: it is caught up in its turn, when nothing else is at work."""
    place: Mapping[str, Any] = field(default_factory=dict)
    """Field and band, where it is of one: an argument of the actions that work on fields."""


@dataclass(frozen=True)
class Almanac:
    """What the moments of a survey follow."""

    nights: NightTimes
    night: NightPart
    zone: ZoneInfo
    maintenance: tuple[Maintenance, ...] = ()
    low_marks: Mapping[str, float] | None = None
    """Disk -> free space, GB, that counts as little where a rule tells none."""


def occasions(when: When, facts: SurveyFacts, almanac: Almanac, *, last: float | None) -> list[Occasion]:
    """Return what a trigger would fire for now, whether it did already or not; ``last``: when its rule last fired."""
    kind = when.kind
    if kind == "night_begins" or kind == "night_ends":
        edge: Edge = "begins" if kind == "night_begins" else "ends"
        return _night_edge(getattr(when, kind), edge, facts, almanac)
    if kind == "every":
        assert when.every is not None
        return _every(when.every, facts, almanac, last)
    if kind == "maintenance":
        return _maintenance(when, facts, almanac)
    if kind == "signal":
        assert when.signal is not None
        return _signal(when.signal, facts, almanac)
    return _OF_STATE[kind](getattr(when, kind), facts, almanac, last) if kind in _OF_STATE else []


def _night_edge(when: NightEdgeWhen, edge: Edge, facts: SurveyFacts, almanac: Almanac) -> list[Occasion]:
    shift, found = when.after - when.before, []
    if almanac.night.by != "signal" or when.before:
        altitude = almanac.night.sun_altitude
        if by_sun := almanac.nights.last_edge(facts.now, edge, altitude_deg=altitude, shift_s=shift):
            found.append((by_sun[0], by_sun[1], f"the sun at {altitude:g} deg"))
    if almanac.night.by != "sun" and not when.before:
        came = _signal_time(f"night_{edge}", facts)
        if came is not None and came + shift <= facts.now:
            found.append((almanac.nights.night_of(came), came + shift, "the observatory's signal"))
    if not found:
        return []
    newest = max(night for night, _, _ in found)
    night, time, cause = min((item for item in found if item[0] == newest), key=lambda item: item[1])
    told = f"{duration_text(when.before)} before " if when.before else ""
    told = f"{duration_text(when.after)} after " if when.after else told
    why = f"{told}night {night} {edge}: {cause}"
    return [Occasion(time, night, why, is_calendar=True)]


def occasion_of_night(when: When, night: int, almanac: Almanac) -> Occasion:
    """Return the moment at which a trigger that comes once a night came in a night that is over by its date.

    A night whose end nobody told, neither the sun nor the observatory, ended with its date: at the noon after it.
    """
    site = almanac.nights.site
    if when.every is not None:
        return Occasion(noon_before(site, night), night, f"night {night} came", is_calendar=True)
    part = when.night_begins or when.night_ends
    assert part is not None
    edge: Edge = "begins" if when.night_begins is not None else "ends"
    time = None
    if almanac.night.by != "signal":
        time = almanac.nights.edge(night, edge, altitude_deg=almanac.night.sun_altitude)
    if time is None:
        time = noon_before(site, night if edge == "begins" else night_after(night))
    return Occasion(
        time + part.after - part.before,
        night,
        f"night {night} {'began' if edge == 'begins' else 'ended'}",
        is_calendar=True,
    )


def _signal_time(name: str, facts: SurveyFacts) -> float | None:
    """Return when a signal last came; one that nobody timed is of now."""
    return facts.signal_times.get(name, facts.now if name in facts.signals else None)


def _signal(name: str, facts: SurveyFacts, almanac: Almanac) -> list[Occasion]:
    if name not in facts.signals:
        return []
    time = _signal_time(name, facts)
    assert time is not None
    return [Occasion(time, almanac.nights.night_of(time), f"signal {name}")]


def _every(when: EveryWhen, facts: SurveyFacts, almanac: Almanac, last: float | None) -> list[Occasion]:
    if when.period == "night":
        noon = noon_before(almanac.nights.site, facts.night)
        return [Occasion(noon, facts.night, f"night {facts.night} comes", is_calendar=True)]
    if isinstance(when.period, str) or when.at is not None:
        moment, why = _calendar_moment(when, facts.now, almanac.zone, last)
        if moment is None:
            return []
        return [Occasion(moment, almanac.nights.night_of(moment), why, is_calendar=True)]
    due = facts.now if last is None else last + when.period
    if due > facts.now:
        return []
    return [Occasion(due, almanac.nights.night_of(facts.now), f"every {duration_text(when.period)}")]


def _calendar_moment(when: EveryWhen, now: float, zone: ZoneInfo, last: float | None) -> tuple[float | None, str]:
    """Return the last moment of a period of whole days that is not after ``now``, Unix, and what it is."""
    at = when.at or "00:00"
    today = datetime.fromtimestamp(now, zone).date()
    if isinstance(when.period, float):
        return _whole_days(
            round(when.period / DAY_S), at, now, zone, last
        ), f"every {duration_text(when.period)} at {at}"
    if when.period == "week":
        weekday = WEEKDAYS.index(when.weekday or "monday")
        day = today - timedelta(days=(today.weekday() - weekday) % 7)
        back: Callable[[date], date] = lambda d: d - timedelta(days=7)  # noqa: E731
        why = f"{WEEKDAYS[weekday]} {at}"
    elif when.period == "month":
        day, back = today.replace(day=when.day or 1), _month_before
        why = f"day {when.day or 1} of the month, {at}"
    else:
        day, back, why = today, lambda d: d - timedelta(days=1), f"daily at {at}"
    moment = local_moment(day, at, zone)
    return (moment if moment <= now else local_moment(back(day), at, zone)), why


def _whole_days(n_days: int, at: str, now: float, zone: ZoneInfo, last: float | None) -> float | None:
    """Return the time of day ``at`` on the first day that is ``n_days`` after the last firing; None: not yet."""
    today = datetime.fromtimestamp(now, zone).date()
    if last is None:
        moment = local_moment(today, at, zone)
        return moment if moment <= now else local_moment(today - timedelta(days=1), at, zone)
    moment = local_moment(datetime.fromtimestamp(last, zone).date() + timedelta(days=n_days), at, zone)
    return moment if moment <= now else None


def _month_before(day: date) -> date:
    return (day.replace(day=1) - timedelta(days=1)).replace(day=day.day)


def local_moment(day: date, at: str, zone: ZoneInfo) -> float:
    """Return the Unix time of a local time of day.

    One that the clocks skip in spring is taken by the time before the change, so it lies after the gap; of one that
    comes twice in autumn the first is meant.
    """
    hour, minute = map(int, at.split(":"))
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone, fold=0).timestamp()


def _maintenance(when: When, facts: SurveyFacts, almanac: Almanac) -> list[Occasion]:
    found = []
    for window in almanac.maintenance:
        begins = when.maintenance == "begins"
        time = window.start if begins else window.end
        if time <= facts.now and (not begins or facts.now < window.end):
            why = f"{window.reason}: the planned downtime {when.maintenance}"
            found.append(Occasion(time, almanac.nights.night_of(facts.now), why, is_calendar=True))
    return found[-1:]


def _calibration_set(
    when: CalibrationSetWhen, facts: SurveyFacts, almanac: Almanac, last: float | None
) -> list[Occasion]:
    """Return one occasion a night whose sets are complete; frames that come later make another."""
    found = []
    for night in sorted({item.night for item in facts.calibration_sets}):
        sets = [item for item in facts.calibration_sets if item.night == night and item.kind in when.kinds]
        complete = max((item.last_received for item in sets), default=facts.now) + when.quiet_for
        if complete > facts.now or all(item.n_frames < when.at_least for item in sets):
            continue
        told = ", ".join(f"{item.n_frames} {item.kind}" for item in sorted(sets, key=lambda item: item.kind))
        why = f"{told} frames of night {night}, no more since {duration_text(facts.now - complete + when.quiet_for)}"
        found.append(Occasion(complete, night, why))
    return found


def _good_epochs(when: GoodEpochsWhen, facts: SurveyFacts, almanac: Almanac, last: float | None) -> list[Occasion]:
    found = []
    for (number, band), n_good in sorted(facts.good_epochs.items()):
        reached = [count for count in when.reach if count <= n_good]
        if reached:
            night = facts.epoch_nights.get((number, band), facts.night)
            why = f"field {number} has {n_good} good epochs in {band}"
            found.append(Occasion(None, night, why, name=f"{number} {band} {max(reached)}"))
    return found


def together(found: Sequence[Occasion]) -> list[Occasion]:
    """Return occasions that their names tell as one a night; others as they are."""
    named: dict[int, list[Occasion]] = {}
    for item in found:
        if item.name:
            named.setdefault(item.night, []).append(item)
    plain = [item for item in found if not item.name]
    return plain + [_one_of(items) for _, items in sorted(named.items())]


def _one_of(items: Sequence[Occasion]) -> Occasion:
    """Return occasions as one. Of several places it has none: actions then work on all of the night."""
    first, more = items[0], len(items) - 1
    if not more:
        return first
    return Occasion(None, first.night, f"{first.why} and {more} more", name=BETWEEN_NAMES.join(i.name for i in items))


def _disk(when: DiskWhen, facts: SurveyFacts, almanac: Almanac, last: float | None) -> list[Occasion]:
    free = facts.free_gb.get(when.disk)
    mark = when.below if when.below is not None else (almanac.low_marks or {}).get(when.disk, 0.0)
    if free is None or free >= mark or (last is not None and facts.now - last < when.again_after):
        return []
    return [Occasion(facts.now, facts.night, f"the {when.disk} disk has {free:.1f} GB free, below {mark:g} GB")]


def _idle(when: IdleWhen, facts: SurveyFacts, almanac: Almanac, last: float | None) -> list[Occasion]:
    if not facts.is_idle or facts.idle_since is None or facts.now - facts.idle_since < when.duration:
        return []
    why = f"idle for {duration_text(facts.now - facts.idle_since)}"
    return [Occasion(facts.idle_since + when.duration, facts.night, why)]


_OF_STATE: Mapping[str, Callable[..., list[Occasion]]] = {
    "calibration_set": _calibration_set, "good_epochs": _good_epochs, "disk": _disk, "idle": _idle,
}  # fmt: skip
