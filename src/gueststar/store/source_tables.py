"""Rows of many catalogs at once: the stored Parquet files are filtered and read by DuckDB in one go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
from numpy.typing import NDArray

from gueststar.core.errors import DataError

_BATCH = 2000
"""Files of one statement."""


def read_rows(
    paths: Sequence[Path], columns: Sequence[str], *, at_least: dict[str, float] | None = None, without_flags: int = 0,
    threads: int = 1,
) -> dict[str, NDArray]:  # fmt: skip
    """Return ``columns`` of the rows of catalogs, and ``file``: the place in ``paths`` of the catalog of each row.

    ``at_least`` are lowest values of columns; rows with one of ``without_flags`` (bits of ``flags``) are left out, and
    those with a NaN in a column. Raises DataError for a file that cannot be read or lacks a column.
    """
    tests = [f"{_quoted(name)} >= {float(value)!r}" for name, value in (at_least or {}).items()]
    tests += [f"(flags & {int(without_flags)}) = 0"] if without_flags else []
    tests += [f"NOT isnan({_quoted(name)}::DOUBLE)" for name in columns]
    listed = ", ".join(_quoted(name) for name in columns)
    statement = f"SELECT filename, {listed} FROM read_parquet(?, filename = true) WHERE {' AND '.join(tests)}"
    found: list[dict[str, NDArray]] = []
    with duckdb.connect(":memory:", config={"threads": threads}) as database:
        for begin in range(0, len(paths), _BATCH):
            part = [str(path) for path in paths[begin : begin + _BATCH]]
            try:
                rows = database.execute(statement, [part]).fetchnumpy()
            except duckdb.Error as problem:
                raise DataError(f"catalogs {part[0]}...: {str(problem).splitlines()[0]}") from None
            found.append(_numbered(rows, part, begin))
    if not found:
        return {"file": np.zeros(0, dtype=np.intp), **{name: np.zeros(0) for name in columns}}
    return {name: np.concatenate([rows[name] for rows in found]) for name in ("file", *columns)}


def _numbered(rows: dict[str, NDArray], paths: list[str], first: int) -> dict[str, NDArray]:
    """Replace the files' names by their places in the list; masked values become NaN."""
    numbers = {path: first + number for number, path in enumerate(paths)}
    names, inverse = np.unique(np.asarray(rows.pop("filename"), dtype=str), return_inverse=True)
    file = np.array([numbers[name] for name in names.tolist()], dtype=np.intp)[inverse] if names.size else inverse
    plain = {name: np.ma.filled(values, 0) if np.ma.isMaskedArray(values) else values for name, values in rows.items()}
    return {"file": np.asarray(file, dtype=np.intp), **plain}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
