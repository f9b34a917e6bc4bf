"""How raw files are named."""

from __future__ import annotations

import re
from pathlib import Path

_RAW_NAME = re.compile(r"\.((fits|fit|fts)(\.(fz|gz|bz2))?|tiff?(\.(gz|bz2))?)$", re.IGNORECASE)


def is_raw_name(path: Path) -> bool:
    """Return whether a file is named as raw files are (FITS or TIFF), and not hidden."""
    return _RAW_NAME.search(path.name) is not None and not path.name.startswith(".")
