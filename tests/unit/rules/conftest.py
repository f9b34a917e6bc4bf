"""Rules of a test, and facts that are asked of them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from gueststar.cameras.load import load_camera
from gueststar.core import times
from gueststar.model.camera import Camera, Site
from gueststar.model.exposure import ExposureInfo
from gueststar.model.rights import Program
from gueststar.operations.rules.book import RuleBook
from gueststar.operations.rules.contract import ExposureFacts, SurveyFacts
from gueststar.operations.rules.grammar import time_zone_named
from gueststar.operations.rules.load import check_rules
from gueststar.operations.rules.reading import RulesText
from gueststar.operations.rules.sun import NightTimes, survey_night
from gueststar.store.ledger import ExposureRow, ExposureState

CAMERA = load_camera("simcam")
NIGHT = 20260110


def unix(text: str) -> float:
    """Return the Unix time of an ISO date and time with its offset (Z: UTC)."""
    return datetime.fromisoformat(text).timestamp()


def book_of(text: str, *, site: Site = CAMERA.site, camera: Camera = CAMERA, zone: str = "UTC") -> RuleBook:
    """Return the rules of a text; what is wrong with it fails the test."""
    source = RulesText("rules.yaml", textwrap.dedent(text))
    checked = check_rules(source, camera)
    assert checked.file is not None, "\n".join(checked.complaints)
    marks = {"sandbox": 20.0, "archive": 50.0}
    return RuleBook(
        checked.file, source=source, nights=NightTimes(site), zone=time_zone_named(checked.file.time_zone or zone),
        low_marks=marks,
    )  # fmt: skip


def complaints_of(text: str) -> list[str]:
    """Return what is wrong with a text of rules."""
    return list(check_rules(RulesText("rules.yaml", textwrap.dedent(text)), CAMERA).complaints)


def clock_rule(when: str, *, name: str = "it", more: str = "") -> str:
    """Return a text of one rule that follows the clock."""
    return f"rules:\n  - {{name: {name}, description: A rule., when: {when}, do: readiness{more}}}\n"


def exposure_facts(**changes: Any) -> ExposureFacts:
    """Return the facts of an exposure that was just taken, with changes of it or of what is around it."""
    around = {name: changes.pop(name) for name in list(changes) if name in ExposureFacts.__dataclass_fields__}
    info = ExposureInfo(
        camera="simcam", observation_type="science", mjd_start=61050.2, exposure_s=30.0, day_obs=NIGHT,
        program=Program.PUBLIC, physical_filter="sim_r", band="r", ra=150.0, dec=2.0, field=612, object_name="M 31",
        airmass=1.2, principal_investigator="Tycho",
    )  # fmt: skip
    delay_s = changes.pop("delay_s", 5.0)
    info = replace(info, **changes)
    received = times.unix(info.mjd_start) + info.exposure_s + delay_s
    row = ExposureRow(info, ExposureState.RECEIVED, "", (0, 1), received)
    facts: dict[str, Any] = {"exposure": row, "night": NIGHT, "age_s": 60.0, "stars_per_deg2": 5000.0}
    return ExposureFacts(**{**facts, **around})


@pytest.fixture
def survey_facts() -> Callable[..., SurveyFacts]:
    """Return the facts of the survey at a Unix time, with changes."""

    def facts(now: float, **changes: Any) -> SurveyFacts:
        return SurveyFacts(**{"now": now, "night": survey_night(CAMERA.site, now), **changes})

    return facts
