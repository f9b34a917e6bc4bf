"""Servers and disks stop and come back: the operator waits, says for what, and goes on."""

from __future__ import annotations

import pytest

from gueststar.operations.drills.stage import Stage

from .conftest import assert_recovers

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["database-down", "broker-down", "disk-full", "archive-stopped", "archive-lagging"])
def test_the_survey_recovers_from(name: str, stage: Stage) -> None:
    assert_recovers(name, stage)


def test_all_drills_are_played_here() -> None:
    from gueststar.operations.drills.catalog import DRILLS

    from . import test_drills_of_data, test_drills_of_processes

    modules = (test_drills_of_data, test_drills_of_processes)
    played = {name for module in modules for name in module.test_the_survey_recovers_from.pytestmark[0].args[1]}
    played |= set(test_the_survey_recovers_from.pytestmark[0].args[1])
    assert played == set(DRILLS)
