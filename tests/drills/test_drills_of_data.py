"""What arrives is late, broken, twice or not there: the survey takes what is good and names the rest."""

from __future__ import annotations

import pytest

from gueststar.operations.drills.stage import Stage

from .conftest import assert_recovers

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["link-backlog", "missing-metadata", "observatory-glitches", "disk-vanished"])
def test_the_survey_recovers_from(name: str, stage: Stage) -> None:
    assert_recovers(name, stage)
