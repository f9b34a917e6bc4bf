"""Tile-compressed FITS images, RICE_1: from a plane to header, table and heap and back (FITS Standard 4.0, chapter 10).

What is written any FITS program reads. What is read is what this package writes, what fpack makes of integers, and
dithered floats; other codes and quantisations are left to astropy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from gueststar.formats import rice

_DESCRIPTOR = re.compile(r"1?([PQ])B(\(\d*\))?")
_BYTES = {"L": 1, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "P": 8, "Q": 16}
_INTEGERS: dict[int, Any] = {16: np.int16, 32: np.int32}
_CODES = ("RICE_1", "RICE_ONE")


Boxes = Sequence[tuple[int, int, int, int]]
"""Boxes of pixels: first and last row, first and last column; they may reach beyond the image."""


class Extension(NamedTuple):
    """An extension as it stands in a file."""

    header: fits.Header
    data: bytes
    """Rows of the table and heap, without padding."""


def compress(
    name: str,
    plane: NDArray[Any],
    cards: Mapping[str, Any],
    *,
    tile: tuple[int, int],
    step: float | None = None,
    restored: NDArray[np.float32] | None = None,
) -> Extension | None:
    """Return a plane as an extension: int32 as it is, float32 rounded to dithered multiples of ``step``.

    Values that are not finite are stored as NaN. ``tile`` is (ny, nx). ``restored`` is filled with what reading the
    float plane gives. None where a float plane's range
    is too great for its step.
    """
    if step is None:
        tiles, bitpix = rice.encode_integers(np.ascontiguousarray(plane, dtype=np.int32), tile=tile), 32
    else:
        values = np.ascontiguousarray(plane, dtype=np.float32)
        found = rice.encode_floats(values, tile=tile, step=step, restored=restored)
        if found is None:
            return None
        tiles, bitpix = found, -32
    columns: list[tuple[str, str]] = [("COMPRESSED_DATA", ">i4"), ("", ">i4")]
    if step is not None:
        columns += [("ZSCALE", ">f8"), ("ZZERO", ">f8")]
    rows = np.zeros(tiles.sizes.size, dtype=[(f"f{k}", kind) for k, (_, kind) in enumerate(columns)])
    rows["f0"], rows["f1"] = tiles.sizes, np.cumsum(tiles.sizes) - tiles.sizes
    if step is not None:
        rows["f2"], rows["f3"] = step, tiles.zeros
    header = _table_header(name, plane.shape, rows, int(tiles.heap.size), int(tiles.sizes.max(initial=0)))
    for card in _compression_cards(plane.shape, tile, bitpix):
        header.append(card)
    for key, value in cards.items():
        header[key] = value
    return Extension(header, rows.tobytes() + tiles.heap.tobytes())


def _table_header(name: str, shape: tuple[int, ...], rows: NDArray[Any], n_heap: int, longest: int) -> fits.Header:
    cards: list[tuple[Any, ...]] = [
        ("XTENSION", "BINTABLE", "binary table extension"),
        ("BITPIX", 8, "array data type"),
        ("NAXIS", 2, "number of array dimensions"),
        ("NAXIS1", rows.dtype.itemsize, "width of table in bytes"),
        ("NAXIS2", rows.size, "number of rows in table"),
        ("PCOUNT", n_heap, "bytes of the heap"),
        ("GCOUNT", 1, "number of groups"),
        ("TFIELDS", 3 if rows.dtype.itemsize > 8 else 1, "number of fields in each row"),
        ("TTYPE1", "COMPRESSED_DATA"),
        ("TFORM1", f"1PB({longest})"),
    ]
    if rows.dtype.itemsize > 8:
        cards += [("TTYPE2", "ZSCALE"), ("TFORM2", "1D"), ("TTYPE3", "ZZERO"), ("TFORM3", "1D")]
    return fits.Header([*cards, ("EXTNAME", name, "name of this extension")])


def _compression_cards(shape: tuple[int, ...], tile: tuple[int, int], bitpix: int) -> list[tuple[Any, ...]]:
    cards: list[tuple[Any, ...]] = [
        ("ZIMAGE", True, "extension contains compressed image"),
        ("ZTENSION", "IMAGE", "image extension"),
        ("ZBITPIX", bitpix, "array data type"),
        ("ZNAXIS", 2, "number of array dimensions"),
        ("ZNAXIS1", shape[1]),
        ("ZNAXIS2", shape[0]),
        ("ZPCOUNT", 0, "number of parameters"),
        ("ZGCOUNT", 1, "number of groups"),
        ("ZTILE1", tile[1], "size of tiles to be compressed"),
        ("ZTILE2", tile[0], "size of tiles to be compressed"),
        ("ZCMPTYPE", "RICE_1", "compression algorithm"),
        ("ZNAME1", "BLOCKSIZE", "compression block size"),
        ("ZVAL1", rice.BLOCK, "pixels per block"),
        ("ZNAME2", "BYTEPIX", "bytes per pixel"),
        ("ZVAL2", 4, "bytes per pixel"),
    ]
    if bitpix < 0:
        cards += [
            ("ZQUANTIZ", "SUBTRACTIVE_DITHER_1", "pixel quantization algorithm"),
            ("ZDITHER0", 1, "dithering offset when quantizing floats"),
            ("ZBLANK", rice.NULL, "quantized value of NaN"),
        ]
    return cards


def decompress(header: Mapping[str, Any], data: Any, *, near: Boxes | None = None) -> NDArray[Any] | None:
    """Return the pixels of a tile-compressed image, or None where astropy has to read it.

    ``header`` is the table's, ``data`` its bytes: rows and heap. Integers come as int16 or int32, or as uint16 or
    uint32 where BZERO says so; floats as float32. None also for damaged code. With ``near``, boxes of pixels, only
    tiles that these touch are decoded, and all other pixels are 0.
    """
    layout = _layout_of(header)
    if layout is None:
        return None
    buffer = np.frombuffer(data, np.uint8)
    table = buffer[: layout.n_rows * layout.row_bytes]
    if table.size < layout.n_rows * layout.row_bytes:
        return None
    rows = table.reshape(layout.n_rows, layout.row_bytes)
    heap = buffer[layout.heap_start :]
    lengths = layout.column(rows, "COMPRESSED_DATA")
    sizes, starts = np.ascontiguousarray(lengths[:, 0], np.int64), np.ascontiguousarray(lengths[:, 1], np.int64)
    if not np.all(sizes > 0) or not np.all(starts >= 0) or int(np.max(starts + sizes)) > heap.size:
        return None
    kind: Any = np.float32 if layout.bitpix < 0 else _INTEGERS[layout.bitpix]
    if near is None:
        out = np.empty(layout.shape, kind)
        return _finished(out, header) if _decode(header, layout, rows, heap, starts, sizes, out, 0) else None
    out = np.zeros(layout.shape, kind)  # pages that no tile touches are never made
    for number, part in _touched(layout, near):
        tile = np.empty(out[part].shape, kind)
        mine = slice(number, number + 1)
        if not _decode(header, layout, rows[mine], heap, starts[mine], sizes[mine], tile, number):
            return None
        out[part] = tile
    return _finished(out, header)


def _decode(
    header: Mapping[str, Any],
    layout: _Layout,
    rows: NDArray[np.uint8],
    heap: NDArray[np.uint8],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    out: NDArray[Any],
    first: int,
) -> bool:
    """Fill ``out`` from consecutive tiles, of which the first has the number ``first``; False where one is damaged."""
    if layout.bitpix > 0:
        return rice.decode_integers(heap, starts, sizes, out, tile=layout.tile, bits=layout.bits, block=layout.block)
    scales, zeros = (np.ascontiguousarray(layout.column(rows, name)[:, 0], np.float64) for name in ("ZSCALE", "ZZERO"))
    return rice.decode_floats(
        heap, starts, sizes, scales, zeros, out,
        tile=layout.tile, block=layout.block, seed=int(header["ZDITHER0"]) + first, null=header.get("ZBLANK"),
    )  # fmt: skip


def _finished(values: NDArray[Any], header: Mapping[str, Any]) -> NDArray[Any]:
    """Return decoded values, integers as the unsigned ones that they may stand for."""
    return _as_unsigned(values) if values.dtype.kind == "i" and header.get("BZERO", 0) else values


def _touched(layout: _Layout, near: Boxes) -> list[tuple[int, tuple[slice, slice]]]:
    """Return number and pixels of each tile that any of the boxes touches, in order."""
    (ny, nx), (tile_y, tile_x) = layout.shape, layout.tile
    n_across = -(-nx // tile_x)
    found = set()
    for low_y, high_y, low_x, high_x in near:
        if low_y >= ny or low_x >= nx:
            continue
        rows = range(max(low_y, 0) // tile_y, min(high_y, ny - 1) // tile_y + 1)
        columns = range(max(low_x, 0) // tile_x, min(high_x, nx - 1) // tile_x + 1)
        found |= {(row, column) for row in rows for column in columns}
    return [
        (
            row * n_across + column,
            (slice(row * tile_y, (row + 1) * tile_y), slice(column * tile_x, (column + 1) * tile_x)),
        )
        for row, column in sorted(found)
    ]


class _Layout(NamedTuple):
    """Where things lie in the table of a compressed image that can be read here."""

    shape: tuple[int, int]
    tile: tuple[int, int]
    bitpix: int
    bits: int
    """Of the words that are coded."""
    block: int
    n_rows: int
    row_bytes: int
    heap_start: int
    columns: dict[str, tuple[int, str]]
    """Name -> first byte in a row, numpy type."""

    def column(self, rows: NDArray[np.uint8], name: str) -> NDArray[Any]:
        """Return the values of a column, ``[rows, values]``."""
        start, kind = self.columns[name]
        n_bytes = np.dtype(kind).itemsize * (2 if name == "COMPRESSED_DATA" else 1)
        return np.ascontiguousarray(rows[:, start : start + n_bytes]).view(kind)


def _layout_of(header: Mapping[str, Any]) -> _Layout | None:
    """Return the layout of a compressed image, None where it is not of the kind that is read here."""
    settings: dict[Any, Any] = {
        header.get(f"ZNAME{k}"): header.get(f"ZVAL{k}") for k in range(1, 10) if f"ZNAME{k}" in header
    }
    bitpix, columns = header.get("ZBITPIX"), _columns_of(header)
    bits = 8 * int(settings.get("BYTEPIX", 4))
    is_plain = header.get("ZNAXIS") == 2 and header.get("ZCMPTYPE") in _CODES and "COMPRESSED_DATA" in columns
    if not is_plain or bits not in _INTEGERS or (bitpix != -32 and bitpix not in _INTEGERS):
        return None
    if bitpix == -32:
        is_dithered = header.get("ZQUANTIZ") == "SUBTRACTIVE_DITHER_1" and isinstance(header.get("ZDITHER0"), int)
        if not is_dithered or bits != 32 or not {"ZSCALE", "ZZERO"} <= set(columns):
            return None
    elif not _is_whole(header, bitpix):
        return None
    if "ZBLANK" in columns or "NULL_PIXEL_MASK" in columns:
        return None
    shape = (int(header["ZNAXIS2"]), int(header["ZNAXIS1"]))
    tile = (int(header.get("ZTILE2", 1)), int(header.get("ZTILE1", shape[1])))
    n_rows, row_bytes = int(header["NAXIS2"]), int(header["NAXIS1"])
    if min(tile) < 1 or n_rows != -(-shape[0] // tile[0]) * -(-shape[1] // tile[1]):
        return None
    heap = int(header.get("THEAP", n_rows * row_bytes))
    return _Layout(shape, tile, bitpix, bits, int(settings.get("BLOCKSIZE", 32)), n_rows, row_bytes, heap, columns)


def _is_whole(header: Mapping[str, Any], bitpix: int) -> bool:
    """Return whether stored integers are the values, or unsigned ones in the standard's manner, none of them blank."""
    if "ZBLANK" in header or "BLANK" in header or header.get("BSCALE", 1) != 1:
        return False
    return header.get("BZERO", 0) in (0, 2 ** (bitpix - 1))


def _as_unsigned(values: NDArray[Any]) -> NDArray[Any]:
    """Return signed values plus half their range, by turning the highest bit over."""
    kind: Any = np.uint16 if values.itemsize == 2 else np.uint32
    unsigned = values.view(kind)
    unsigned ^= kind(1 << (8 * values.itemsize - 1))
    return unsigned


def _columns_of(header: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    """Return first byte and type of the columns whose form is known; of a form that is not, the ones before it."""
    columns: dict[str, tuple[int, str]] = {}
    start = 0
    for k in range(1, int(header.get("TFIELDS", 0)) + 1):
        form = str(header.get(f"TFORM{k}", "")).strip()
        repeated = re.match(r"(\d*)([A-Z])", form)
        if repeated is None or repeated[2] not in _BYTES:
            break
        name = str(header.get(f"TTYPE{k}", "")).strip()
        if _DESCRIPTOR.fullmatch(form):
            columns[name] = (start, ">i4" if "P" in form else ">i8")
        elif form in ("D", "1D"):
            columns[name] = (start, ">f8")
        elif form in ("J", "1J"):
            columns[name] = (start, ">i4")
        start += int(repeated[1] or 1) * _BYTES[repeated[2]]
    return columns
