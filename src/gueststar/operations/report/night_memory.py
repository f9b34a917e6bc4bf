"""What was once summed up of a night, kept so that later reports need not read all its jobs again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gueststar import __version__
from gueststar.formats.atomic import appearing_whole
from gueststar.store.sql import plain_json

FOLDER = "cache/nights"
"""Folder of a repository; it may be deleted at any time."""


def remembered(root: Path, night: int, name: str, stamp: str, compute: Callable[[], Any]) -> Any:
    """Return what ``compute`` gives (JSON-able), from a file where it was made for the same stamp and software.

    A file that is damaged, or cannot be written, costs only the work again.
    """
    path, key = root / FOLDER / f"{night}_{name}.json", f"{__version__} {stamp}"
    try:
        kept = json.loads(path.read_text())
        if kept["stamp"] == key:
            return kept["value"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    value = plain_json(compute())
    try:
        with appearing_whole(path) as temporary:
            temporary.write_text(json.dumps({"stamp": key, "value": value}))
    except OSError:  # a full or read-only disk
        pass
    return value
