"""Labelled detections in one Parquet file: the columns, and the views of the cut-outs as bytes of half-precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gueststar.algorithms.vetting.stamps import INPUT_VERSION, N_INPUTS, packed, unpacked
from gueststar.core.errors import DataError
from gueststar.formats.parquet import read_catalog, to_arrow, write_table_atomically
from gueststar.model.labels import LABELLED_SOURCE, LabelledDetections

_VIEWS = f"stamp_views_{INPUT_VERSION}"
"""Column of the views; views of another version are not read."""


def write_labelled(path: Path, labelled: LabelledDetections) -> None:
    """Write labelled detections; the file appears whole or not at all."""
    table = to_arrow(labelled.rows)
    if labelled.views is not None:
        values = np.ascontiguousarray(packed(labelled.views))
        kind = pa.binary(2 * N_INPUTS)
        column = pa.FixedSizeBinaryArray.from_buffers(kind, values.shape[0], [None, pa.py_buffer(values)])
        table = table.append_column(pa.field(_VIEWS, kind, metadata={"doc": "what the network sees"}), column)
    write_table_atomically(path, table)


def read_labelled(path: Path) -> LabelledDetections:
    """Read what `write_labelled` wrote, or a Parquet file of `LABELLED_SOURCE` columns; DataError for another."""
    rows = read_catalog(path, LABELLED_SOURCE)
    file = pq.ParquetFile(path)
    if _VIEWS not in file.schema_arrow.names:
        return LabelledDetections(rows)
    column = file.read(columns=[_VIEWS], use_threads=False).column(0).combine_chunks()
    return LabelledDetections(rows, unpacked(_as_rows(column, path)))


def _as_rows(column: pa.Array, path: Path) -> NDArray[np.float16]:
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    if column.type != pa.binary(2 * N_INPUTS):
        raise DataError(f"{path} holds views of {column.type}, not of {2 * N_INPUTS} bytes")
    first = column.offset * 2 * N_INPUTS
    return np.frombuffer(column.buffers()[1], dtype=np.float16, count=len(column) * N_INPUTS, offset=first).reshape(
        len(column), N_INPUTS
    )
