"""When a file that is arriving is whole."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gueststar.core.errors import TransientError
from gueststar.store.operation_settings import LandingPlace

SIDECARS = {".sha256": "sha256", ".md5": "md5"}
"""Ending of a file that tells the checksum of the one beside it -> name of the hash."""

_UNFINISHED = re.compile(r"(^\.|\.(part|partial|tmp|temp|filepart|crdownload)$|~$)", re.IGNORECASE)
_BLOCK = 2**20


class Stamp(NamedTuple):
    """What tells a file from an earlier one of the same name."""

    size: int
    mtime_ns: int


@dataclass
class Arriving:
    """A file that is not known to be whole yet."""

    stamp: Stamp
    since: float
    """When it was first seen with this stamp, monotonic seconds."""
    is_denied: bool = False
    """Its checksum did not agree with this stamp: it is not computed again."""


def is_unfinished(name: str) -> bool:
    """Return whether a file's name says that it is still being written: hidden, .part, .tmp."""
    return _UNFINISHED.search(name) is not None


def is_sidecar(name: str) -> bool:
    """Return whether a file holds another one's checksum."""
    return Path(name).suffix.lower() in SIDECARS


def is_whole(path: Path, arriving: Arriving, place: LandingPlace, *, now: float) -> bool:
    """Return whether a file is whole by the rule of its landing place; ``now`` is monotonic.

    One that has been empty for ``empty_s`` is as whole as it will be.

    Raises OSError where the place does not answer.
    """
    if place.complete_by == "rename":
        return True
    if arriving.stamp.size == 0 and now - arriving.since >= place.empty_s:
        return True  # nothing more comes: taking it in will say that it is empty
    if place.complete_by == "stable":
        return arriving.stamp.size > 0 and now - arriving.since >= place.stable_s
    if arriving.is_denied or (told := told_checksum(path)) is None:
        return False
    arriving.is_denied = _hash_of(path, told[0]) != told[1]
    return not arriving.is_denied


def told_checksum(path: Path) -> tuple[str, str] | None:
    """Return (hash, hexadecimal digest) that the file beside ``path`` tells; None where there is none yet."""
    for ending, name in SIDECARS.items():
        sidecar = path.with_name(path.name + ending)
        try:
            words = sidecar.read_text().split()
        except FileNotFoundError:
            continue
        except UnicodeDecodeError:
            raise TransientError(f"{sidecar} holds no checksum: it is not text") from None
        if words and len(words[0]) == 2 * hashlib.new(name).digest_size:
            return name, words[0].lower()
    return None


def _hash_of(path: Path, name: str) -> str:
    digest = hashlib.new(name, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
