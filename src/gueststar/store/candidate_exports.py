"""A night's candidates as one Parquet file: what is near a place is found without the database.

The file holds facts that do not change with later nights (the detections and the object that each belongs to), in the
order of their place on the sky: made again it is the same, byte for byte. It holds all programs (column ``program``),
so only its owner may read it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.core.healpix import healpix_key
from gueststar.formats.parquet import to_arrow, write_table_atomically
from gueststar.model.catalog import Catalog, Column, Schema
from gueststar.model.columns import DIA_SOURCE
from gueststar.store.detections.store import DetectionStore
from gueststar.store.product_paths import digest_of

FOLDER = "exports/candidates"
"""Folder of a repository that holds the files, by date."""

KEY = "_healpix_29"
"""Column that a file is sorted by: the nested HEALPix number of order 29."""

CANDIDATE = Schema(
    "night_candidate",
    (
        Column(KEY, "i8", "", "nested HEALPix number of order 29 of the position"),
        Column("day_obs", "i4", "", "survey night, YYYYMMDD"),
        Column("object_number", "i8", "", "the seven letters of its object's name, as a number; -1: no object"),
        *DIA_SOURCE.columns,
    ),
)
"""What a file holds."""

_ROWS_PER_GROUP = 20_000


class Export(NamedTuple):
    """What became of a night's file."""

    path: Path
    n_rows: int
    n_objects: int
    is_new: bool
    """It was not there, or held something else."""


def export_path(root: Path, night: int) -> Path:
    """Return where the file of a night lies."""
    text = str(night)
    return root / FOLDER / text[:4] / text[4:6] / text[6:8] / f"candidates_{night}.parquet"


def export_candidates(root: Path, store: DetectionStore, night: int) -> Export:
    """Write the candidates of a night, all programs, sorted by place; a file that holds them already is left."""
    table = _candidates(store, night)
    path = export_path(root, night)
    temporary = path.with_name(f".{path.name}.new")
    try:
        write_table_atomically(temporary, to_arrow(table, {"night": night}), row_group_size=_ROWS_PER_GROUP)
        temporary.chmod(0o600)
        is_new = not path.exists() or digest_of(path) != digest_of(temporary)
        if is_new:
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    ids = table["dia_object_id"]
    return Export(path, table.n_rows, int(np.unique(ids[ids != 0]).size), is_new)


def _candidates(store: DetectionStore, night: int) -> Catalog:
    sources = store.sources_of_night(night)
    ids = np.unique(sources["dia_object_id"])
    numbers = store.stored_name_numbers(ids[ids != 0])
    object_number = np.array([numbers.get(int(i), -1) for i in sources["dia_object_id"]], dtype=np.int64)
    keys = healpix_key(ra=sources["ra"], dec=sources["dec"])
    columns: dict[str, NDArray[Any]] = {
        KEY: keys, "day_obs": np.full(sources.n_rows, night, dtype=np.int32), "object_number": object_number,
        **dict(sources),
    }  # fmt: skip
    return CANDIDATE.catalog(columns).select(np.lexsort((sources["dia_source_id"], keys)))
