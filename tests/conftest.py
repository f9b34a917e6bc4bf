"""Fixtures shared by every test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def shared_folder() -> Path | None:
    """Where the real data sets lie: GUESTSTAR_SHARED, or ``shared`` beside the checkout."""
    candidates = [Path(os.environ["GUESTSTAR_SHARED"])] if "GUESTSTAR_SHARED" in os.environ else []
    candidates += [ROOT.parent / "shared", ROOT.parent.parent / "shared"]
    for folder in candidates:
        if (folder / "data").is_dir():
            return folder / "data"
    return None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets; tests that ask for it skip where it is absent."""
    folder = shared_folder()
    if folder is None:
        pytest.skip("the real data sets are not beside the checkout (set GUESTSTAR_SHARED to their folder)")
    return folder
