"""The stage on which drills are played: one world for all test processes, one undisturbed night to compare with."""

from __future__ import annotations

import fcntl

import pytest

from gueststar.core.errors import ConfigError
from gueststar.operations.drills.catalog import play
from gueststar.operations.drills.stage import Stage
from gueststar.operations.drills.world import make_world

from ..conftest import folder_of_all_processes


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """A stage of this test process; the world and its undisturbed night are made by whoever comes first."""
    shared = folder_of_all_processes(tmp_path_factory, "drills")
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        world = make_world(shared / "world")
        quiet = Stage(world, shared).quiet()
    mine = tmp_path_factory.mktemp("stage")
    (mine / "quiet").symlink_to(quiet)
    return Stage(world, mine)


def assert_recovers(name: str, stage: Stage) -> None:
    """Play a drill; skip where this machine lacks what it needs."""
    try:
        told = play(name, stage)
    except ConfigError as problem:
        pytest.skip(f"drill {name}: {problem}")
    assert told.is_passed, "\n".join(told.lines())
