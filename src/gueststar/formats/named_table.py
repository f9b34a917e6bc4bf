"""Tables of named columns in the formats that astronomers exchange: FITS, Parquet, CSV, ECSV, VOTable."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from astropy.table import Table
from numpy.typing import NDArray

from gueststar.core.errors import DataError

_ASTROPY_FORMATS = {
    ".fits": "fits",
    ".fit": "fits",
    ".fts": "fits",
    ".ecsv": "ascii.ecsv",
    ".vot": "votable",
    ".votable": "votable",
    ".xml": "votable",
}


@dataclass(frozen=True, eq=False)
class NamedTable:
    """Columns as arrays of numbers, booleans or text; missing numbers are NaN."""

    columns: dict[str, NDArray[Any]]
    units: dict[str, str]
    """Unit of each column that states one, as written."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Numbers and texts that a FITS, ECSV or VOTable file tells of the whole table; keys in capitals."""

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return next((values.shape[0] for values in self.columns.values()), 0)


def read_named_table(path: str | Path) -> NamedTable:
    """Read a table, its format told by the name (``.gz`` allowed); DataError if it cannot be read."""
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{path} does not exist")
    suffix = Path(file.name.removesuffix(".gz")).suffix.lower()
    try:
        if suffix in (".parquet", ".parq"):
            return _from_arrow(pq.read_table(file))
        if suffix == ".csv":
            return _from_arrow(pyarrow.csv.read_csv(file))
        if suffix not in _ASTROPY_FORMATS:
            known = ", ".join([*_ASTROPY_FORMATS, ".csv", ".parquet"])
            raise DataError(f"{path}: a table's name must end in one of {known}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _from_astropy(Table.read(file, format=_ASTROPY_FORMATS[suffix]))
    except (pa.ArrowInvalid, OSError, ValueError, TypeError, IndexError) as error:
        raise DataError(f"{path} cannot be read as a table: {' '.join(str(error).split())[:200]}") from error


def _from_arrow(table: pa.Table) -> NamedTable:
    columns, units = {}, {}
    for name in table.column_names:
        column = table.column(name)
        field = table.schema.field(name)
        if b"unit" in (field.metadata or {}):
            units[name] = field.metadata[b"unit"].decode()
        if column.null_count and (pa.types.is_integer(column.type) or pa.types.is_null(column.type)):
            column = column.cast(pa.float64())
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            columns[name] = np.array([value or "" for value in column.to_pylist()], dtype=np.str_)
        elif pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
            columns[name] = np.asarray(column.to_numpy())
        elif pa.types.is_timestamp(column.type):
            texts = ["" if value is None else value.isoformat() for value in column.to_pylist()]
            columns[name] = np.array(texts, dtype=np.str_)
        elif pa.types.is_boolean(column.type):
            columns[name] = np.array([bool(value) for value in column.to_pylist()])
    return NamedTable(columns, units)


def _from_astropy(table: Table) -> NamedTable:
    columns, units = {}, {}
    for name in table.colnames:
        column = table[name]
        if column.unit is not None:
            units[name] = str(column.unit)
        values = np.ma.asanyarray(column)
        if values.ndim != 1:
            continue
        if np.ma.is_masked(values) and values.dtype.kind in "iuf":
            values = values.astype(np.float64).filled(np.nan)
        elif np.ma.isMaskedArray(values):
            values = values.filled()
        plain = np.asarray(values)
        if plain.dtype.kind in "SO":
            plain = np.array([v.decode() if isinstance(v, bytes) else str(v) for v in plain], dtype=np.str_)
        columns[str(name)] = plain.astype(plain.dtype.newbyteorder("=")) if plain.dtype.kind in "iuf" else plain
    stated = {str(key).upper(): value for key, value in table.meta.items() if isinstance(value, int | float | str)}
    return NamedTable(columns, units, stated)
