"""What of a repository is archived, and where in the archive it lies.

Paths of both sides are relative, with slashes. Dated folders have their date taken apart, as archives are used to it:
``products/raw/20260131/F`` lies in ``raw/2026/01/31/F``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_NIGHT = re.compile(r"[12]\d{3}[01]\d[0-3]\d")
_GLOBS = ("products/*/*", "entered/*", "alerts/*/*", "refused")
"""Folders of a repository whose files are archived (not those in folders below them)."""

_CONTENT_NAMED = re.compile(r"-([0-9a-f]{12})(?:\.[a-z0-9]+)+$")


class Folder(NamedTuple):
    """A folder of the repository whose files are archived together."""

    batch: str
    """Manifest that lists them: a night, ``field_000007`` or ``refused``."""
    path: Path


def archived_folders(root: Path) -> list[Folder]:
    """Return the folders of a repository that are archived, those of the latest nights last."""
    found = []
    for pattern in _GLOBS:
        for path in root.glob(pattern):
            place = archive_place(f"{path.relative_to(root).as_posix()}/x")
            if place is not None and path.is_dir():
                found.append(Folder(batch_of(f"{path.relative_to(root).as_posix()}/x"), path))
    return sorted(found)


def archive_place(file: str) -> str | None:
    """Return where in the archive a file of the repository lies; None where it is not archived."""
    match file.split("/"):
        case ["products", "raw", night, name] if _NIGHT.fullmatch(night):
            return f"raw/{_dated(night)}/{name}"
        case ["products", kind, group, name]:
            return f"products/{kind}/{_dated(group)}/{name}"
        case ["entered", night, name] if _NIGHT.fullmatch(night):
            return f"entered/{_dated(night)}/{name}"
        case ["alerts", night, program, name] if _NIGHT.fullmatch(night) and program.isdigit():
            return f"alerts/{_dated(night)}/{program}/{name}"
        case ["refused", name]:
            return f"refused/{name}"
    return None


def batch_of(file: str) -> str:
    """Return the manifest that lists a file: its night, its field, ``refused``."""
    words = file.split("/")
    return words[0] if words[0] == "refused" else words[1] if words[0] in ("entered", "alerts") else words[2]


def night_folder(night: int) -> str:
    """Return the folder of raw files of a night in the archive."""
    return f"raw/{_dated(str(night))}"


def digest_in_name(name: str) -> str | None:
    """Return the first twelve digits of the SHA-256 that a product's name tells; None where it tells none."""
    found = _CONTENT_NAMED.search(name)
    return found.group(1) if found else None


def files_of(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield the files and links of a folder that are whole (names of half-written ones begin with a dot), by name."""
    with os.scandir(folder) as entries:
        yield from sorted((e for e in entries if not e.name.startswith(".") and _is_file(e)), key=lambda e: e.name)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads to itself
        return False


def _dated(group: str) -> str:
    return f"{group[:4]}/{group[4:6]}/{group[6:8]}" if _NIGHT.fullmatch(group) else group
