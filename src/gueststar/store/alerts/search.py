"""Searches of an alert log: by identifier, object, place, time, program, and a condition on any field.

Identifiers and names are looked up in the log's index, everything else in its table of columns, by DuckDB. What a
person gives reaches it as parameters or as a condition that was checked; names of fields are those of the table.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from gueststar.algorithms.association.sky_index import index_ranges
from gueststar.core.errors import ConfigError, ServiceDown
from gueststar.formats.packet_columns import PLACES, joined
from gueststar.model.rights import Program
from gueststar.store.alerts.log import AlertLog
from gueststar.store.alerts.table import AlertTable, TableFile

SHOWN = ("candid", "objectId", "night", "jd", "ra", "dec", "fid", "magpsf", "sigmapsf", "isdiffpos", "rb", "programid")
"""Columns of an answer that names none."""

OPERATORS = ("=", "!=", "<", "<=", ">", ">=")
_ATTEMPTS = 4
"""Files are merged while others look: a look that finds one gone begins again."""
_SEPARATION = """
    2.0 * asin(sqrt(least(1.0, pow(sin(radians("dec" - ?) / 2.0), 2)
    + cos(radians("dec")) * cos(radians(?)) * pow(sin(radians("ra" - ?) / 2.0), 2))))
"""
_DAMAGED = (duckdb.IOException, duckdb.InvalidInputException, pa.ArrowException, OSError)


@dataclass(frozen=True)
class Cone:
    """A circle on the sky."""

    ra: float
    """ICRS, degrees."""
    dec: float
    radius_arcsec: float

    def __post_init__(self) -> None:
        is_place = math.isfinite(self.ra) and -90.0 <= self.dec <= 90.0
        if not is_place or not 0.0 < self.radius_arcsec <= 648_000.0:
            told = f"RA {self.ra}, Dec {self.dec}, radius {self.radius_arcsec} arcsec"
            raise ConfigError(f"{told} is no circle on the sky: degrees, degrees, arcsec up to 648000")


@dataclass(frozen=True)
class SqlCondition:
    """A checked condition: DuckDB's text with a ``?`` for each parameter, over fields of the table."""

    text: str
    parameters: tuple[Any, ...] = ()
    fields: tuple[str, ...] = ()
    """Fields that it asks of."""


@dataclass(frozen=True)
class AlertQuery:
    """What is looked for; all that is given must hold. The default is every public alert."""

    programs: Collection[Program] = (Program.PUBLIC,)
    candids: Collection[int] | None = None
    object_name: str | None = None
    cone: Cone | None = None
    since_jd: float | None = None
    """Earliest time, Julian date UTC."""
    until_jd: float | None = None
    """Latest time."""
    first_night: int | None = None
    last_night: int | None = None
    condition: SqlCondition | None = None
    columns: Sequence[str] | None = None
    """Fields of the answer; None: `SHOWN`, as far as they are there."""
    limit: int | None = None
    order: str = "time"
    """``time`` or ``arrival``."""


def compared(field: str, operator: str, value: float | int | str | bool) -> SqlCondition:
    """Return the condition that a field compares with a value; alerts in which it is not known do not satisfy it."""
    if operator not in OPERATORS:
        raise ConfigError(f"{operator!r} is none of {' '.join(OPERATORS)}")
    return SqlCondition(f"{_quoted(field)} {operator} ?", (value,), (field,))


def all_of(conditions: Sequence[SqlCondition]) -> SqlCondition:
    """Return the condition that several hold."""
    return SqlCondition(
        " AND ".join(f"({condition.text})" for condition in conditions),
        tuple(value for condition in conditions for value in condition.parameters),
        tuple(field for condition in conditions for field in condition.fields),
    )


