"""Every command of the user guide is run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..conftest import folder_of_all_processes
from ._guide import Beginnings, pages, run_page
from .warm_commands import warm_commands


@pytest.fixture(scope="session")
def beginnings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beginnings]:
    """What several pages begin with, made once, with a `gueststar` that starts warm."""
    with warm_commands() as commands:
        path = os.pathsep.join((str(commands), str(Path(sys.executable).parent), os.environ["PATH"]))
        yield Beginnings(folder_of_all_processes(tmp_path_factory, "guide"), {**os.environ, "PATH": path})


@pytest.mark.slow
@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_commands_of_the_page_run(page: Path, tmp_path: Path, beginnings: Beginnings) -> None:
    run_page(page, tmp_path, beginnings)
