"""A night's tracklets are made of what was not there on earlier nights."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from gueststar.model.rights import Program
from gueststar.pipelines.night.movers import link_night
from gueststar.pipelines.night.settings import PipelineSettings
from tests.unit.alerts.conftest import make_record, make_sources

TONIGHT = 61006.1
RA, DEC = 359.99, 20.0


def place(step: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where something is that moves by 20 arcsec from one exposure to the next."""
    return np.array([RA + step * 20.0 / 3600.0 / np.cos(np.radians(DEC))]), np.array([DEC])


def observe_tonight(survey) -> None:
    for step in range(3):
        record = make_record(TONIGHT + 0.02 * step)
        survey.observe(record, make_sources(record, *place(step)))


def linked(survey) -> dict:
    ledger = SimpleNamespace(jobs=lambda **_: [])  # no streaks that night
    repo = SimpleNamespace(root=survey.root, settings=SimpleNamespace(database=None), ledger=ledger)
    outcome = link_night(1, repo, PipelineSettings(), make_record(TONIGHT).day_obs)
    assert outcome.state == "done", outcome.reason
    return outcome.result.metrics


def test_what_moves_is_linked_and_variables_that_only_seem_to_move_are_not(make_survey) -> None:
    new, old = make_survey(), make_survey()
    for step in range(3):  # three variables, seen six nights before; tonight each is bright on one exposure
        record = make_record(TONIGHT - 6.0 + 0.02 * step)
        old.observe(record, make_sources(record, *place(step)))
    observe_tonight(new)
    observe_tonight(old)
    (tracklet,) = linked(new)["tracklets"]
    assert tracklet["n_detections"] == 3
    assert linked(new)["n_stationary_objects"] == 0
    assert linked(old)["tracklets"] == []
    assert linked(old)["n_stationary_objects"] == 3


@pytest.mark.parametrize("program", [Program.PARTNERSHIP, Program.PRIVATE])
def test_earlier_detections_of_any_program_tell_what_stands_still(make_survey, program) -> None:
    survey = make_survey()
    for step in range(3):
        record = make_record(TONIGHT - 6.0 + 0.02 * step, program=int(program))
        survey.observe(record, make_sources(record, *place(step)))
    observe_tonight(survey)
    assert linked(survey)["tracklets"] == []
