"""Processes die, hang or come up with a wrong clock: the night ends as if they had not."""

from __future__ import annotations

import pytest

from gueststar.operations.drills.stage import Stage

from .conftest import assert_recovers

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["worker-killed", "worker-hung", "worker-partition", "daemon-killed", "clock-step"])
def test_the_survey_recovers_from(name: str, stage: Stage) -> None:
    assert_recovers(name, stage)
