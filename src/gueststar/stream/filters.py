"""Filters of users over the alert log: what passes is noted, once, whatever is killed when.

They run behind the main publication, which never waits for them. A filter is asked of an alert only if its owner may
take that packet as it is; packets that no filter may see are not even opened. A filter that takes too long, or fails,
is paused with the reason, and the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gueststar.core.errors import ConfigError, DataError
from gueststar.formats.alert_table import alert_table, alert_table_schema
from gueststar.formats.avro import decode_alert
from gueststar.formats.conditions.evaluate import Batch
from gueststar.formats.conditions.parse import Condition, parse_condition
from gueststar.formats.conditions.tree import field_kinds
from gueststar.model.readers import PacketNights
from gueststar.model.rights import Program
from gueststar.store.alerts.log import AlertLog
from gueststar.store.alerts.segments import AlertEntry
from gueststar.store.filters.definitions import FilterRequest, FilterState, FilterStore, StoredFilter
from gueststar.store.filters.marks import FilterCount, FilterMarks, Match
from gueststar.store.readers import reader_named, sight_of
from gueststar.store.settings import FilterSettings, SurveySettings

NightsOf = Callable[[str], PacketNights]
"""From the name of a user to the packets that he may take as they are; ConfigError if there is no such user."""

_TIMES_PER_DAY = 1e5
"""Exposures are told apart by their start, to a second."""


def checked(request: FilterRequest) -> Condition:
    """Return a request's condition, checked over the fields of alerts; ConfigError tells what is wrong with either."""
    kinds = field_kinds(alert_table_schema())
    if request.order_by not in kinds or not kinds[request.order_by].is_numeric:
        raise ConfigError(f"the best alerts are chosen by a number, {request.order_by!r} is none of an alert's")
    return parse_condition(request.condition, kinds)


@dataclass
class FilterReceipt:
    """What one round of filters did."""

    n_alerts: int = 0
    """Alerts that were looked at."""
    n_passed: int = 0
    """Times that an alert passed a filter within its cap."""
    n_capped: int = 0
    n_unreadable: int = 0
    paused: dict[str, str] = field(default_factory=dict)
    """Filter -> why it was paused."""

    def lines(self) -> list[str]:
        """Return it in words."""
        told = [f"filters: {self.n_alerts} alerts, {self.n_passed} passed, {self.n_capped} over a cap"]
        if self.n_unreadable:
            told.append(f"filters: {self.n_unreadable} packets could not be read")
        return told + [f"filter {label} paused: {reason}" for label, reason in self.paused.items()]


@dataclass(frozen=True, eq=False)
class AlertBatch:
    """Alerts of one program and night, as filters see them."""

    entries: list[AlertEntry]
    table: pa.Table
    n_unreadable: int


def exposures_of(table: pa.Table) -> NDArray[np.int64]:
    """Return a number for the exposure of each alert: its start, to a second."""
    jd = np.asarray(table.column("jd").to_numpy(), dtype=np.float64)
    return np.round(jd * _TIMES_PER_DAY).astype(np.int64)


