"""New objects are measured on the images from before they were known, and each stream is told only its own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gueststar.core.errors import DataError
from gueststar.formats.avro import decode_alert
from gueststar.model.catalog import Catalog
from gueststar.model.columns import FORCED_SOURCE
from gueststar.model.rights import Program, Releases, RightsPolicy
from gueststar.pipelines.night.precovery import Wanted, places_wanted
from gueststar.store.alerts.log import AlertLog
from gueststar.store.detections.store import DetectionStore
from tests.unit.alerts.conftest import NIGHT_ZERO, Survey, make_record, make_sources
from tests.unit.alerts.test_rights import (
    CONFUSED,
    DISTINCT,
    IN_MEMORY,
    Exposure,
    exposures,
    observe_all,
    record_of,
    told,
)

PLACE = np.array([0.005]), np.array([20.01])
NONE = np.zeros(0)


def observe(survey: Survey, mjd: float, *, program: int = 1, seen: bool, shift: float = 0.0, **where: Any) -> None:
    record = make_record(mjd, program=program, **where)
    place = (PLACE[0], PLACE[1] + shift / 3600) if seen else (NONE, NONE)
    survey.observe(record, make_sources(record, *place))


def precover(survey: Survey, night: int, *, window_days: float = 30.0) -> dict[tuple[int, int], Wanted]:
    """Do what the stage does, with fluxes that tell place and image."""
    foundings = survey.store.foundings(night, window_days=window_days)
    wanted = places_wanted(foundings, policy=survey.policy, at_mjd_tai=survey.now or NIGHT_ZERO + 100.0)
    for (visit, detector), what in wanted.items():
        for objects in what.objects:
            survey.store.add_forced(_fluxes(what, objects), visit=visit, detector=detector)
    return wanted


def _fluxes(what: Wanted, objects: Catalog) -> Catalog:
    n, facts = objects.n_rows, what.facts
    values = {column.name: np.zeros(n, dtype=column.dtype) for column in FORCED_SOURCE.columns}
    facts_of = {
        name: np.full(n, getattr(facts, name)) for name in ("visit", "detector", "mjd_tai", "band_id", "program")
    }
    return FORCED_SOURCE.catalog(
        values | facts_of | {"dia_object_id": objects["dia_object_id"], "psf_flux": 1e6 * (objects["dec"] - 20.0),
                             "psf_flux_err": np.full(n, 50.0)}
    )  # fmt: skip


def last_packet(survey: Survey, program: Program = Program.PUBLIC) -> dict:
    return decode_alert(list(survey.log.replay(programs=(program,)))[-1][1])


def test_the_next_packet_tells_forced_fluxes_from_before_the_discovery(make_survey) -> None:
    survey = make_survey()
    for k in range(4):
        observe(survey, NIGHT_ZERO + 0.1 + k, seen=False)
    observe(survey, NIGHT_ZERO + 4.1, seen=True)
    observe(survey, NIGHT_ZERO + 4.2, seen=False, ra=80.0)
    wanted = precover(survey, 20251125, window_days=3.5)
    told = sorted(what.facts.mjd_tai for what in wanted.values())
    assert len(told) == 4, "three nights before, and the image of the discovery; not the fourth, nor another sky"
    observe(survey, NIGHT_ZERO + 5.1, seen=True)
    packet = last_packet(survey)
    assert len(packet["fp_hists"]) == 4
    assert [item["jd"] for item in packet["fp_hists"]] == sorted(item["jd"] for item in packet["fp_hists"])
    assert {item["programid"] for item in packet["fp_hists"]} == {1}
    assert all(item["forcediffimflux"] > 0 for item in packet["fp_hists"])


def test_no_image_is_asked_for_by_a_stream_that_may_not_show_it(make_survey) -> None:
    survey = make_survey()
    for k, program in enumerate((1, 2, 3, 0)):
        observe(survey, NIGHT_ZERO + 0.1 + k, program=program, seen=False)
    for mjd, program, expected in ((4.1, 1, {1}), (5.1, 2, {1, 2}), (6.1, 3, {1, 3})):
        other = make_survey()
        for k, before in enumerate((1, 2, 3, 0)):
            observe(other, NIGHT_ZERO + 0.1 + k, program=before, seen=False)
        observe(other, NIGHT_ZERO + mjd, program=program, seen=True)
        wanted = precover(other, 20251121 + int(mjd))
        assert {what.facts.program for what in wanted.values()} == expected
    released = make_survey(RightsPolicy(Releases({Program.PRIVATE: ((20251123, NIGHT_ZERO + 50.0),)})))
    observe(released, NIGHT_ZERO + 2.1, program=3, seen=False)
    observe(released, NIGHT_ZERO + 4.1, program=1, seen=True)
    assert {what.facts.program for what in precover(released, 20251125).values()} == {1, 3}


def test_a_public_packet_tells_no_flux_at_a_place_that_a_private_exposure_gave(make_survey) -> None:
    """The private program finds it first; what it forced on public images stays its own."""
    survey = make_survey()
    observe(survey, NIGHT_ZERO + 0.1, program=1, seen=False)
    observe(survey, NIGHT_ZERO + 1.1, program=3, seen=True, shift=0.6)
    assert precover(survey, 20251122)
    observe(survey, NIGHT_ZERO + 2.1, program=1, seen=True)
    assert last_packet(survey)["fp_hists"] is None
    precover(survey, 20251123)
    observe(survey, NIGHT_ZERO + 3.1, program=1, seen=True)
    observe(survey, NIGHT_ZERO + 3.2, program=3, seen=True, shift=0.6)
    without = make_survey()
    observe(without, NIGHT_ZERO + 0.1, program=1, seen=False)
    observe(without, NIGHT_ZERO + 2.1, program=1, seen=True)
    precover(without, 20251123)
    observe(without, NIGHT_ZERO + 3.1, program=1, seen=True)
    public, alone = last_packet(survey), last_packet(without)
    assert len(public["fp_hists"]) == 2
    assert public["fp_hists"] == alone["fp_hists"], "as if the private exposure had never been taken"
    private = last_packet(survey, Program.PRIVATE)
    times = [item["jd"] for item in private["fp_hists"]]
    assert len(times) == len(set(times)), "each image is told once"
    assert {item["programid"] for item in private["fp_hists"]} == {1, 3}


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(taken=exposures, separation=st.sampled_from([DISTINCT, CONFUSED]))
def test_with_precovery_too_public_packets_are_as_if_no_other_exposure_had_been_taken(
    taken: list[Exposure], separation: float
) -> None:
    numbered = list(enumerate(taken))
    public = [item for item in numbered if item[1].program == Program.PUBLIC]
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        whole, alone = (
            _public_packets(items, Path(folder) / name, separation)
            for name, items in (("whole", numbered), ("alone", public))
        )
    assert [told(packet, RightsPolicy()) for packet in whole] == [told(packet, RightsPolicy()) for packet in alone]


def _public_packets(taken: list[tuple[int, Exposure]], folder: Path, separation: float) -> list[dict]:
    store = DetectionStore.at(folder, name_key=b"a key of the tests")
    survey = Survey(folder, store, AlertLog(folder), RightsPolicy())
    for night in sorted({exposure.night for _, exposure in taken}):
        tonight = [item for item in taken if item[1].night == night]
        observe_all(survey, tonight, separation)
        precover(survey, record_of(tonight[0][1], tonight[0][0]).day_obs)
    packets = [decode_alert(data) for _, data in survey.log.replay()]
    store.close()
    survey.log.close()
    return packets


def test_what_was_not_associated_takes_no_fluxes(make_survey) -> None:
    survey = make_survey()
    observe(survey, NIGHT_ZERO + 0.1, seen=True)
    wanted = next(iter(precover(survey, 20251121).values()))
    with pytest.raises(DataError, match="was not associated"):
        survey.store.add_forced(_fluxes(wanted, wanted.objects[0]), visit=1, detector=0)
    assert survey.store.foundings(20251122, window_days=30.0) == []