class AlertSearch:
    """Searches of one log. Each sees all that was in the log when it began, and no program that it does not name."""

    def __init__(self, log: AlertLog, *, threads: int = 1) -> None:
        self.log, self.table = log, AlertTable(log)
        self._duckdb = duckdb.connect(":memory:", config={"threads": threads, "autoinstall_known_extensions": False})
        self._duckdb.execute("SET parquet_metadata_cache = true")
        self._files: list[TableFile] | None = None
        self._fields: dict[str, str] = {}

    def __enter__(self) -> AlertSearch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget what was read; the log stays open."""
        self._duckdb.close()

    def fields(self) -> dict[str, str]:
        """Return the fields that may be asked for, with their kinds."""
        self._refresh()
        return dict(self._fields)

    def run(self, query: AlertQuery) -> pa.Table:
        """Return the alerts that satisfy a query; raises ConfigError for a field that there is not."""
        return self._answer(query, None)

    def count_by_night(self, query: AlertQuery) -> pa.Table:
        """Return ``night``, ``programid`` and the number ``n`` of the alerts that satisfy a query."""
        return self._answer(
            query, "SELECT night, programid, count(*) AS n FROM alert WHERE {} GROUP BY ALL ORDER BY ALL"
        )

    def _answer(self, query: AlertQuery, statement: str | None) -> pa.Table:
        for attempt in range(_ATTEMPTS):
            try:
                self._refresh()
                return self._ask(query, statement)
            except _DAMAGED:
                if attempt == _ATTEMPTS - 1:
                    raise
                self._files = None
                self.table.remove(self.table.damaged())
        raise AssertionError("unreachable")

    def _refresh(self) -> None:
        """Bring the table up to date, and look at it; what cannot be written to it is looked at in memory."""
        tail: pa.Table | None = None
        try:
            self.table.complete()
        except (ServiceDown, PermissionError):
            parts = [part for gap in self.table.missing() for part in self.table.rows_between(*gap)]
            tail = joined(parts) if parts else None
        files = self.table.files()
        if files != self._files or tail is not None:
            self._files = files
            self._look_at([file.path for file in files], tail)

    def _look_at(self, paths: list[Path], tail: pa.Table | None) -> None:
        """Make the view ``alert`` of files, and of rows that are in none."""
        self._duckdb.execute("DROP VIEW IF EXISTS alert")
        self._duckdb.register("rest", PLACES.empty_table() if tail is None else tail)
        view = "FROM rest"
        if paths:
            schemas = {pq.read_schema(path).remove_metadata() for path in paths}
            files = self._duckdb.read_parquet([str(path) for path in paths], union_by_name=len(schemas) > 1)
            files.create_view("filed", replace=True)
            view = "FROM filed" if tail is None else "SELECT * FROM filed UNION ALL BY NAME SELECT * FROM rest"
        self._duckdb.execute(f"CREATE VIEW alert AS {view}")
        self._fields = {name: kind for name, kind, *_ in self._duckdb.execute("DESCRIBE alert").fetchall()}

    def _ask(self, query: AlertQuery, statement: str | None) -> pa.Table:
        for field in (*(query.condition.fields if query.condition else ()), *(query.columns or ())):
            _check_field(field, self._fields)
        condition = self._condition(query)
        if statement is None:
            columns = query.columns or [name for name in SHOWN if name in self._fields]
            order = {"time": "jd, candid", "arrival": "serial"}[query.order]
            chosen = ", ".join(_quoted(name) for name in columns)
            statement = f"SELECT {chosen} FROM alert WHERE {{}} ORDER BY {order}"
            if query.limit is not None:
                statement += f" LIMIT {int(query.limit)}"
        statement = statement.format(condition.text)
        return self._duckdb.sql(statement, params=list(condition.parameters)).to_arrow_table()

    def _condition(self, query: AlertQuery) -> SqlCondition:
        parts = [SqlCondition("programid IN (SELECT unnest(?))", ([int(program) for program in query.programs],))]
        if query.candids is not None or query.object_name is not None:
            entries = self.log.entries(programs=query.programs, object_name=query.object_name, candids=query.candids)
            parts.append(SqlCondition("serial IN (SELECT unnest(?::BIGINT[]))", ([entry.serial for entry in entries],)))
        limits = {
            "jd >= ?": query.since_jd, "jd <= ?": query.until_jd, "night >= ?": query.first_night,
            "night <= ?": query.last_night,
        }  # fmt: skip
        parts += [SqlCondition(text, (value,)) for text, value in limits.items() if value is not None]
        if query.cone is not None:
            parts.append(_within(query.cone))
        if query.condition is not None:
            parts.append(query.condition)
        return all_of(parts)


def _within(cone: Cone) -> SqlCondition:
    ranges = index_ranges([cone.ra], [cone.dec], cone.radius_arcsec)
    near = " OR ".join("healpix_29 BETWEEN ? AND ?" for _ in ranges)
    ends = tuple(end for pair in ranges for end in pair)
    place = (cone.dec, cone.dec, cone.ra, math.radians(cone.radius_arcsec / 3600.0))
    return SqlCondition(f"({near}) AND {_SEPARATION} <= ?", (*ends, *place))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _check_field(field: str, known: Collection[str]) -> None:
    if field not in known:
        near = difflib.get_close_matches(field, known, n=3, cutoff=0.5)
        offer = f"; near it are {', '.join(near)}" if near else ""
        raise ConfigError(f"alerts have no field {field!r}{offer}")