class RunFilters:
    """Asks the active filters of a survey of the alerts that nobody asked them of yet."""

    def __init__(
        self, root: Path, store: FilterStore, settings: FilterSettings, *, nights_of: NightsOf,
        clock: Callable[[], float] = time.thread_time,
    ) -> None:  # fmt: skip
        self._log, self._marks, self._store = AlertLog(root), FilterMarks(root), store
        self._settings, self._nights_of, self._clock = settings, nights_of, clock
        self._conditions: dict[str, Condition] = {}

    def __enter__(self) -> RunFilters:
        return self

    def __exit__(self, *_: object) -> None:
        self._marks.close()
        self._log.close()

    def run(self, *, must_be_sent: bool) -> FilterReceipt:
        """Look at all that is new; return what was done. ``must_be_sent``: only at what left to the stream."""
        receipt = FilterReceipt()
        while active := self._store.filters(states=[FilterState.ACTIVE]):
            entries = self._marks.unlooked(self._settings.alerts_at_once, must_be_sent=must_be_sent)
            if not entries:
                break
            matches, counts = list[Match](), list[FilterCount]()
            nights = self._nights(active, receipt)
            for group in _by_program_and_night(entries):
                program, night = Program(group[0].program), group[0].day_obs
                asked = [
                    one for one in active
                    if nights[one.label].allows(program, day_obs=night) and one.first_serial <= group[-1].serial
                ]  # fmt: skip
                self._ask(asked, group, matches, counts, receipt)
            self._marks.settle({entry.segment for entry in entries}, matches, counts)
            receipt.n_alerts += len(entries)
        return receipt

    def _nights(self, active: Sequence[StoredFilter], receipt: FilterReceipt) -> dict[str, PacketNights]:
        """Return the packets that each filter may be asked of now; one whose owner is gone is paused."""
        nights = dict[str, PacketNights]()
        for one in active:
            try:
                nights[one.label] = self._nights_of(one.request.owner).within(one.request.programs)
            except ConfigError as problem:
                nights[one.label] = PacketNights({})
                self._pause(one, str(problem), receipt)
        return nights

    def _ask(
        self, asked: Sequence[StoredFilter], group: list[AlertEntry], matches: list[Match], counts: list[FilterCount],
        receipt: FilterReceipt,
    ) -> None:  # fmt: skip
        """Ask filters of alerts of one program and night."""
        if not asked:
            return
        alerts = read_batch(self._log, group)
        receipt.n_unreadable += alerts.n_unreadable
        batch, serials = Batch(alerts.table), np.array([entry.serial for entry in alerts.entries], dtype=np.int64)
        for one in asked:
            if one.label in receipt.paused:
                continue
            try:
                tree = self._condition(one).tree
                begin = self._clock()
                verdict = batch.verdict(tree)
                is_for_it = serials >= one.first_serial
                passed = self._chosen(one, alerts, verdict.is_true & is_for_it)
            except Exception as problem:  # one user's filter must not hold those of the others, whatever is wrong
                self._pause(one, f"it failed: {' '.join(str(problem).split())}", receipt)
                continue
            took = self._clock() - begin
            n_capped = sum(match.is_capped for match in passed)
            matches += passed
            counts.append(
                FilterCount(
                    one.request.topic, one.version, group[0].day_obs, n_seen=int(is_for_it.sum()), n_passed=len(passed),
                    n_capped=n_capped, n_unknown=int((is_for_it & ~verdict.is_true & ~verdict.is_false).sum()),
                    n_unreadable=alerts.n_unreadable, cpu_s=took,
                )
            )  # fmt: skip
            receipt.n_passed += len(passed) - n_capped
            receipt.n_capped += n_capped
            if 1000.0 * took > self._settings.budget_ms:
                reason = f"{1000 * took:.1f} ms of CPU for {len(group)} alerts, more than {self._settings.budget_ms:g}"
                self._pause(one, reason, receipt)

    def _condition(self, one: StoredFilter) -> Condition:
        if one.label not in self._conditions:
            self._conditions[one.label] = checked(one.request)
        return self._conditions[one.label]

    def _chosen(self, one: StoredFilter, alerts: AlertBatch, is_true: NDArray[np.bool_]) -> list[Match]:
        """Return what passed, in order of arrival, each marked if it is beyond the cap of its exposure."""
        rows = np.flatnonzero(is_true)
        if not rows.size:
            return []
        exposures = exposures_of(alerts.table)[rows]
        room = {int(exposure): one.request.cap for exposure in np.unique(exposures)}
        for exposure, n in self._marks.taken_of(one.request.topic, list(room)).items():
            room[exposure] -= n
        kept = set(best_of(alerts.table, rows, exposures, room, one.request))
        return [
            Match(one.request.topic, one.version, alerts.entries[row], int(exposure), row not in kept)
            for row, exposure in zip(rows.tolist(), exposures, strict=True)
        ]

    def _pause(self, one: StoredFilter, reason: str, receipt: FilterReceipt) -> None:
        request = one.request
        self._store.set_state(request.owner, request.name, FilterState.PAUSED, reason=reason, version=one.version)
        receipt.paused[one.label] = reason


def best_of(
    table: pa.Table, rows: NDArray[np.intp], exposures: NDArray[np.int64], room: dict[int, int], request: FilterRequest
) -> list[int]:
    """Return the rows that a filter keeps: the best of each exposure, as many as there is room for.

    Of equally good ones the first is kept; where the field is not known an alert is worse than all others.
    """
    column = table.column(request.order_by).cast(pa.float64()).fill_null(float("nan"))
    goodness = np.asarray(column.to_numpy(), dtype=np.float64)[rows] * (-1.0 if request.is_ascending else 1.0)
    goodness[np.isnan(goodness)] = -np.inf
    kept, room = list[int](), dict(room)
    for position in np.argsort(-goodness, kind="stable"):
        exposure = int(exposures[position])
        if room[exposure] > 0:
            room[exposure] -= 1
            kept.append(int(rows[position]))
    return kept


def read_batch(log: AlertLog, entries: Sequence[AlertEntry]) -> AlertBatch:
    """Return alerts as a table; packets that cannot be read, or do not fit the table, are left out and counted."""
    found = list[tuple[AlertEntry, dict[str, Any]]]()
    for entry in entries:
        try:
            found.append((entry, decode_alert(log.read(entry))))
        except DataError:
            continue
    try:
        table = alert_table([packet for _, packet in found])
    except DataError:
        found = [(entry, packet) for entry, packet in found if _fits(packet)]
        table = alert_table([packet for _, packet in found])
    return AlertBatch([entry for entry, _ in found], table, len(entries) - len(found))


def _fits(packet: dict[str, Any]) -> bool:
    try:
        alert_table([packet])
    except DataError:
        return False
    return True


def _by_program_and_night(entries: Iterable[AlertEntry]) -> list[list[AlertEntry]]:
    groups: dict[tuple[int, int], list[AlertEntry]] = {}
    for entry in entries:
        groups.setdefault((entry.program, entry.day_obs), []).append(entry)
    return list(groups.values())


def nights_of_owners(root: Path, settings: SurveySettings) -> NightsOf:
    """Return what the owners of filters may take now, by the one policy."""
    return cache(lambda owner: sight_of(settings, reader_named(root, settings, owner)).packet_nights())
