"""Tables of named, documented columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gueststar.core.errors import DataError


@dataclass(frozen=True)
class Column:
    """One column: its name, numpy dtype, unit and meaning."""

    name: str
    dtype: str
    unit: str
    doc: str
    default: float | None = None
    """What stands for the column in tables made before there was such a one; None: it must be there."""


@dataclass(frozen=True)
class Schema:
    """A named list of columns; tables of a product are checked against it."""

    name: str
    columns: tuple[Column, ...]

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def empty(self) -> Catalog:
        """Return a catalog of no rows."""
        return Catalog({c.name: np.zeros(0, dtype=c.dtype) for c in self.columns}, self)

    def catalog(self, columns: Mapping[str, ArrayLike]) -> Catalog:
        """Return a catalog of this schema from arrays; none may be foreign, only those with a default may lack."""
        names = {c.name for c in self.columns}
        if missing := [c.name for c in self.columns if c.name not in columns and c.default is None]:
            raise DataError(f"{self.name} lacks the columns {missing}")
        if foreign := [name for name in columns if name not in names]:
            raise DataError(f"{self.name} has no columns {foreign}")
        n_rows = next((np.shape(values)[0] for values in columns.values()), 0)
        every = {c.name: columns[c.name] if c.name in columns else np.full(n_rows, c.default) for c in self.columns}
        return Catalog({c.name: np.asarray(every[c.name], dtype=c.dtype) for c in self.columns}, self)


class Catalog(Mapping[str, NDArray[Any]]):
    """Columns of equal length, addressed by name; immutable in shape.

    ``len(catalog)`` counts columns as a Mapping does; ``catalog.n_rows`` counts rows.
    """

    def __init__(self, columns: Mapping[str, ArrayLike], schema: Schema | None = None) -> None:
        self._columns = {name: np.asarray(values) for name, values in columns.items()}
        self.schema = schema
        lengths = {name: values.shape[0] for name, values in self._columns.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"columns differ in length: {lengths}")

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        return f"<Catalog {self.schema.name if self.schema else ''} {self.n_rows} rows, {len(self)} columns>"

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        for values in self._columns.values():
            return int(values.shape[0])
        return 0

    def select(self, index: NDArray[Any]) -> Catalog:
        """Return the rows that a boolean or integer array picks."""
        return Catalog({name: values[index] for name, values in self._columns.items()}, self.schema)

    def replace(self, **columns: ArrayLike) -> Catalog:
        """Return a catalog with these columns replaced (same schema, dtype kept)."""
        merged = dict(self._columns)
        for name, values in columns.items():
            if name not in merged:
                raise DataError(f"no column {name} to replace")
            merged[name] = np.asarray(values, dtype=merged[name].dtype)
        return Catalog(merged, self.schema)


def concatenate(catalogs: list[Catalog]) -> Catalog:
    """Return all rows of catalogs that share their columns; at least one is needed."""
    first = catalogs[0]
    return Catalog({name: np.concatenate([c[name] for c in catalogs]) for name in first}, first.schema)
