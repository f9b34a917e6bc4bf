"""Forced fluxes in the detection store: one block of rows for each image and each time it was measured.

The blocks are the record. Beside them their tables lie as mapped files, so that the fluxes of a few objects on the many
images of a month are found without reading all others.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, delete, select

from gueststar.core.errors import DataError
from gueststar.formats.arrow import arrow_bytes, catalog_from_arrow
from gueststar.model.catalog import Catalog, concatenate
from gueststar.model.columns import FORCED_SOURCE
from gueststar.model.detections import HISTORY_FORCED
from gueststar.store.detections.bulk import wanted_numbers
from gueststar.store.detections.cache_files import read_cache_file, write_cache_file
from gueststar.store.detections.tables import FORCED_BLOCKS

KEPT_MONTHS = 2
"""Files of nights more calendar months ago than this are removed; asked for again, they are made anew."""

_BLOCK = FORCED_BLOCKS.c


class BlockKey(NamedTuple):
    """Which block."""

    visit: int
    detector: int
    sequence: int
    day_obs: int
    version: int
    """How often rows were taken out of it."""


class ForcedBlocks:
    """Writes and reads blocks; ``folder`` holds their mapped files (None: none are kept)."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._checked: set[BlockKey] = set()

    def insert(self, connection: Connection, forced: Catalog, *, sequence: int, day_obs: int, version: int = 0) -> None:
        """Store the fluxes of one image (`FORCED_SOURCE` rows, not none)."""
        rows = forced.select(np.argsort(forced["dia_object_id"], kind="stable"))
        visit, detector = int(rows["visit"][0]), int(rows["detector"][0])
        if np.any(rows["visit"] != visit) or np.any(rows["detector"] != detector):
            raise DataError(f"visit {visit} detector {detector}: forced fluxes of another image among its own")
        values = BlockKey(visit, detector, sequence, day_obs, version)._asdict()
        connection.execute(FORCED_BLOCKS.insert().values(**values, n_rows=rows.n_rows, payload=arrow_bytes(rows)))

    def of_image(self, connection: Connection, visit: int, detector: int) -> Catalog:
        """Return the `FORCED_SOURCE` rows of one image by object: of an object measured twice the latter."""
        keys = [key for key in self._keys(connection, [visit]) if key.detector == detector]
        if not keys:
            return FORCED_SOURCE.empty()
        rows = concatenate([self._block(connection, key) for key in sorted(keys)])
        reversed_ids = rows["dia_object_id"][::-1]
        _, last = np.unique(reversed_ids, return_index=True)
        return rows.select(rows.n_rows - 1 - last)

    def of_objects(
        self, connection: Connection, images: set[tuple[int, int]], object_ids: NDArray[np.int64]
    ) -> Catalog:
        """Return the `HISTORY_FORCED` rows of objects on images (visit, detector)."""
        wanted, found = np.unique(object_ids), []
        keys = self._keys(connection, sorted({visit for visit, _ in images}))
        for key in keys:
            if (key.visit, key.detector) not in images:
                continue
            rows = self._block(connection, key)
            ids = rows["dia_object_id"]
            at = np.minimum(np.searchsorted(ids, wanted), ids.size - 1)
            chosen = rows.select(at[ids[at] == wanted])
            if chosen.n_rows:
                columns = dict(chosen) | {"sequence": np.full(chosen.n_rows, key.sequence, dtype=np.int64)}
                found.append(Catalog(columns, HISTORY_FORCED))
        return concatenate(found) if found else HISTORY_FORCED.empty()

    def remove_image(self, connection: Connection, visit: int, detector: int) -> None:
        """Take the fluxes of an image out again."""
        connection.execute(delete(FORCED_BLOCKS).where(_BLOCK.visit == visit, _BLOCK.detector == detector))

    def remove_objects(self, connection: Connection, images: set[tuple[int, int]], object_ids: Sequence[int]) -> None:
        """Take the fluxes of objects on images out again: blocks are written anew, as new versions."""
        for key in self._keys(connection, sorted({visit for visit, _ in images})):
            if (key.visit, key.detector) not in images:
                continue
            rows = self._block(connection, key)
            is_left = ~np.isin(rows["dia_object_id"], object_ids)
            if is_left.all():
                continue
            connection.execute(delete(FORCED_BLOCKS).where(_is(key)))
            if is_left.any():
                left = rows.select(is_left)
                self.insert(
                    connection, left, sequence=key.sequence, day_obs=key.day_obs, version=key.version + 1
                )  # fmt: skip

    def prune(self, day_obs: int) -> None:
        """Remove files of nights long before one."""
        if self._folder is None or not self._folder.is_dir():
            return
        for night in self._folder.iterdir():
            if night.name.isdigit() and _month(day_obs) - _month(int(night.name)) > KEPT_MONTHS:
                shutil.rmtree(night, ignore_errors=True)

    def _keys(self, connection: Connection, visits: Sequence[int]) -> list[BlockKey]:
        wanted = wanted_numbers(connection, visits)
        query = select(*(_BLOCK[name] for name in BlockKey._fields))
        query = query.join_from(wanted, FORCED_BLOCKS, _BLOCK.visit == wanted.c.number)
        return sorted(BlockKey(*row) for row in connection.execute(query))

    def _block(self, connection: Connection, key: BlockKey) -> Catalog:
        path = self._path(key)
        if path is not None:
            cached = read_cache_file(path, is_checked=key not in self._checked)
            if cached is not None and len(cached.parts) == 1:
                self._checked.add(key)
                return catalog_from_arrow(cached.parts[0], FORCED_SOURCE)
        payload = bytes(connection.execute(select(_BLOCK.payload).where(_is(key))).scalar_one())
        if path is not None:
            write_cache_file(path, {}, [payload])
        return catalog_from_arrow(payload, FORCED_SOURCE)

    def _path(self, key: BlockKey) -> Path | None:
        if self._folder is None:
            return None
        return self._folder / str(key.day_obs) / f"{key.visit}_{key.detector}_{key.sequence}_{key.version}.arrow"


def _month(night: int) -> int:
    """Return the number of the month of a night (YYYYMMDD)."""
    return 12 * (night // 10000) + night // 100 % 100


def _is(key: BlockKey) -> ColumnElement[bool]:
    return (_BLOCK.visit == key.visit) & (_BLOCK.detector == key.detector) & (_BLOCK.sequence == key.sequence)
