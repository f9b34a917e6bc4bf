"""Between catalogs and the rows of SQL tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import sqlalchemy
from sqlalchemy import BigInteger, Boolean, Double, Float, Integer, String

from gueststar.model.catalog import Catalog, Schema

_SQL_TYPES = {"f8": Double, "f4": Float, "i8": BigInteger, "i4": Integer, "i2": Integer, "?": Boolean, "U": String}


def sql_columns(schema: Schema, *, primary_key: Sequence[str] = ()) -> list[sqlalchemy.Column[Any]]:
    """Return SQL columns of a catalog's schema; NaN is NULL, everything else is never NULL."""
    return [
        sqlalchemy.Column(
            column.name, _SQL_TYPES[column.dtype], primary_key=column.name in primary_key, autoincrement=False,
            nullable=column.dtype in ("f8", "f4"), doc=column.doc,
        )
        for column in schema.columns
    ]  # fmt: skip


def rows_of(catalog: Catalog) -> list[dict[str, Any]]:
    """Return the rows of a catalog as plain values, NaN as None."""
    columns = [_plain_values(values) for values in catalog.values()]
    names = tuple(catalog)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def catalog_of(rows: Sequence[Any], schema: Schema) -> Catalog:
    """Return rows, whose values are in the order of the schema, as a catalog (NULL as NaN)."""
    if not rows:
        return schema.empty()
    columns = zip(*rows, strict=True)
    return Catalog(
        {c.name: np.array(values, dtype=c.dtype) for c, values in zip(schema.columns, columns, strict=True)}, schema
    )


def _plain_values(values: Any) -> list[Any]:
    if values.dtype.kind != "f":
        return list(values.tolist())
    is_missing = np.isnan(values)
    plain = list(values.tolist())
    for row in np.flatnonzero(is_missing).tolist():
        plain[row] = None
    return plain
