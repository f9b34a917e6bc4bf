"""A tiny survey on which actions are run by hand, at any time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gueststar.operations.actions.catalog import ACTIONS
from gueststar.operations.actions.contract import ActionContext, ActionResult
from gueststar.store.repo import SurveyRepo
from tests.unit.store.conftest import camera, empty_survey, exposure, make_image, repo, write_raw  # noqa: F401

NIGHT = 20230224
NOON = 1677355200.0
"""2023-02-25T20:00:00 UTC: noon at the tiny camera's hill, after `NIGHT`."""

Act = Callable[..., ActionResult]


@pytest.fixture
def act(repo: SurveyRepo) -> Act:  # noqa: F811
    """Run an action of the catalog on the tiny survey, at noon after its night unless told otherwise."""

    def run(name: str, *, on: SurveyRepo = repo, night: int = NIGHT, now: float = NOON, is_dry: bool = False,
            **arguments: Any) -> ActionResult:  # fmt: skip
        return ACTIONS[name](ActionContext(on, night, now, arguments, is_dry))

    return run
