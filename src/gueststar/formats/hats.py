"""HATS catalogues: Parquet files by pixels of the sky, and what tells of them.

IVOA note "HATS: A Standard for the Hierarchical Adaptive Tiling Scheme in the Virtual Observatory", 2025.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gueststar.formats.atomic import appearing_whole

KEY, KEY_ORDER = "_healpix_29", 29
_DEEPEST = 13
"""Pixels of half an arcminute are divided no more."""
_PER_FOLDER = 10_000


class CataloguePixel(NamedTuple):
    """One file: a pixel, and the rows that lie in it."""

    order: int
    number: int
    rows: tuple[int, ...]

    @property
    def path(self) -> str:
        """Its place within the catalogue."""
        folder = self.number // _PER_FOLDER * _PER_FOLDER
        return f"dataset/Norder={self.order}/Dir={folder}/Npix={self.number}.parquet"


def divided(keys: NDArray[np.int64], most: int) -> list[CataloguePixel]:
    """Return the pixels that hold rows of these HEALPix numbers (order 29, nested), no more than ``most`` rows each."""
    found: list[CataloguePixel] = []
    waiting = [(0, np.arange(len(keys)))]
    while waiting:
        order, rows = waiting.pop()
        numbers = keys[rows] >> (2 * (KEY_ORDER - order))
        for number in np.unique(numbers):
            inside = rows[numbers == number]
            if len(inside) > most and order < _DEEPEST:
                waiting.append((order + 1, inside))
            else:
                found.append(CataloguePixel(order, int(number), tuple(inside.tolist())))
    return sorted(found, key=lambda pixel: (pixel.order, pixel.number))


def describe_catalogue(folder: Path, *, name: str, pixels: Sequence[CataloguePixel], schema: pa.Schema) -> None:
    """Write what tells readers of a catalogue's files: properties, list of pixels, common schema, metadata."""
    plain = [field.name for field in schema if not pa.types.is_nested(field.type)]
    told = {
        "obs_collection": name, "dataproduct_type": "object", "hats_nrows": sum(len(p.rows) for p in pixels),
        "hats_col_ra": "ra", "hats_col_dec": "dec", "hats_col_healpix": KEY, "hats_col_healpix_order": KEY_ORDER,
        "hats_cols_default": " ".join(plain), "hats_npix_suffix": ".parquet",
        "hats_order": max(p.order for p in pixels),
    }  # fmt: skip
    lines = "".join(f"{key}={value}\n" for key, value in told.items())
    for file in ("hats.properties", "properties"):
        _write(folder / file, lines)
    rows = "".join(f"{pixel.order},{pixel.number}\n" for pixel in pixels)
    _write(folder / "partition_info.csv", "Norder,Npix\n" + rows)
    pq.write_metadata(schema, folder / "dataset" / "_common_metadata")
    collected = []
    for pixel in pixels:
        metadata = pq.read_metadata(folder / pixel.path)
        metadata.set_file_path(pixel.path.removeprefix("dataset/"))
        collected.append(metadata)
    pq.write_metadata(pq.read_schema(folder / pixels[0].path), folder / "dataset" / "_metadata", collected)


def _write(path: Path, text: str) -> None:
    with appearing_whole(path) as temporary:
        temporary.write_text(text)
