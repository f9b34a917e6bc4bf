"""Many rows in one statement, and lists of numbers as one parameter.

SQLite takes rows with ``executemany`` and lists as JSON; PostgreSQL takes rows with COPY and lists as arrays.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv
from sqlalchemy import BigInteger, Connection, FromClause, Table, bindparam, cast, column, func, select
from sqlalchemy.dialects.postgresql import ARRAY

from gueststar.store.sql import SCHEMA

Columns = Mapping[str, NDArray[Any]]


def insert_rows(connection: Connection, table: Table, columns: Columns) -> None:
    """Insert rows given as columns of equal length (NaN: NULL); text and numbers only."""
    if _n_rows(columns) == 0:
        return
    if connection.dialect.name == "postgresql":
        _copy(connection, f"{SCHEMA}.{table.name}", columns)
    else:
        marks = ", ".join("?" * len(columns))
        statement = f"INSERT INTO {table.name} ({_names(columns)}) VALUES ({marks})"
        connection.exec_driver_sql(statement, _row_tuples(columns))


def upsert_rows(connection: Connection, table: Table, columns: Columns, *, kept: tuple[str, ...] = ()) -> None:
    """Insert rows, or overwrite those whose primary key is there already, but for the columns ``kept``."""
    if _n_rows(columns) == 0:
        return
    key = [c.name for c in table.primary_key.columns]
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in (*key, *kept))
    on_conflict = f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changes}"
    if connection.dialect.name != "postgresql":
        marks = ", ".join("?" * len(columns))
        statement = f"INSERT INTO {table.name} ({_names(columns)}) VALUES ({marks}) {on_conflict}"
        connection.exec_driver_sql(statement, _row_tuples(columns))
        return
    stage, target = f"incoming_{table.name}", f"{SCHEMA}.{table.name}"
    connection.exec_driver_sql(
        f"CREATE TEMPORARY TABLE IF NOT EXISTS {stage} (LIKE {target} INCLUDING DEFAULTS) ON COMMIT DELETE ROWS"
    )
    connection.exec_driver_sql(f"DELETE FROM {stage}")
    _copy(connection, stage, columns)
    names = _names(columns)
    connection.exec_driver_sql(f"INSERT INTO {target} ({names}) SELECT {names} FROM {stage} {on_conflict}")


def wanted_numbers(connection: Connection, numbers: Sequence[int] | NDArray[np.int64]) -> FromClause:
    """Return a table of one column ``number`` to join with."""
    plain = [int(i) for i in numbers]
    if connection.dialect.name == "postgresql":
        values: Any = func.unnest(cast(bindparam("numbers", plain, unique=True), ARRAY(BigInteger)))
        return select(values.label("number")).cte("wanted")
    each = func.json_each(bindparam("numbers", json.dumps(plain), unique=True)).table_valued(
        column("value", BigInteger)
    )
    return select(each.c.value.label("number")).cte("wanted")


def wanted_ranges(connection: Connection, ranges: Sequence[tuple[int, int]]) -> FromClause:
    """Return a table of two columns ``first`` and ``last`` to join with."""
    first, last = [int(a) for a, _ in ranges], [int(b) for _, b in ranges]
    if connection.dialect.name == "postgresql":
        arrays = [cast(bindparam(name, ends, unique=True), ARRAY(BigInteger)) for name, ends in zip("ab", (first, last), strict=True)]  # fmt: skip  # noqa: E501
        pairs = (
            func.unnest(*arrays).table_valued(column("first", BigInteger), column("last", BigInteger)).render_derived()
        )
        return select(pairs.c.first, pairs.c.last).cte("wanted")
    text = json.dumps(list(zip(first, last, strict=True)))
    each = func.json_each(bindparam("ranges", text, unique=True)).table_valued(column("value", BigInteger))
    ends = [func.json_extract(each.c.value, f"$[{k}]", type_=BigInteger).label(name) for k, name in ((0, "first"), (1, "last"))]  # fmt: skip  # noqa: E501
    return select(*ends).cte("wanted")


def _n_rows(columns: Columns) -> int:
    return len(next(iter(columns.values())))


def _names(columns: Columns) -> str:
    return ", ".join(columns)


def _row_tuples(columns: Columns) -> list[tuple[Any, ...]]:
    return list(zip(*(_plain(values) for values in columns.values()), strict=True))


def _plain(values: NDArray[Any]) -> list[Any]:
    plain = list(np.asarray(values).tolist())
    if values.dtype.kind == "f":
        for row in np.flatnonzero(np.isnan(values)).tolist():
            plain[row] = None
    return plain


def _copy(connection: Connection, target: str, columns: Columns) -> None:
    """Send rows to a PostgreSQL table as CSV, which Arrow writes to the last digit."""
    table = pa.table({name: pa.array(_doubled(values), from_pandas=True) for name, values in columns.items()})
    text = io.BytesIO()
    csv.write_csv(table, text, csv.WriteOptions(include_header=False))
    text.seek(0)
    cursor: Any = connection.connection.cursor()
    with cursor:
        cursor.copy_expert(f"COPY {target} ({_names(columns)}) FROM STDIN WITH (FORMAT csv)", text)


def _doubled(values: NDArray[Any]) -> NDArray[Any]:
    """Return single precision as double, so that both databases hold the same number."""
    return values.astype(np.float64) if values.dtype == np.float32 else values
