"""Searches of an alert log: by identifier, object, place, time, program, and a condition on any field.

Identifiers and names are looked up in the log's index, everything else in its table of columns, by DuckDB. Conditions
are those of filters (`gueststar.formats.conditions`), checked and turned into SQL the same way, so that the same text
finds the same alerts in the stream and here. What a person gives otherwise is a parameter, never text.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from gueststar.algorithms.association.sky_index import index_ranges
from gueststar.core.errors import ConfigError, ServiceDown
from gueststar.formats.alert_table import alert_table_schema
from gueststar.formats.conditions.parse import parse_condition
from gueststar.formats.conditions.tree import Kind, field_kinds
from gueststar.formats.packet_columns import PLACES, joined
from gueststar.model.readers import PacketNights
from gueststar.model.rights import Program
from gueststar.store.alerts.log import AlertLog
from gueststar.store.alerts.segments import AlertEntry
from gueststar.store.alerts.table import AlertTable, TableFile
from gueststar.store.condition_sql import condition_sql

SHOWN = ("candid", "objectId", "night", "jd", "ra", "dec", "fid", "magpsf", "sigmapsf", "isdiffpos", "rb", "programid")
"""Columns of an answer for which none were named."""

INTERNAL = frozenset({"serial", "healpix_29"})
"""Columns that are nobody's to ask for: the order of arrival would count alerts of other programs."""

_ATTEMPTS = 4
"""Files are merged while others look: a look that finds one gone begins again."""
_DAMAGED = (duckdb.IOException, duckdb.InvalidInputException, pa.ArrowException, OSError)
_ORDERS = {"time": "jd, candid", "arrival": "serial"}


class Cone(NamedTuple):
    """A circle on the sky, of up to 10 degrees."""

    ra: float
    """ICRS, degrees."""
    dec: float
    radius_arcsec: float


@dataclass(frozen=True)
class AlertQuery:
    """What is looked for; all that is given must hold. The default is every public alert."""

    programs: Collection[Program] | PacketNights = (Program.PUBLIC,)
    """Whose alerts may be taken, or of which nights."""
    candids: Collection[int] | None = None
    object_name: str | None = None
    cone: Cone | None = None
    since_jd: float | None = None
    """Earliest time, Julian date UTC."""
    until_jd: float | None = None
    """Latest time."""
    first_night: int | None = None
    last_night: int | None = None
    first_serial: int | None = None
    """Place in the order of arrival of the first."""
    where: str | None = None
    """A condition over the table's fields, in the language of filters."""
    columns: Sequence[str] | Literal["all"] | None = None
    """Fields of the answer; None: `SHOWN`, as far as the table has them."""
    limit: int | None = None
    order: Literal["time", "arrival"] = "time"


class SearchField(NamedTuple):
    """A field that can be asked for."""

    name: str
    kind: Kind
    unit: str
    meaning: str


class _Clause(NamedTuple):
    text: str
    parameters: tuple[Any, ...] = ()


