"""Manifests: what the archive holds, one JSON line a file, one manifest a night.

Lines are only ever added, several at a time and safe on disk; the last one of a file counts. A line that a crash cut
off is no line. Beside it lies the same in the form of ``sha256sum -c``, for whoever has nothing but the archive.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from gueststar.formats.atomic import appearing_whole

FOLDER = "manifests"
"""Folder of the archive that holds them."""


@dataclass(frozen=True)
class Entry:
    """A file in the archive."""

    file: str
    """Where it lies in the repository."""
    archive: str
    """Where it lies in the archive; several files of the same content may share one copy."""
    sha256: str
    size: int
    """Bytes."""
    mtime_ns: int
    """Of the file in the repository when it was archived."""
    archived: float
    """Unix time."""


class Manifest:
    """The manifest of one batch in the archive at ``root``."""

    def __init__(self, root: Path, batch: str) -> None:
        self.path = root / FOLDER / f"{batch}.jsonl"

    def entries(self) -> dict[str, Entry]:
        """Return file in the repository -> what is archived of it."""
        found: dict[str, Entry] = {}
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return found
        for line in lines:
            try:
                entry = Entry(**json.loads(line))
            except (ValueError, TypeError):
                continue  # cut off by a crash: its file is archived again
            found[entry.file] = entry
        return found

    def add(self, entries: Iterable[Entry]) -> None:
        """Add lines, safe on disk when this returns."""
        text = "".join(f"{json.dumps(asdict(entry))}\n" for entry in entries)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                text = text if file.read(1) == b"\n" else f"\n{text}"
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

    def write_checksums(self) -> None:
        """Write the digests as ``sha256sum -c`` reads them, from the archive's top folder."""
        unique = {entry.archive: entry.sha256 for entry in self.entries().values()}
        with appearing_whole(self.path.with_suffix(".sha256")) as temporary:
            temporary.write_text("".join(f"{digest}  {path}\n" for path, digest in sorted(unique.items())))


def batches(root: Path) -> list[str]:
    """Return the names of the manifests of an archive, nights in their order."""
    return sorted(path.stem for path in (root / FOLDER).glob("*.jsonl"))
