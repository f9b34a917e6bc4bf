"""What was done of itself during a night, and why: rules, recoveries, waits, repeated attempts, alarms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from gueststar.operations.report.landing import noon_before
from gueststar.operations.rules.record import DECISION, FIRED, FIRING, time_of
from gueststar.store.ledger import FAILED_ATTEMPT, Event, Job, JobState
from gueststar.store.repo import SurveyRepo

_DAY_S = 86400.0
_SILENT = frozenset({"report", "disk", "refused"})
"""Kinds of entries that tell of the account itself, or of what the account lists."""

MOST = 300
"""Entries told; a night with more is told by its groups."""


@dataclass(frozen=True)
class Entry:
    """Something that happened, or the same thing several times. Unix seconds."""

    time: float
    what: str
    """rule, recovered, alarm, stream..."""
    text: str
    last: float | None = None
    """When it happened last, where it happened more than once."""
    n: int = 1
    details: str = ""
    """More lines, folded: a traceback."""

    @property
    def clock(self) -> str:
        """UTC, as people read it."""
        return _clock(self.time)

    def line(self) -> str:
        """Return it in words."""
        until = f" to {_clock(self.last)}" if self.last is not None and self.n > 1 else ""
        times = f" ({self.n} times)" if self.n > 1 else ""
        return f"{self.clock}{until} {self.what}: {self.text}{times}"


@dataclass(frozen=True)
class Timeline:
    """A night as it went."""

    entries: tuple[Entry, ...]
    unavailable: tuple[str, ...] = ()
    """What rules asked for that is not part of this version, in words."""
    quarantined: tuple[Entry, ...] = ()
    """Units that were given up, with their last traceback."""


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")


def timeline_of(
    repo: SurveyRepo, night: int, jobs: Sequence[Job], events: Sequence[Event], *, exposures: Collection[int]
) -> Timeline:
    """Return what the diary, the alarms and the jobs tell of a night with these exposures.

    Of the diary's ``events`` those count that bear the night's date, and those from its noon to the next that bear no
    other's.
    """
    begin = noon_before(night, longitude_deg=repo.camera.site.longitude_deg)
    events = [event for event in events if _is_of(event, night, begin, exposures)]
    entries = [*(_told(event) for event in events if event.what not in _SILENT), *_alarms(repo, begin)]
    entries += _repeated(jobs)
    grouped = grouped_entries(sorted(entries, key=lambda entry: entry.time))
    return Timeline(tuple(grouped), tuple(_unavailable(events)), tuple(_quarantined(jobs)))


def _is_of(event: Event, night: int, begin: float, exposures: Collection[int]) -> bool:
    if event.what == DECISION:
        return event.subject.isdigit() and int(event.subject) in exposures
    named = event.data.get("night", event.subject if event.subject.isdigit() and len(event.subject) == 8 else None)
    return int(named) == night if named is not None else begin <= time_of(event) < begin + _DAY_S


def _told(event: Event) -> Entry:
    when = time_of(event)
    if event.what == DECISION:
        why = f", because {event.data['why']}" if event.data.get("why") else ""
        return Entry(when, f"rule {event.data.get('rule')}", f"exposures to {event.data.get('recipe')}{why}")
    if event.what == FAILED_ATTEMPT:
        return Entry(when, event.what, f"{event.data.get('kind')}: {event.text}")
    if event.what == FIRING:
        return Entry(when, f"rule {event.subject}", _rule_text(event))
    if event.what == "ingest_crash":
        return Entry(when, "ingest", f"{event.subject} could not be understood", details=event.text)
    if event.what in ("processing", "processed", "stream", "filters"):
        return Entry(when, event.what, event.text)
    subject = f"{event.subject}: " if event.subject and event.subject not in event.text else ""
    lines = event.text.strip().splitlines() or [""]
    details = "\n".join(lines) if len(lines) > 1 else ""
    return Entry(when, event.what.replace("_", " "), f"{subject}{lines[-1] if details else lines[0]}", details=details)


def _rule_text(event: Event) -> str:
    state = str(event.data.get("state") or "")
    if state == FIRED:
        return f"fired, {event.text}"
    return event.text + (f" ({state})" if state else "")


def _unavailable(events: Iterable[Event]) -> list[str]:
    told = dict.fromkeys(
        f"{event.subject}: {event.text}"
        for event in events
        if "unavailable" in (event.data.get("state"), event.data.get("result"))
    )
    return list(told)


def _alarms(repo: SurveyRepo, begin: float) -> list[Entry]:
    from gueststar.store.alarms import Alarms

    end, entries = begin + _DAY_S, []
    for alarm in Alarms(repo.ledger).since(begin):
        name = f"{alarm.severity} {alarm.name}"
        if begin <= alarm.opened < end:
            entries.append(Entry(alarm.opened, "alarm", f"{name}: {alarm.text}"))
        if alarm.closed is not None and begin <= alarm.closed < end:
            minutes = (alarm.closed - alarm.opened) / 60.0
            entries.append(Entry(alarm.closed, "alarm over", f"{name}, after {minutes:.0f} minutes"))
    return entries


def _repeated(jobs: Iterable[Job]) -> list[Entry]:
    """Return one entry a kind of work for units that were tried more than once, and for workers that died."""
    again = [job for job in jobs if job.attempts > 1 and job.finished is not None]
    entries = []
    for kind, n in Counter(job.kind for job in again).items():
        mine = [job for job in again if job.kind == kind]
        attempts = sum(job.attempts - 1 for job in mine)
        ended = Counter(job.state.value for job in mine)
        outcome = ", ".join(f"{count} {state}" for state, count in ended.items())
        last = max(job.finished or 0.0 for job in mine)
        entries.append(Entry(last, "retry", f"{n} units of {kind} were tried {attempts} more times: {outcome}"))
    return entries


def _quarantined(jobs: Iterable[Job]) -> list[Entry]:
    given_up = [job for job in jobs if job.state is JobState.QUARANTINED]
    return [
        Entry(
            job.finished or 0.0, job.kind,
            f"exposure {job.exposure_id} detector {job.detector}, after {job.attempts} attempts: {job.reason}",
            details=job.traceback,
        )
        for job in given_up
    ]  # fmt: skip


def grouped_entries(entries: Sequence[Entry]) -> list[Entry]:
    """Return entries by time, the same ones as one; where there are too many, all of one kind and subject as one."""
    same = _merged(entries, lambda entry: (entry.what, entry.text))
    if len(same) <= MOST:
        return same
    return _merged(same, lambda entry: (entry.what,))


def _merged(entries: Sequence[Entry], key: Any) -> list[Entry]:
    found: dict[Any, Entry] = {}
    for entry in entries:
        first = found.get(key(entry))
        last = entry.last or entry.time
        found[key(entry)] = entry if first is None else replace(first, last=last, n=first.n + entry.n)
    return list(found.values())


def timeline_lines(timeline: Timeline | None, *, most: int = 40) -> list[str]:
    """Return it as lines of text."""
    if timeline is None:
        return []
    lines = ["what was done, and why (UTC):"] if timeline.entries else []
    lines += [f"  {entry.line()}" for entry in timeline.entries[:most]]
    if len(timeline.entries) > most:
        lines.append(f"  and {len(timeline.entries) - most} more")
    lines += [f"not part of this version: {text}" for text in timeline.unavailable]
    if timeline.quarantined:
        lines.append(f"{len(timeline.quarantined)} units were given up:")
        lines += [f"  {entry.line()}" for entry in timeline.quarantined[:most]]
    return lines


def as_json(timeline: Timeline | None) -> dict[str, Any] | None:
    """Return it as JSON-able values."""
    if timeline is None:
        return None
    return {
        "entries": [vars(entry) for entry in timeline.entries],
        "unavailable": list(timeline.unavailable),
        "quarantined": [vars(entry) for entry in timeline.quarantined],
    }
