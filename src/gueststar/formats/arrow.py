"""Catalogs as Arrow streams in memory: what is read back is not copied, so that a mapped file is a table at once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gueststar.core.errors import DataError
from gueststar.formats.parquet import to_arrow
from gueststar.model.catalog import Catalog, Schema


def arrow_bytes(catalog: Catalog) -> bytes:
    """Return a catalog as an uncompressed Arrow IPC stream; the same rows give the same bytes."""
    table = to_arrow(catalog)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()


def catalog_from_arrow(data: bytes | memoryview, schema: Schema) -> Catalog:
    """Return the rows of an Arrow stream; numbers stay where they are, read-only, in ``data``.

    Raises DataError if ``data`` is not such a stream or its columns are not those of ``schema``.
    """
    try:
        table = pa.ipc.open_stream(pa.py_buffer(data)).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{len(data)} bytes of {schema.name} are not an Arrow stream: {error}") from None
    if table.column_names != [column.name for column in schema.columns]:
        raise DataError(f"an Arrow stream has the columns {table.column_names}, not those of {schema.name}")
    if table.num_rows == 0:
        return schema.empty()
    return Catalog({c.name: _values(table.column(c.name), c.dtype) for c in schema.columns}, schema)


def _values(column: pa.ChunkedArray, dtype: str) -> NDArray[np.generic]:
    whole = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if dtype == "U":
        return np.asarray(whole.to_pylist(), dtype=np.str_)
    return np.asarray(whole.to_numpy(zero_copy_only=False), dtype=dtype)
