"""Figures for Prometheus, made from the facts each time they are asked for.

What counts a night begins anew with it, as a counter that was reset. Histograms of latency hold the exposures that
ended since this process began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from gueststar import __version__
from gueststar.operations.watch.facts import Facts
from gueststar.store.alarms import SEVERITIES
from gueststar.store.ledger_rows import ExposureState

BUCKETS_S = (15.0, 30.0, 60.0, 120.0, 180.0, 240.0, 300.0, 420.0, 600.0, 900.0, 1800.0, 3600.0, 14400.0, 43200.0)


class Figures(Collector):
    """Figures of one survey; ``facts`` returns what is known now."""

    def __init__(self, facts: Callable[[], Facts]) -> None:
        self._facts = facts
        self.registry = CollectorRegistry(auto_describe=False)
        names = {
            "gueststar_receipt_latency_seconds": "from the end of an exposure to its receipt",
            "gueststar_processing_latency_seconds": "from receipt to the end of an exposure's last unit of work",
        }
        self._to_received, self._to_done = (
            Histogram(name, meaning, buckets=BUCKETS_S, registry=self.registry) for name, meaning in names.items()
        )
        self._counted_to: float | None = None
        self.registry.register(self)

    def text(self) -> tuple[bytes, str]:
        """Return all figures as text, and its media type."""
        facts = self._facts()
        self._observe(facts)
        self._now = facts
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    def histograms(self) -> list[Metric]:
        """Return the histograms alone."""
        return [family for one in (self._to_received, self._to_done) for family in one.collect()]

    def describe(self) -> Iterable[Metric]:
        """Return nothing: figures are made when they are asked for."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the figures of the facts at hand."""
        yield from figures_of(self._now)

    def _observe(self, facts: Facts) -> None:
        """Count the exposures that ended since the last time; those before the first one are not counted."""
        since = facts.now if self._counted_to is None else self._counted_to
        for one in facts.latencies:
            if one.finished > since:
                self._to_done.observe(max(one.to_done, 0.0))
                if one.to_received is not None:
                    self._to_received.observe(max(one.to_received, 0.0))
        self._counted_to = max([since, *(one.finished for one in facts.latencies)])


def figures_of(facts: Facts) -> Iterator[Metric]:
    """Yield all figures but the histograms."""
    version = facts.operator.version if facts.operator is not None else __version__
    yield InfoMetricFamily("gueststar_survey", "the survey", value={"survey": facts.survey, "version": version})
    yield from _operator(facts)
    yield from _disks(facts)
    yield from _alarms(facts)
    if not facts.database:
        yield from _night(facts)


def _operator(facts: Facts) -> Iterator[Metric]:
    yield _one("gueststar_operator_up", "1 while the operator runs", float(not facts.is_operator_gone))
    yield _one("gueststar_database_up", "1 while the database works", float(not facts.database))
    if facts.beat_age_s is not None:
        yield _one("gueststar_operator_beat_age_seconds", "since the operator's last beat", facts.beat_age_s)
    state = facts.operator
    if state is None:
        return
    yield _many("gueststar_landing_files", "files that are not taken in yet", "place", state.landing)
    busy = sum(one.job is not None for one in state.workers)
    yield _many("gueststar_workers", "worker processes", "state", {"busy": busy, "idle": len(state.workers) - busy})
    memory = {one.name: 1e6 * one.memory_mb for one in state.workers if one.memory_mb is not None}
    yield _many("gueststar_worker_resident_memory_bytes", "memory of a worker process", "worker", memory)
    if state.last_alert is not None:
        yield _one("gueststar_last_alert_timestamp_seconds", "when the last alerts left", state.last_alert)


def _disks(facts: Facts) -> Iterator[Metric]:
    known = [disk for disk in facts.disks if disk.free_gb is not None]
    yield _many(
        "gueststar_disk_up", "1 where a disk can be written to", "disk", {d.name: not d.trouble for d in facts.disks}
    )
    yield _many("gueststar_disk_free_bytes", "free space", "disk", {d.name: 1e9 * (d.free_gb or 0) for d in known})
    yield _many("gueststar_disk_size_bytes", "size of a disk", "disk", {d.name: 1e9 * (d.total_gb or 0) for d in known})
    yield _many(
        "gueststar_disk_mark_bytes",
        "free space below which it is too full",
        "disk",
        {d.name: 1e9 * d.low_gb for d in known},
    )


def _alarms(facts: Facts) -> Iterator[Metric]:
    n_open = {severity: sum(alarm.severity == severity for alarm in facts.alarms) for severity in SEVERITIES}
    yield _many("gueststar_alarms_open", "alarms that are open", "severity", n_open)
    yield _one(
        "gueststar_messages_waiting", "messages to people that could not be delivered yet", facts.messages_waiting
    )


def _night(facts: Facts) -> Iterator[Metric]:
    states = {str(state): facts.exposures.get(state, 0) for state in ExposureState if state != ExposureState.RECEIVED}
    yield CounterMetricFamily(
        "gueststar_exposures_received", "science exposures received in the night", value=facts.received
    )
    yield _many("gueststar_night_exposures", "science exposures of the night that reached an end", "state", states)
    yield _one("gueststar_night_exposures_expected", "science exposures expected by now", facts.expected)
    yield _one("gueststar_night_files_refused", "files of the night that could not become exposures", facts.refused)
    units = GaugeMetricFamily("gueststar_night_units", "units of work of the night", labels=["stage", "state"])
    cpu: dict[str, float] = {}
    for work in facts.work:
        units.add_metric([work.kind, work.state.value], work.n)
        cpu[work.kind] = cpu.get(work.kind, 0.0) + work.cpu_s
    yield units
    seconds = CounterMetricFamily("gueststar_cpu_seconds", "CPU of the night's units of work", labels=["stage"])
    for stage, value in cpu.items():
        seconds.add_metric([stage], value)
    yield seconds
    yield _many("gueststar_queue_units", "units of work that wait", "priority", facts.queue)
    waiting = facts.oldest_waiting
    yield _one("gueststar_exposures_waiting", "exposures that have not reached their end", waiting[2] if waiting else 0)
    age = facts.now - waiting[1] if waiting else 0.0
    yield _one("gueststar_oldest_waiting_age_seconds", "since the oldest of them was received", age)
    if facts.last_received is not None:
        yield _one(
            "gueststar_last_received_timestamp_seconds", "when the last exposure was received", facts.last_received
        )
    if facts.has_stream:
        yield _many("gueststar_night_alerts", "alerts of the night by what became of them", "fate", facts.stream)
    if facts.sun_altitude_deg is not None:
        yield _one("gueststar_sun_altitude_degrees", "of the sun over the telescope", facts.sun_altitude_deg)


def _one(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=float(value))


def _many(name: str, meaning: str, label: str, values: Any) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=[label])
    for key, value in values.items():
        family.add_metric([str(key)], float(value))
    return family
