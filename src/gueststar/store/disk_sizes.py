"""How large a repository is, by kind of content and by night; folders that did not change are not read again."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from gueststar.formats.atomic import appearing_whole

CACHE = "cache/disk_sizes.json"

_NIGHT = re.compile(r"(19|20)\d{6}")
_DATABASES = (".sqlite", ".sqlite3", ".sqlite-wal", ".sqlite3-wal", ".sqlite-shm", ".sqlite3-shm")


@dataclass(frozen=True)
class DiskSizes:
    """Bytes in a repository."""

    by_kind: dict[str, int] = field(default_factory=dict)
    """Kind of product, or alerts, databases, cache...: bytes."""
    by_night: dict[int, int] = field(default_factory=dict)
    """Night: bytes of its products and alerts."""

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.by_kind.values())


def disk_sizes(root: Path) -> DiskSizes:
    """Return the sizes of what lies in a repository, links counted as what they point to within it only.

    Files of products are never changed, so a folder with the same time of change has the same size.
    """
    known = _read_cache(root / CACHE)
    folders: dict[str, tuple[int, int]] = {}
    by_kind, by_night = Counter[str](), Counter[int]()
    for folder, names in _walk(root):
        relative = folder.relative_to(root)
        stamp = folder.stat().st_mtime_ns
        is_steady = relative.parts[:1] in (("products",), ("alerts",))
        old = known.get(str(relative)) if is_steady else None
        size = old[1] if old is not None and old[0] == stamp else _bytes_of(folder, names)
        if is_steady:
            folders[str(relative)] = (stamp, size)
            if nights := [part for part in relative.parts if _NIGHT.fullmatch(part)]:
                by_night[int(nights[0])] += size
        for kind, n in _kinds_of(relative, folder, names, size).items():
            by_kind[kind] += n
    _write_cache(root / CACHE, folders)
    return DiskSizes(dict(by_kind), dict(by_night))


def _walk(root: Path) -> list[tuple[Path, list[str]]]:
    return [(Path(folder), files) for folder, _, files in os.walk(root, onerror=lambda _: None)]


def _bytes_of(folder: Path, names: list[str]) -> int:
    total = 0
    for name in names:
        try:
            total += (folder / name).lstat().st_size
        except FileNotFoundError:  # moved or removed a moment ago
            continue
    return total


def _kinds_of(relative: Path, folder: Path, names: list[str], size: int) -> dict[str, int]:
    parts = relative.parts
    if not parts:
        databases = [name for name in names if name.endswith(_DATABASES)]
        in_databases = _bytes_of(folder, databases)
        return {"databases": in_databases, "settings": size - in_databases}
    return {parts[1] if parts[0] == "products" and len(parts) > 1 else parts[0]: size}


def _read_cache(path: Path) -> dict[str, tuple[int, int]]:
    try:
        told = json.loads(path.read_text())
        return {str(name): (int(stamp), int(size)) for name, (stamp, size) in told.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write_cache(path: Path, folders: dict[str, tuple[int, int]]) -> None:
    try:
        with appearing_whole(path) as temporary:
            temporary.write_text(json.dumps(folders))
    except OSError:  # a full or read-only disk: it is a help only
        return
