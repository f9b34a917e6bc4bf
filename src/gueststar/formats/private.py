"""Files that nobody but their owner may read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any


def open_private(path: Path, mode: str) -> IO[Any]:
    """Open a file; one that is made by this is readable and writable for its owner only."""
    return open(path, mode, opener=lambda name, flags: os.open(name, flags, 0o600))
