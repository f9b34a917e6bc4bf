"""The status of a survey for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gueststar.operations.watch.alarm_lines import duration
from gueststar.operations.watch.facts import Facts, Standing
from gueststar.store.ledger_rows import JobState

_COLOUR = {"notice": "cyan", "warning": "yellow", "critical": "bold red"}
_BARS = "▁▂▃▄▅▆▇█"
_SHOWN_WORKERS, _SHOWN_FIELDS, _SHOWN_LINES = 16, 12, 8


def status_of(facts: Facts) -> RenderableType:
    """Return the whole status as it is shown."""
    parts: list[RenderableType] = [_head(facts)]
    if facts.database:
        parts.append(Text(f"{facts.database} (what follows is what is known without it)", style="bold red"))
    parts.extend(_alarms(facts))
    parts.append(_numbers(facts))
    if facts.operator is not None and not facts.is_operator_gone and facts.operator.workers:
        parts.append(_workers(facts))
    if facts.fields:
        parts.append(_fields(facts))
    parts.extend(Text(line, style="dim", overflow="ellipsis", no_wrap=True) for line in _last_lines(facts))
    return Group(*parts)


def _head(facts: Facts) -> Text:
    moment = datetime.fromtimestamp(facts.now, UTC)
    head = Text(f"{facts.survey}  night {facts.night or '-'}  {moment:%Y-%m-%d %H:%M:%S} UTC  ", style="bold")
    state = facts.operator
    if facts.standing is Standing.SILENT:
        heard = "" if facts.beat_age_s is None else f", last heard of {duration(facts.beat_age_s)} ago"
        was = "" if state is None or state.mode != "stopping" else " (it was ended)"
        return head.append(f"the operator does not run{was}{heard}", style="bold red")
    assert state is not None
    why = f": {state.why}" if state.why else ""
    head.append(f"{state.mode}{why}", style="green" if state.mode == "running" else "yellow")
    return head.append(f"  {state.running} running, process {state.pid} on {state.host}, {state.version}", style="dim")


def _alarms(facts: Facts) -> Iterator[Text]:
    for alarm in facts.alarms:
        taken = f" ({alarm.acknowledged} takes care of it)" if alarm.acknowledged else ""
        number = f"{alarm.id} " if alarm.id else ""
        line = f"! {number}{alarm.name}: {alarm.text} ({duration(facts.now - alarm.opened)}){taken}"
        yield Text(line, style=_COLOUR[alarm.severity])
    if facts.messages_trouble:
        yield Text(f"! {facts.messages_waiting} messages wait: {facts.messages_trouble}", style="yellow")


def _numbers(facts: Facts) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    for name, text in number_lines(facts):
        table.add_row(name, text)
    return table


def number_lines(facts: Facts) -> Iterator[tuple[str, str]]:
    """Yield the figures of the night as (name, text)."""
    expected = f"{facts.expected} expected, " if facts.expected else ""
    states = ", ".join(f"{n} {state}" for state, n in facts.exposures.items() if n and state != "received")
    waiting = facts.oldest_waiting
    yield "exposures", f"{expected}{facts.received} received" + (f": {states}" if states else "")
    if waiting is not None:
        yield "waiting", f"{waiting[2]} exposures, the oldest ({waiting[0]}) for {duration(facts.now - waiting[1])}"
    yield "queues", _counts(facts.operator.queued if facts.database and facts.operator else facts.queue) or "empty"
    if facts.operator is not None and any(facts.operator.landing.values()):
        yield "landing", _counts(facts.operator.landing)
    yield "work", _work(facts)
    yield from _latencies(facts)
    if facts.has_stream:
        yield "alerts", _counts(facts.stream) or "none yet"
    yield "disks", "; ".join(_disks(facts))
    if facts.sun_altitude_deg is not None:
        yield "sun", f"{facts.sun_altitude_deg:+.1f} degrees"


def _counts(counts: object) -> str:
    return ", ".join(f"{n} {name}" for name, n in dict(counts).items() if n)  # type: ignore[call-overload]


def _work(facts: Facts) -> str:
    by_kind: dict[str, Counter[str]] = {}
    for work in facts.work:
        by_kind.setdefault(work.kind, Counter())[work.state.value] += work.n
    shown = []
    for kind, states in by_kind.items():
        others = ", ".join(f"{n} {state}" for state, n in states.items() if state != JobState.DONE and n)
        shown.append(f"{kind} {states['done']}" + (f" ({others})" if others else ""))
    return "; ".join(shown) or "none yet"


def _latencies(facts: Facts) -> Iterator[tuple[str, str]]:
    hour = [one for one in facts.latencies if one.finished > facts.now - 3600.0] or facts.latencies[-20:]
    arrivals = [one.to_received for one in hour if one.to_received is not None]
    if arrivals:
        yield "to receipt", f"{_percentiles(arrivals)}  {sparkline(arrivals)}"
    done = [one.to_done for one in hour]
    if done:
        yield "to the end", f"{_percentiles(done)}  {sparkline(done)}"


def _percentiles(seconds: Sequence[float]) -> str:
    half, most = np.percentile(seconds, (50, 95))
    return f"half within {duration(float(half))}, 95 % within {duration(float(most))} ({len(seconds)} exposures)"


def sparkline(values: Sequence[float], width: int = 30) -> str:
    """Return the last values as a line of bars from zero to the largest."""
    last = np.asarray(values[-width:], dtype=float)
    top = float(last.max()) if last.size else 0.0
    if top <= 0:
        return _BARS[0] * last.size
    return "".join(_BARS[int(np.clip(value / top * (len(_BARS) - 1), 0, len(_BARS) - 1))] for value in last)


def _disks(facts: Facts) -> Iterator[str]:
    for disk in facts.disks:
        if disk.free_gb is None:
            yield f"{disk.name} {disk.trouble}"
        else:
            room = f" of {disk.total_gb:.0f}" if disk.total_gb else ""
            low = f", {disk.low_gb:.0f} wanted" if disk.free_gb < disk.low_gb else ""
            yield f"{disk.name} {disk.free_gb:.1f}{room} GB free{low}{' ' + disk.trouble if disk.trouble else ''}"


def _workers(facts: Facts) -> Table:
    assert facts.operator is not None
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("worker", "process", "memory", "what"):
        table.add_column(name, justify="right" if name in ("process", "memory") else "left", no_wrap=True)
    workers = sorted(facts.operator.workers, key=lambda one: one.job is None)
    for one in workers[:_SHOWN_WORKERS]:
        memory = "" if one.memory_mb is None else f"{one.memory_mb:.0f} MB"
        since = "" if one.since is None else f", {duration(max(facts.now - one.since, 0.0))}"
        table.add_row(one.name, str(one.pid or ""), memory, f"{one.what}{since}" if one.job else "waits")
    if len(workers) > _SHOWN_WORKERS:
        busy = sum(one.job is not None for one in workers)
        table.add_row("...", "", "", f"{len(workers)} workers, {busy} busy")
    return table


def _fields(facts: Facts) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("field", "filter", "received", "processed", "failed", "held"):
        table.add_column(name, justify="right")
    for row in facts.fields[-_SHOWN_FIELDS:]:
        numbers = (row.received, row.processed, row.failed, row.held)
        table.add_row(str(row.field or "-"), row.band or "-", *(str(n) if n else "" for n in numbers))
    if len(facts.fields) > _SHOWN_FIELDS:
        table.caption = f"the last {_SHOWN_FIELDS} of {len(facts.fields)}"
    return table


def _last_lines(facts: Facts) -> Sequence[str]:
    own = facts.operator.recent if facts.operator is not None else ()
    return list(own[:_SHOWN_LINES]) or list(facts.log[:_SHOWN_LINES])
