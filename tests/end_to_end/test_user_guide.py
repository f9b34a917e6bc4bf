"""Every command of the user guide is run, but for the pages on alerts."""

from __future__ import annotations

from pathlib import Path

import pytest

from ._guide import pages, run_page


@pytest.fixture(scope="module")
def skies() -> dict[str, Path]:
    """Skies that were simulated, by command."""
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("page", pages(of_alerts=False), ids=lambda page: page.stem)
def test_commands_of_the_page_run(page: Path, tmp_path: Path, skies: dict[str, Path]) -> None:
    run_page(page, tmp_path, skies)
