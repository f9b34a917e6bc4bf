"""Filters of a survey, as its operator keeps them: add, list, pause; and what a night's report says of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gueststar.core.errors import ConfigError
from gueststar.model.readers import ANONYMOUS
from gueststar.store.alerts.log import AlertLog
from gueststar.store.filters.definitions import FilterRequest, FilterState, FilterStore, StoredFilter, has_filters
from gueststar.store.filters.marks import FilterMarks
from gueststar.store.readers import reader_named, sight_of
from gueststar.store.repo import SurveyRepo
from gueststar.stream.filters import checked

_COUNTED = ("n_seen", "n_passed", "n_capped", "n_unknown", "n_unreadable")
_TOLD = ("sent", "waiting", "dead", "gone")


@contextmanager
def open_filters(root: Path) -> Iterator[FilterDesk]:
    """Open the filters of the survey at ``root``."""
    with SurveyRepo.open(root) as repo:
        store, marks = FilterStore.of(repo.root, repo.settings.database), FilterMarks(repo.root)
        try:
            yield FilterDesk(repo, store, marks)
        finally:
            marks.close()
            store.close()


class FilterDesk:
    """What an operator does with filters."""

    def __init__(self, repo: SurveyRepo, store: FilterStore, marks: FilterMarks) -> None:
        self.repo, self.store, self.marks = repo, store, marks

    def add(self, request: FilterRequest) -> str:
        """Add a filter, or a new version of one; it is asked of what comes from now on.

        Raises ConfigError for a wrong condition, an owner that is no user, and a program that he may see nothing of.
        """
        checked(request)
        if request.owner in (ANONYMOUS.name, "public"):
            raise ConfigError("a filter has an owner of its own: gueststar user list shows who could be")
        may_take = sight_of(self.repo.settings, reader_named(self.repo.root, self.repo.settings, request.owner))
        for program in request.programs:
            if program not in may_take.packet_nights().last_night:
                raise ConfigError(f"{request.owner} may see no {program.name.lower()} alerts: gueststar user groups")
        stored = self.store.add(request, first_serial=self._begin())
        return f"{stored.label}, topic {request.topic}"

    def set_state(self, owner: str, name: str, state: FilterState, *, reason: str = "") -> str:
        """Pause, resume or remove a filter; what passed before and waits is sent all the same."""
        first = self._begin() if state is FilterState.ACTIVE else None
        stored = self.store.set_state(owner, name, state, reason=reason, first_serial=first)
        return f"{stored.label} is {stored.state}"

    def _begin(self) -> int:
        """Return the place in the order of arrival from which on alerts are for a filter that begins now."""
        if not self.store.filters(states=[FilterState.ACTIVE]):
            self.marks.look_past()
        with AlertLog(self.repo.root) as log:
            return log.last_serial() + 1

    def lines(self, *, owner: str | None = None) -> list[str]:
        """Return filters with their state and what became of the alerts that passed, as lines."""
        fates = self.marks.fates()
        lines = []
        for stored in self.store.filters(owner=owner):
            told = ", ".join(f"{n} {fate}" for fate, n in sorted(fates.get(stored.request.topic, {}).items()))
            reason = f" ({stored.reason})" if stored.reason else ""
            lines.append(f"{stored.label} {stored.state}{reason}: {told or 'nothing passed yet'}")
        return lines

    def story(self, owner: str, name: str) -> dict[str, Any]:
        """Return all versions of a filter, and its counts by night, as JSON-able values."""
        versions = self.store.versions(owner, name)
        counts = [vars(count) for count in self.marks.counts(topic=versions[-1].request.topic)]
        for count in counts:
            del count["topic"]
        return {
            "owner": owner, "name": name, "topic": versions[-1].request.topic,
            "versions": [_told(stored) for stored in versions], "nights": counts,
        }  # fmt: skip


def _told(stored: StoredFilter) -> dict[str, Any]:
    request = stored.request
    return {
        "version": stored.version, "state": stored.state.value, "reason": stored.reason,
        "condition": request.condition, "programs": [program.name.lower() for program in request.programs],
        "cap": request.cap, "order_by": request.order_by, "is_ascending": request.is_ascending,
        "time_unix": stored.time,
    }  # fmt: skip


def filters_of(repo: SurveyRepo, night: int) -> list[dict[str, Any]]:
    """Return what a night's report says of filters: to the operator only, as counts tell of closed alerts too."""
    if not repo.sight.reader.is_operator or not has_filters(repo.root, repo.settings.database):
        return []
    store, marks = FilterStore.of(repo.root, repo.settings.database), FilterMarks(repo.root)
    try:
        fates = marks.fates(day_obs=night)
        counts = marks.counts(day_obs=night)
        rows = []
        for stored in store.filters():
            of_filter = [count for count in counts if count.topic == stored.request.topic]
            told = {name: sum(getattr(count, name) for count in of_filter) for name in _COUNTED}
            rows.append(
                {
                    "filter": f"{stored.request.owner}/{stored.request.name}", "version": stored.version,
                    "state": stored.state.value, "reason": stored.reason, **told,
                    "fates": fates.get(stored.request.topic, {}),
                }
            )  # fmt: skip
    finally:
        marks.close()
        store.close()
    return rows


def filter_lines(filters: list[dict[str, Any]]) -> list[str]:
    """Return it as lines of text."""
    lines = [f"filters ({len(filters)}):"] if filters else []
    for row in filters:
        parts = [f"{row['n_passed']} of {row['n_seen']} passed"]
        parts += [f"{row['n_capped']} over the cap"] if row["n_capped"] else []
        parts += [f"{row['n_unknown']} not known"] if row["n_unknown"] else []
        parts += [f"{row['n_unreadable']} unreadable"] if row["n_unreadable"] else []
        parts += [f"{n} {fate}" for fate, n in sorted(row["fates"].items()) if fate in _TOLD]
        state = f"; {row['state']}: {row['reason']}" if row["state"] != FilterState.ACTIVE else ""
        lines.append(f"  {row['filter']}: {', '.join(parts)}{state}")
    return lines
