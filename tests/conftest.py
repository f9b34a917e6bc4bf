"""Fixtures shared by every test."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from astropy.utils import iers

ROOT = Path(__file__).resolve().parent.parent

# What astropy knows of the Earth's rotation is what is installed with it, whatever today's date: it asks no network.
iers.conf.auto_download, iers.conf.auto_max_age = False, None

APART = ("tests/end_to_end/test_user_guide.py", "tests/drills/")
"""Long tests that share what they need through a folder: any process may run any of them."""
ORDER = ("tests/end_to_end/", "tests/drills/", "tests/integration/", "tests/unit/")
"""Long ones first, so that no process is left alone with one at the end."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Run one process more than there are cores (``-n auto``): drills and tests of servers wait half of their time."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort what processes share among themselves: pages and drills in turn (drills wait much), then the rest."""
    if not hasattr(config, "workerinput"):
        return
    apart = [[item for item in items if item.nodeid.startswith(prefix)] for prefix in APART]
    rest = [item for item in items if not item.nodeid.startswith(APART)]
    rest.sort(key=lambda item: next((n for n, prefix in enumerate(ORDER) if item.nodeid.startswith(prefix)), 0))
    items[:] = [item for pair in zip_longest(*apart) for item in pair if item is not None] + rest


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Share out whole files (they have fixtures of their own) in the order of collection, and `APART` test by test."""
    from xdist.scheduler import LoadFileScheduling

    class InOrder(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return nodeid if nodeid.startswith(APART) else str(super()._split_scope(nodeid))

    if config.getoption("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False
    return InOrder(config, log)


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


@pytest.fixture(scope="session")
def small_sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two simulated nights of one detector: raw files, truth and reference catalog, for all test processes to read."""
    from .end_to_end._survey import gueststar

    words = ("--scenario", "small", "--detectors", "0", "--seed", "5", "--quiet")
    shared = folder_of_all_processes(tmp_path_factory, "small")
    return made_once(shared / "sky", lambda folder: gueststar("simulate", folder, *words))


@pytest.fixture(scope="session")
def small_first_night(small_sky: Path) -> Path:
    """A survey of the first night of `small_sky`, processed; who opens it takes a copy (`copied_survey`)."""
    from .end_to_end._survey import gueststar, make_survey

    def make(folder: Path) -> None:
        make_survey(folder, small_sky, min(small_sky.glob("raw/*")))
        gueststar("process", folder)

    return made_once(small_sky.with_name("first_night"), make)


@pytest.fixture(scope="session")
def small_survey(small_sky: Path, small_first_night: Path) -> Path:
    """A survey of both nights of `small_sky`, processed as they came; who opens it takes a copy (`copied_survey`)."""
    from .end_to_end._survey import copied_survey, gueststar

    def make(folder: Path) -> None:
        copied_survey(small_first_night, folder)
        gueststar("ingest", folder, small_sky / "raw", "--transfer", "link")
        gueststar("process", folder)

    return made_once(small_sky.with_name("survey"), make)


def made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """Return a folder that the first test process which asks for it makes."""
    with folder.with_suffix(".lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not lock.seek(0, os.SEEK_END):  # who held the lock before may have written since it was opened
            shutil.rmtree(folder, ignore_errors=True)  # what a test process began that could not end it
            make(folder)
            lock.write("made")
    return folder


def folder_of_all_processes(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    """Return a folder that all test processes of this run share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if base.name.startswith("popen") else base) / name
    folder.mkdir(exist_ok=True)
    return folder
