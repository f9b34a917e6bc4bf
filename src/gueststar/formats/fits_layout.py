"""The blocks of a FITS file: where every header and its data lie, and whether the file is whole.

astropy only warns when a file is shorter than its headers say, and silently leaves out an extension
whose header was cut. A survey must not process such a file, so its layout is checked here first.
FITS Standard 4.0, sections 3 and 4.
"""

from __future__ import annotations

import mmap
import re
import warnings
from typing import Any, NamedTuple

import numpy as np
from astropy.io import fits

from gueststar.core.errors import DataError

BLOCK = 2880
_CARD = 80
_COMPRESSION_CARD = re.compile(
    r"Z(IMAGE|CMPTYPE|BITPIX|NAXIS\d*|TILE\d+|NAME\d+|VAL\d+|QUANTIZ|DITHER0|SIMPLE|EXTEND|TENSION|BLOCKED|PCOUNT"
    r"|GCOUNT|HECKSUM|DATASUM|MASKCMP|BLANK|SCALE|ZERO)|T(FIELDS|TYPE\d+|FORM\d+|HEAP)|PCOUNT|GCOUNT"
)
"""Cards that describe how a tile-compressed image is packed, not the image."""

Buffer = bytes | mmap.mmap


class Block(NamedTuple):
    """One header and where its data lie in the (uncompressed) file."""

    header: fits.Header
    header_start: int
    data_start: int
    data_end: int
    """Without padding."""


def read_layout(buffer: Buffer, name: str) -> list[Block]:
    """Return every header of the file held in ``buffer``; ``name`` is for messages.

    Raises DataError when the file is not FITS, or is shorter than its headers say.
    """
    if bytes(buffer[:9]) != b"SIMPLE  =":
        raise DataError(f"{name} is not FITS: it begins with {bytes(buffer[:20])!r}, not 'SIMPLE  ='")
    blocks: list[Block] = []
    start = 0
    while not blocks or _has_extension(buffer, start):
        block = _read_block(buffer, start, name, number=len(blocks))
        blocks.append(block)
        start = -(-block.data_end // BLOCK) * BLOCK
    declared = blocks[0].header.get("NEXTEND")
    if isinstance(declared, int) and len(blocks) - 1 < declared:
        raise DataError(
            f"{name} is truncated: NEXTEND = {declared} but it holds {len(blocks) - 1} extensions; fetch it again"
        )
    return blocks


def _has_extension(buffer: Buffer, start: int) -> bool:
    return bytes(buffer[start : start + 8]) == b"XTENSION"


def _read_block(buffer: Buffer, start: int, name: str, *, number: int) -> Block:
    end = _header_end(buffer, start)
    if end is None:
        raise DataError(f"{name} is truncated or damaged: the header of HDU {number} has no END card; fetch it again")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = fits.Header.fromstring(bytes(buffer[start:end]))
    size = _data_size(header, name, number)
    if end + size > len(buffer):
        raise DataError(
            f"{name} is truncated: HDU {number} has {max(len(buffer) - end, 0)} bytes of data, "
            f"its header says {size}; fetch it again"
        )
    return Block(header, start, end, end + size)


def _header_end(buffer: Buffer, start: int) -> int | None:
    for position in range(start, len(buffer) - BLOCK + 1, BLOCK):
        block = bytes(buffer[position : position + BLOCK])
        at = block.find(b"END" + b" " * (_CARD - 3))
        while at >= 0:
            if at % _CARD == 0:
                return position + BLOCK
            at = block.find(b"END" + b" " * (_CARD - 3), at + 1)
    return None


def _data_size(header: fits.Header, name: str, number: int) -> int:
    """Return bytes of data, FITS Standard 4.0 equation 2."""
    n_axes = _whole_number(header, "NAXIS", name, number)
    if n_axes == 0:
        return 0
    n_values = 1
    for axis in range(1, n_axes + 1):
        n_values *= _whole_number(header, f"NAXIS{axis}", name, number)
    bytes_each = abs(_whole_number(header, "BITPIX", name, number)) // 8
    groups = _whole_number(header, "GCOUNT", name, number, default=1)
    return bytes_each * groups * (_whole_number(header, "PCOUNT", name, number, default=0) + n_values)


def _whole_number(header: fits.Header, key: str, name: str, number: int, default: int | None = None) -> int:
    try:
        value = header.get(key, default)
    except (fits.VerifyError, ValueError):
        value = None
    if isinstance(value, bool) or not isinstance(value, int) or (value < 0 and key != "BITPIX") or value > 2**50:
        raise DataError(f"{name} is damaged: {key} of HDU {number} is {value!r}, needs a whole number")
    return value


def check_datasum(buffer: Buffer, block: Block, name: str, number: int) -> None:
    """Raise DataError where a header's DATASUM (FITS Standard 4.0, 4.4.2.7) disagrees with its data."""
    declared = block.header.get("DATASUM")
    if not isinstance(declared, str) or not declared.strip().isdigit():
        return
    data = bytes(buffer[block.data_start : block.data_end])
    words = np.frombuffer(data + b"\0" * (-len(data) % 4), dtype=">u4")
    total = int(words.sum(dtype=np.uint64))
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    if total != int(declared):
        raise DataError(f"{name} is damaged: data of HDU {number} sum to {total}, DATASUM says {declared.strip()}")


def image_cards(header: fits.Header) -> dict[str, Any]:
    """Return a header as plain values, a tile-compressed image's as that of the image it packs.

    The first of repeated cards counts; comments and history are left out; a card that is not proper
    FITS (an unquoted text) gives its text; a card without value gives None.
    """
    cards: dict[str, Any] = {}
    for card in header.cards:
        if card.keyword and card.keyword not in ("COMMENT", "HISTORY", "END") and card.keyword not in cards:
            cards[card.keyword] = _card_value(card)
    return _unpacked(cards) if cards.get("ZIMAGE") is True else cards


def _card_value(card: fits.Card) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            value = card.value
        except (fits.VerifyError, ValueError):
            return str(card.image)[10:].split("/")[0].strip().strip("'").strip()
    if isinstance(value, fits.card.Undefined):
        return None
    return value.strip() if isinstance(value, str) else value


def _unpacked(cards: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in cards.items() if not _COMPRESSION_CARD.fullmatch(key)}
    if kept.get("EXTNAME") == "COMPRESSED_IMAGE":
        del kept["EXTNAME"]
    kept["XTENSION"], kept["BITPIX"], kept["NAXIS"] = "IMAGE", cards.get("ZBITPIX"), cards.get("ZNAXIS")
    n_axes = cards.get("ZNAXIS")
    for axis in range(1, (n_axes if isinstance(n_axes, int) else 0) + 1):
        kept[f"NAXIS{axis}"] = cards.get(f"ZNAXIS{axis}")
    return kept


def image_shape(cards: dict[str, Any]) -> tuple[int, int] | None:
    """Return (ny, nx) of the image these cards describe, None where they describe none or a table."""
    n_axes = cards.get("NAXIS")
    if not isinstance(n_axes, int) or n_axes < 2 or cards.get("XTENSION", "IMAGE") not in ("IMAGE", "IUEIMAGE"):
        return None
    sizes = [cards.get(f"NAXIS{axis}") for axis in range(1, n_axes + 1)]
    if not all(isinstance(size, int) for size in sizes) or any(size != 1 for size in sizes[2:]) or 0 in sizes:
        return None
    return int(sizes[1]), int(sizes[0])  # type: ignore[arg-type]
