"""Tables as answers to a person: aligned text, CSV, JSON, Parquet."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

_DECIMALS = {"ra": 6, "dec": 6, "jd": 6}
_SIGNIFICANT = 5
_UNKNOWN = "-"


def as_text(table: pa.Table) -> bytes:
    """Return a table as aligned words below their names; what is not known is ``-``."""
    names = table.column_names
    rows = [[_word(name, value) for name, value in row.items()] for row in table.to_pylist()]
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    lines = ["  ".join(word.rjust(width) for word, width in zip(row, widths, strict=True)) for row in [names, *rows]]
    return ("\n".join(line.rstrip() for line in lines) + "\n").encode()


def as_csv(table: pa.Table) -> bytes:
    """Return a table as CSV with a header; what is not known is empty."""
    buffer = io.BytesIO()
    pa_csv.write_csv(table, buffer, pa_csv.WriteOptions(quoting_style="needed"))
    return buffer.getvalue()


def as_json(table: pa.Table) -> bytes:
    """Return a table as a JSON list of objects, one a line; what is not known is null."""
    rows = ",\n ".join(json.dumps(row) for row in table.to_pylist())
    return f"[{rows}]\n".encode()


def as_parquet(table: pa.Table) -> bytes:
    """Return a table as Parquet."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


FORMS: dict[str, Callable[[Any], bytes]] = {
    "text": as_text, "csv": as_csv, "json": as_json, "parquet": as_parquet,
}  # fmt: skip


def _word(name: str, value: Any) -> str:
    if value is None:
        return _UNKNOWN
    if isinstance(value, float):
        digits = f".{_DECIMALS[name]}f" if name in _DECIMALS else f".{_SIGNIFICANT}g"
        return format(value, digits)
    return str(value)
