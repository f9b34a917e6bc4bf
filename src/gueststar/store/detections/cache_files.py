"""Files that only save work: mapped into memory, checked, and made anew from the record when missing or damaged."""

from __future__ import annotations

import json
import mmap
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gueststar.formats.atomic import appearing_whole

_HEAD = struct.Struct(">8sII")
_MAGIC = b"GSCACHE1"
_ALIGNED = 64


class CacheFile(NamedTuple):
    """What a file holds."""

    facts: dict[str, Any]
    parts: list[memoryview]
    """Bytes of the mapped file; they live as long as anything refers to them."""


def write_cache_file(path: Path, facts: dict[str, Any], parts: Sequence[bytes]) -> None:
    """Write a file, whole or not at all; it is not forced to the disk, the checksum tells what a crash left."""
    text = json.dumps(facts | {"sizes": [len(part) for part in parts]}, sort_keys=True).encode()
    head = _padded(_HEAD.size + len(text))
    body = b"".join(part + bytes(-len(part) % _ALIGNED) for part in parts)
    with appearing_whole(path) as temporary, temporary.open("wb") as file:
        file.write(_HEAD.pack(_MAGIC, len(text), zlib.crc32(body, zlib.crc32(text))))
        file.write(text + bytes(head - _HEAD.size - len(text)))
        file.write(body)


def read_cache_file(path: Path, *, is_checked: bool = True) -> CacheFile | None:
    """Return a file's content, mapped; None if there is none or it is not whole.

    The checksum is computed if ``is_checked``: who has read this very file before need not do so again.
    """
    try:
        with path.open("rb") as file:
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError):  # ValueError: empty
        return None
    if len(mapped) < _HEAD.size:
        return None
    magic, n_text, checksum = _HEAD.unpack_from(mapped)
    text = mapped[_HEAD.size : _HEAD.size + n_text]
    start = _padded(_HEAD.size + n_text)
    if magic != _MAGIC or (is_checked and zlib.crc32(mapped[start:], zlib.crc32(text)) != checksum):
        return None
    facts = json.loads(bytes(text))
    parts = []
    for size in facts.pop("sizes"):
        parts.append(mapped[start : start + size])
        start += _padded(size)
    return CacheFile(facts, parts) if start == len(mapped) else None


def _padded(size: int) -> int:
    return size + -size % _ALIGNED
