"""A dry run of a filter on nights that have passed: how many alerts, of which objects, and why the others do not pass.

The condition is asked of the archive's table, as the same text that the stream would ask; nothing is sent or noted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from gueststar.core.errors import ConfigError
from gueststar.formats.conditions.text import text_of
from gueststar.formats.conditions.tree import Node
from gueststar.model.readers import PacketNights
from gueststar.store.alerts.imports import surveys_of
from gueststar.store.alerts.log import AlertLog
from gueststar.store.alerts.search import AlertQuery, AlertSearch
from gueststar.store.filters.definitions import FilterRequest
from gueststar.stream.filters import best_of, checked, exposures_of

COLUMNS = ("candid", "objectId", "night", "programid", "jd", "ra", "dec", "fid", "magpsf", "rb")
"""What is told of an alert that passes, besides the fields that the condition asks for."""


@dataclass(frozen=True)
class NightTally:
    """What a condition made of one night's alerts."""

    night: int
    n_seen: int
    """Alerts that the owner may see."""
    n_passed: int
    n_capped: int
    """Of those that passed, beyond the cap of their exposure."""
    n_unknown: int
    """For which it is neither true nor false."""


@dataclass(frozen=True)
class ClauseTally:
    """What one of the parts that must all be true made of all alerts."""

    text: str
    n_true: int
    n_unknown: int


@dataclass(frozen=True, eq=False)
class FilterTrial:
    """What a filter would have done."""

    request: FilterRequest
    nights: tuple[NightTally, ...]
    clauses: tuple[ClauseTally, ...]
    alerts: pa.Table
    """Those that would have been sent, by time: `COLUMNS` and the condition's fields."""

    @property
    def n_objects(self) -> int:
        """How many objects they are of."""
        return len(self.alerts.column("objectId").unique())

    def lines(self) -> list[str]:
        """Return it in words."""
        lines = [f"{'night':<10}{'alerts':>9}{'passed':>9}{'over cap':>10}{'not known':>11}"]
        lines += [f"{t.night:<10}{t.n_seen:>9}{t.n_passed:>9}{t.n_capped:>10}{t.n_unknown:>11}" for t in self.nights]
        if len(self.clauses) > 1:
            lines.append("each part alone: true, not known")
            lines += [f"  {c.n_true:>9}{c.n_unknown:>9}  {c.text}" for c in self.clauses]
        n = self.alerts.num_rows
        if n == 0:
            return [*lines, "no alert passes"]
        jd = np.asarray(self.alerts.column("jd").to_numpy())
        first, last = (self.alerts.column("candid")[row].as_py() for row in (0, n - 1))
        span = f"first {first} (JD {jd[0]:.5f}), last {last} (JD {jd[-1]:.5f})"
        return [*lines, f"{n} alerts of {self.n_objects} objects would have been sent; {span}"]


def try_filter(
    log: AlertLog, request: FilterRequest, *, nights: PacketNights, first_night: int | None, last_night: int | None
) -> FilterTrial:  # fmt: skip
    """Return what a filter would have made of nights, of those alerts that ``nights`` allows.

    Raises ConfigError for a wrong condition, and where the log holds no alert at all.
    """
    condition = checked(request)
    columns = list(dict.fromkeys([*COLUMNS, request.order_by, *sorted(condition.fields)]))
    allowed = nights.within(request.programs)
    with AlertSearch(log) as search:
        if log.last_serial() == 0:
            raise ConfigError(f"{log.folder} holds no alerts yet: nothing to try a filter on")
        asked = _Asked(search, allowed, first_night, last_night)
        passed = asked.alerts(request.condition, columns)
        kept = _within_cap(passed, request)
        tallies = _nights(
            asked.count(None), asked.count(f"({request.condition}) IS NULL"), passed, passed.take(kept)
        )  # fmt: skip
        clauses = tuple(_clause(asked, clause) for clause in condition.clauses) if len(condition.clauses) > 1 else ()
    return FilterTrial(request, tallies, clauses, passed.take(kept))


class _Asked:
    """Searches of what one reader may see of some nights."""

    def __init__(self, search: AlertSearch, allowed: PacketNights, first: int | None, last: int | None) -> None:
        self._search = search
        self._parts = [
            {"programs": (program,), "first_night": first, "last_night": night if last is None else min(night, last)}
            for program, night in allowed.last_night.items()
        ]

    def alerts(self, where: str, columns: Sequence[str]) -> pa.Table:
        """Return the alerts that satisfy a condition, by time."""
        found = [self._search.run(AlertQuery(**part, where=where, columns=columns)) for part in self._parts]  # type: ignore[arg-type]
        if not found:
            raise ConfigError("the owner may see none of these programs")
        return pa.concat_tables(found).sort_by([("jd", "ascending"), ("candid", "ascending")])

    def count(self, where: str | None) -> dict[int, int]:
        """Return by night how many alerts satisfy a condition, or how many there are."""
        n: dict[int, int] = {}
        for part in self._parts:
            for row in self._search.count_by_night(AlertQuery(**part, where=where)).to_pylist():  # type: ignore[arg-type]
                n[row["night"]] = n.get(row["night"], 0) + row["n"]
        return n


def _within_cap(passed: pa.Table, request: FilterRequest) -> np.ndarray:
    """Return the rows that would have been sent, in order."""
    exposures = exposures_of(passed)
    room = {int(exposure): request.cap for exposure in np.unique(exposures)}
    return np.array(sorted(best_of(passed, np.arange(passed.num_rows), exposures, room, request)), dtype=np.int64)


def _nights(
    seen: dict[int, int], unknown: dict[int, int], passed: pa.Table, sent: pa.Table
) -> tuple[NightTally, ...]:  # fmt: skip
    n_passed, n_sent = (_by_night(table) for table in (passed, sent))
    return tuple(
        NightTally(
            night, n, n_passed.get(night, 0), n_passed.get(night, 0) - n_sent.get(night, 0), unknown.get(night, 0)
        )
        for night, n in sorted(seen.items())
    )


def _by_night(table: pa.Table) -> dict[int, int]:
    counted = table.column("night").value_counts()
    return {int(pair["values"].as_py()): int(pair["counts"].as_py()) for pair in counted}


def _clause(asked: _Asked, clause: Node) -> ClauseTally:
    text = text_of(clause)
    return ClauseTally(text, sum(asked.count(text).values()), sum(asked.count(f"{text} IS NULL").values()))


def nights_from(text: str | None) -> tuple[int | None, int | None]:
    """Return the first and the last night of ``YYYYMMDD`` or ``YYYYMMDD:YYYYMMDD``; ConfigError for anything else."""
    if text is None:
        return None, None
    words = text.split(":")
    if len(words) > 2 or not all(len(word) == 8 and word.isdigit() for word in words):
        raise ConfigError(f"nights are YYYYMMDD or YYYYMMDD:YYYYMMDD, not {text!r}")
    return int(words[0]), int(words[-1])


def log_of(root: Path, survey: str | None) -> AlertLog:
    """Open the alert log of a survey, or of another survey whose alerts it imported; ConfigError for one it has not."""
    if survey is not None and survey not in surveys_of(root):
        raise ConfigError(f"{root} has no imported alerts of {survey!r}: {', '.join(surveys_of(root)) or 'of none'}")
    return AlertLog(root, survey=survey)
