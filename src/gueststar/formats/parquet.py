"""Catalogs as Parquet: every column carries its unit and meaning, the table its schema's name and metadata."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gueststar.core.errors import DataError
from gueststar.model import columns as model_columns
from gueststar.model.catalog import Catalog, Column, Schema

_KEY = b"gueststar"
"""Key of the JSON document in the Parquet schema's metadata."""

SCHEMAS: dict[str, Schema] = {s.name: s for s in vars(model_columns).values() if isinstance(s, Schema)}
"""Schemas of `gueststar.model.columns` by name."""


def write_catalog(
    path: str | Path, catalog: Catalog, metadata: Mapping[str, Any] | None = None, *, row_group_size: int | None = None
) -> None:
    """Write a catalog to ``path`` (zstd), under a temporary name first, then renamed.

    ``metadata`` must be JSON-able. Columns may be numbers, booleans or text, one value a row; anything else is a
    DataError that names the column.
    """
    write_table_atomically(path, to_arrow(catalog, metadata), row_group_size=row_group_size)


def read_catalog(path: str | Path, schema: Schema | None = None) -> Catalog:
    """Read a catalog; raises DataError if the file is not Parquet or does not hold the wanted columns.

    With ``schema``, just its columns are read and turned into its types. Without, the schema is the one of
    `gueststar.model.columns` that the file names, if the columns agree, or one built from the file itself.
    Missing values of floating columns become NaN; missing integers, booleans or text are a DataError.
    """
    table = _read_table(path, schema)
    if schema is None:
        schema = _schema_of(table)
    return schema.catalog({name: _to_numpy(table, name, path) for name in table.column_names})


def read_key_ranges(path: str | Path, schema: Schema, *, key: str, ranges: Sequence[tuple[int, int]]) -> Catalog:
    """Read the row groups whose values of ``key`` may lie in one of ``ranges`` (first, after last).

    The file should be sorted by the integer column ``key``; rows outside the ranges may come along.
    """
    file = _open(path)
    names = _names_in(file, schema, path)
    if key not in file.schema_arrow.names:
        raise DataError(f"{path} lacks the column {key}")
    column = file.schema_arrow.names.index(key)
    groups = []
    for group in range(file.num_row_groups):
        statistics = file.metadata.row_group(group).column(column).statistics
        if statistics is None or any(a <= statistics.max and statistics.min < b for a, b in ranges):
            groups.append(group)
    table = file.read_row_groups(groups, columns=names, use_threads=False)
    return schema.catalog({name: _to_numpy(table, name, path) for name in names})


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Return the table metadata given to `write_catalog` (empty for a file of other origin)."""
    return dict(_document(_open(path).schema_arrow).get("metadata", {}))


def to_arrow(catalog: Catalog, metadata: Mapping[str, Any] | None = None) -> pa.Table:
    """Return an Arrow table whose fields carry unit and meaning, and whose metadata names the schema."""
    described = {c.name: c for c in catalog.schema.columns} if catalog.schema else {}
    fields, arrays = [], []
    for name, values in catalog.items():
        if values.ndim != 1 or values.dtype.kind not in "biufUS":
            raise DataError(f"column {name} is {values.dtype} {values.shape}: Parquet catalogs hold plain columns")
        text = values.dtype.kind in "US"
        array = (
            pa.array(values.astype(str).tolist(), type=pa.string()) if text else pa.array(np.ascontiguousarray(values))
        )
        column = described.get(name)
        notes = {"unit": column.unit, "doc": column.doc} if column else None
        fields.append(pa.field(name, array.type, metadata=notes))
        arrays.append(array)
    document = {"schema": catalog.schema.name if catalog.schema else "", "metadata": dict(metadata or {})}
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata={_KEY: json.dumps(document).encode()}))


def write_table_atomically(path: str | Path, table: pa.Table, *, row_group_size: int | None = None) -> None:
    """Write an Arrow table as Parquet so that ``path`` holds either the old or the whole new file."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    os.close(handle)
    try:
        pq.write_table(table, temporary, row_group_size=row_group_size, **_encoding_of(table.schema))
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _encoding_of(schema: pa.Schema) -> dict[str, Any]:
    """Return how columns are written: measurements do not repeat, so a dictionary serves text alone.

    Floats have their bytes split into streams, which makes them smaller.
    """
    floats = [field.name for field in schema if pa.types.is_floating(field.type)]
    text = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    return {"compression": "zstd", "use_dictionary": text or False, "use_byte_stream_split": floats or False}


def _open(path: str | Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from None


def _names_in(file: pq.ParquetFile, schema: Schema, path: str | Path) -> list[str]:
    """Return the schema's columns that a file holds; DataError if one lacks that has no default."""
    there = set(file.schema_arrow.names)
    if missing := [c.name for c in schema.columns if c.name not in there and c.default is None]:
        raise DataError(f"{path} lacks the columns {missing}")
    return [column.name for column in schema.columns if column.name in there]


def _read_table(path: str | Path, schema: Schema | None) -> pa.Table:
    file = _open(path)
    names = _names_in(file, schema, path) if schema else None
    try:
        return file.read(columns=names, use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _document(schema: pa.Schema) -> dict[str, Any]:
    text = (schema.metadata or {}).get(_KEY)
    return json.loads(text) if text else {}


def _schema_of(table: pa.Table) -> Schema:
    """Return the named schema if the table's columns are its columns, else one made from the table."""
    name = str(_document(table.schema).get("schema", ""))
    known = SCHEMAS.get(name)
    if known and [c.name for c in known.columns] == table.column_names:
        return known
    return Schema(name, tuple(_column_of(field) for field in table.schema))


def _column_of(field: pa.Field) -> Column:
    notes = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    dtype = "U" if pa.types.is_string(field.type) or pa.types.is_large_string(field.type) else ""
    return Column(
        field.name, dtype or np.dtype(field.type.to_pandas_dtype()).str, notes.get("unit", ""), notes.get("doc", "")
    )


def _to_numpy(table: pa.Table, name: str, path: str | Path) -> NDArray[Any]:
    column = table.column(name)
    if column.null_count and not pa.types.is_floating(column.type):
        raise DataError(f"{path}: column {name} has {column.null_count} missing values and is not floating")
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return np.asarray(column.to_pylist(), dtype=np.str_)
    return np.asarray(column.to_numpy())