class AlertSearch:
    """Searches of one log. Each sees all that was in the log when it began, and no program that it does not name."""

    def __init__(self, log: AlertLog, *, threads: int = 1) -> None:
        self.log, self.table = log, AlertTable(log)
        self._duckdb = duckdb.connect(":memory:", config={"threads": threads, "autoinstall_known_extensions": False})
        self._duckdb.execute("SET parquet_metadata_cache = true")
        self._files: list[TableFile] | None = None
        self._fields: dict[str, Kind] = {}

    def __enter__(self) -> AlertSearch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget what was read; the log stays open."""
        self._duckdb.close()

    def fields(self) -> list[SearchField]:
        """Return the fields that may be asked for."""
        self._refresh()
        told = {field.name: field.metadata or {} for field in (*alert_table_schema(), *PLACES)}
        return [
            SearchField(name, kind, *(told.get(name, {}).get(key, b"").decode() for key in (b"unit", b"doc")))
            for name, kind in self._fields.items()
        ]

    def run(self, query: AlertQuery) -> pa.Table:
        """Return the alerts that satisfy a query; raises ConfigError for a field or condition that cannot be."""
        return self._answer(query, None)

    def entries(self, query: AlertQuery) -> list[AlertEntry]:
        """Return the log's entries of the alerts that satisfy a query, in order of arrival; with a limit the first."""
        statement = f"SELECT candid FROM alert WHERE {{}} ORDER BY serial {_limit(query.limit)}"
        found = self._answer(query, statement)["candid"].to_pylist()
        return self.log.entries(programs=query.programs, candids=found)

    def count_by_night(self, query: AlertQuery) -> pa.Table:
        """Return ``night``, ``programid`` and the number ``n`` of the alerts that satisfy a query."""
        grouped = "SELECT night, programid, count(*) AS n FROM alert WHERE {} GROUP BY ALL ORDER BY ALL"
        return self._answer(query, grouped)

    def _answer(self, query: AlertQuery, statement: str | None) -> pa.Table:
        for attempt in range(_ATTEMPTS):
            try:
                self._refresh()
                return self._ask(query, statement or self._listing(query))
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
            self._look_at([file.path for file in files], tail)
            self._files = files

    def _look_at(self, paths: list[Path], tail: pa.Table | None) -> None:
        """Make the view ``alert`` of files, and of rows that are in none."""
        self._duckdb.execute("DROP VIEW IF EXISTS alert")
        self._duckdb.register("rest", self._nothing() if tail is None else tail)
        view = "FROM rest"
        if paths:
            schemas = {pq.read_schema(path).remove_metadata() for path in paths}
            files = self._duckdb.read_parquet([str(path) for path in paths], union_by_name=len(schemas) > 1)
            files.create_view("filed", replace=True)
            view = "FROM filed" if tail is None else "SELECT * FROM filed UNION ALL BY NAME SELECT * FROM rest"
        self._duckdb.execute(f"CREATE VIEW alert AS {view}")
        kinds = field_kinds(self._duckdb.sql("FROM alert LIMIT 0").to_arrow_table().schema)
        self._fields = {name: kind for name, kind in kinds.items() if name not in INTERNAL}

    def _nothing(self) -> pa.Table:
        """Return the table of no alerts: of the survey's own the fields are known before there are any."""
        own = alert_table_schema() if self.log.survey is None else ()
        return pa.schema([*PLACES, *(field for field in own if field.name not in PLACES.names)]).empty_table()

    def _listing(self, query: AlertQuery) -> str:
        chosen = list(self._fields) if query.columns == "all" else query.columns
        for name in chosen or ():
            _check_field(name, self._fields)
        names = ", ".join(_quoted(name) for name in chosen or [name for name in SHOWN if name in self._fields])
        return f"SELECT {names} FROM alert WHERE {{}} ORDER BY {_ORDERS[query.order]} {_limit(query.limit)}"

    def _ask(self, query: AlertQuery, statement: str) -> pa.Table:
        clauses = self._clauses(query)
        text = statement.format(" AND ".join(f"({clause.text})" for clause in clauses))
        parameters = [value for clause in clauses for value in clause.parameters]
        return self._duckdb.sql(text, params=parameters).to_arrow_table()

    def _clauses(self, query: AlertQuery) -> list[_Clause]:
        clauses = [_allowed(query.programs)]
        if query.candids is not None or query.object_name is not None:
            entries = self.log.entries(programs=query.programs, object_name=query.object_name, candids=query.candids)
            clauses.append(_Clause("serial IN (SELECT unnest(?::BIGINT[]))", ([entry.serial for entry in entries],)))
        limits = {
            "jd >= ?": query.since_jd, "jd <= ?": query.until_jd, "night >= ?": query.first_night,
            "night <= ?": query.last_night, "serial >= ?": query.first_serial,
        }  # fmt: skip
        clauses += [_Clause(text, (value,)) for text, value in limits.items() if value is not None]
        if query.cone is not None:
            cone = ", ".join(repr(float(number)) for number in query.cone)
            clauses += self._satisfied(f"cone({cone})")
        if query.where is not None:
            clauses += self._satisfied(query.where)
        return clauses

    def _satisfied(self, where: str) -> list[_Clause]:
        """Return what a condition asks, and where on the sky that can be."""
        condition = parse_condition(where, self._fields)
        return [_Clause(condition_sql(condition)), *(_near(*cone) for cone in condition.cones)]


def _allowed(programs: Collection[Program] | PacketNights) -> _Clause:
    nights = programs if isinstance(programs, PacketNights) else PacketNights.of_programs(programs)
    each = ["(programid = ? AND night <= ?)" for _ in nights.last_night]
    values = (value for program, night in nights.last_night.items() for value in (int(program), night))
    return _Clause(" OR ".join(["FALSE", *each]), tuple(values))


def _near(ra: float, dec: float, radius_arcsec: float) -> _Clause:
    ranges = index_ranges([ra], [dec], radius_arcsec)
    text = " OR ".join("healpix_29 BETWEEN ? AND ?" for _ in ranges)
    return _Clause(text, tuple(end for pair in ranges for end in pair))


def _limit(limit: int | None) -> str:
    return "" if limit is None else f"LIMIT {int(limit)}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _check_field(field: str, known: Mapping[str, Kind]) -> None:
    if field not in known:
        near = difflib.get_close_matches(field, known, n=3, cutoff=0.5)
        offer = f"; near it are {', '.join(near)}" if near else ""
        raise ConfigError(f"alerts have no field {field!r}{offer}")
