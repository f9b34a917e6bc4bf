"""No packet tells of what its stream may not show: it equals that of a survey that never took it."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gueststar.formats.avro import OWN_FIELDS, decode_alert
from gueststar.model.readers import ANONYMOUS, Sight
from gueststar.model.rights import Program, Releases, RightsPolicy
from gueststar.store.alerts.log import AlertLog
from gueststar.store.detections.store import DetectionStore
from tests.unit.alerts.conftest import NIGHT_ZERO, Survey, make_record, make_sources

IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Many small surveys are made: where no disk has to be waited for, if there is such a place."""

DISTINCT, CONFUSED = 3.0, 1.3
"""Separation of four objects, arcsec: told apart, and often mistaken for one another."""

DAY_ZERO = 20251121


@dataclass(frozen=True)
class Exposure:
    """One exposure: when, for whom, and which objects it shows with which position offsets."""

    night: int
    program: int
    seen: tuple[int, ...]
    jitter: int


exposures = st.lists(
    st.builds(
        Exposure,
        night=st.integers(0, 44),
        program=st.sampled_from([0, 1, 1, 2, 3]),
        seen=st.lists(st.integers(0, 3), max_size=4, unique=True).map(tuple),
        jitter=st.integers(-9, 9),
    ),
    min_size=1,
    max_size=12,
)


@st.composite
def policies(draw: st.DrawFn) -> RightsPolicy:
    """Draw release dates and the switch."""
    until = {
        program: tuple(
            (DAY_ZERO + draw(st.integers(0, 44)), float(NIGHT_ZERO + draw(st.integers(-5, 50))))
            for _ in range(draw(st.integers(0, 2)))
        )
        for program in (Program.PARTNERSHIP, Program.PRIVATE)
    }
    return RightsPolicy(Releases(until), draw(st.booleans()))


def record_of(exposure: Exposure, serial: int):
    return make_record(
        NIGHT_ZERO + exposure.night + 0.1 + 0.01 * serial, program=exposure.program, band_id=1 + serial % 2
    )


def observe_all(survey: Survey, taken: list[tuple[int, Exposure]], separation: float) -> None:
    for serial, exposure in sorted(taken, key=lambda item: (item[1].night, item[0])):
        record = record_of(exposure, serial)
        which = np.array(exposure.seen, dtype=int)
        dec = 20.01 + (separation * which + 0.05 * exposure.jitter) / 3600.0
        survey.observe(record, make_sources(record, np.full(len(which), 0.005), dec))


def told(packet: dict, policy: RightsPolicy) -> dict:
    """Return what is compared: all but the seven letters of the name, which are drawn by a keyed hash.

    Forced fluxes on an exposure that was released later keep the place that its own program knew; where partners and
    the private program share their items, that follows from exposures of both. So does what is made of these fluxes.
    """
    compared = packet | {"objectId": packet["objectId"][:5]}
    is_mixed = any(policy.releases.until.values()) and policy.do_share_partnership_and_private
    return compared | (dict.fromkeys(("fp_hists", *OWN_FIELDS)) if is_mixed else {})


def packets_with(
    taken: list[tuple[int, Exposure]], policy: RightsPolicy, folder: Path, separation: float = DISTINCT
) -> dict[int, dict]:
    store = DetectionStore.at(folder, name_key=b"a key of the tests")
    survey = Survey(folder, store, AlertLog(folder), policy)
    observe_all(survey, taken, separation)
    packets = [decode_alert(data) for _, data in survey.log.replay(programs=tuple(Program))]
    store.close()
    survey.log.close()
    return {packet["candid"]: packet for packet in packets}


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(taken=exposures, policy=policies(), separation=st.sampled_from([DISTINCT, CONFUSED]))
@example(  # partners know objects from public exposures, of which engineering has taken others
    taken=[
        Exposure(10, 2, (0, 1, 2, 3), -3), Exposure(0, 0, (0, 1), -1), Exposure(0, 0, (0, 1, 2), 2),
        Exposure(20, 0, (0, 1), 1), Exposure(36, 0, (0, 1, 2), 6), Exposure(0, 1, (0, 1, 2), 0),
        Exposure(38, 1, (0, 1, 2, 3), 0), Exposure(32, 0, (0,), 0), Exposure(0, 0, (0, 1), -1),
    ],
    policy=RightsPolicy(Releases({Program.PARTNERSHIP: ((20251138, 61000.0),)})), separation=DISTINCT,
)  # fmt: skip
def test_a_packet_is_the_same_as_if_forbidden_exposures_had_never_been_taken(
    taken: list[Exposure], policy: RightsPolicy, separation: float
) -> None:
    numbered = list(enumerate(taken))
    # Where objects are confused with one another, only the public stream is independent of all others.
    streams = (Program.PUBLIC, Program.PARTNERSHIP, Program.PRIVATE) if separation == DISTINCT else (Program.PUBLIC,)
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        whole = packets_with(numbered, policy, Path(folder) / "whole", separation)
        for stream in streams:
            triggers = [item for item in numbered if item[1].program == stream and item[1].seen]
            if not triggers:
                continue
            last = max(triggers, key=lambda item: (item[1].night, item[0]))
            now = record_of(last[1], last[0]).mjd_tai + 0.01
            allowed = [
                item for item in numbered
                if policy.may_appear(
                    Program(item[1].program), in_stream=stream,
                    item_day_obs=record_of(item[1], item[0]).day_obs, at_mjd_tai=now,
                )
            ]  # fmt: skip
            without = packets_with(allowed, policy, Path(folder) / f"without{stream}", separation)
            pid = record_of(last[1], last[0]).pid
            mine = [candid for candid in without if candid // 1_000_000 == pid]
            assert len(mine) == len(last[1].seen)
            for candid in mine:
                assert told(whole[candid], policy) == told(without[candid], policy)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(taken=exposures, separation=st.sampled_from([DISTINCT, CONFUSED]))
def test_the_public_stream_is_the_same_from_end_to_end_and_its_names_are_the_same_but_for_other_letters(
    taken: list[Exposure], separation: float
) -> None:
    """Letters are drawn by a secret key: who does not know it sees a relabelling, one name for one name."""
    numbered = list(enumerate(taken))
    public = [item for item in numbered if item[1].program == Program.PUBLIC]
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        whole, without = (
            [packet for packet in packets_with(some, RightsPolicy(), Path(folder) / name, separation).values()
             if packet["candidate"]["programid"] == Program.PUBLIC]
            for name, some in (("whole", numbered), ("without", public))
        )  # fmt: skip
    assert [told(packet, RightsPolicy()) for packet in whole] == [told(packet, RightsPolicy()) for packet in without]
    pairs = {(one["objectId"], other["objectId"]) for one, other in zip(whole, without, strict=True)}
    assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs}), "one name for one name"


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(taken=exposures, policy=policies())
def test_a_packet_that_may_leave_after_a_release_holds_nothing_that_was_not_released(
    taken: list[Exposure], policy: RightsPolicy
) -> None:
    now = float(NIGHT_ZERO + 50)
    everybody = Sight(ANONYMOUS, policy, now)
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        root = Path(folder)
        packets_with(list(enumerate(taken)), policy, root)
        log = AlertLog(root)
        left = [decode_alert(data) for _, data in log.replay(programs=everybody.packet_nights())]
        every = [decode_alert(data) for _, data in log.replay(programs=tuple(Program))]
        log.close()
    night_of = {record.pid: record.day_obs for record in (record_of(e, k) for k, e in enumerate(taken))}
    for packet in left:
        items = [packet["candidate"], *(packet["prv_candidates"] or []), *(packet["fp_hists"] or [])]
        for item in items:
            assert everybody.may_see(Program(item["programid"]), day_obs=night_of[item["pid"]])
    mine = {packet["candid"] for packet in every if packet["candidate"]["programid"] == Program.PUBLIC}
    assert mine <= {packet["candid"] for packet in left}
    for packet in every:  # without sharing, release of the exposure is release of its packets
        program, night = Program(packet["candidate"]["programid"]), night_of[packet["candidate"]["pid"]]
        if not policy.do_share_partnership_and_private and everybody.may_see(program, day_obs=night):
            assert packet["candid"] in {one["candid"] for one in left}


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(taken=exposures)
def test_public_packets_hold_public_items_only(taken: list[Exposure]) -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        packets = packets_with(list(enumerate(taken)), RightsPolicy(), Path(folder))
    for packet in packets.values():
        if packet["candidate"]["programid"] == 1:
            items = (packet["prv_candidates"] or []) + (packet["fp_hists"] or [])
            assert {item["programid"] for item in items} <= {1}


def test_a_name_does_not_tell_the_year_of_a_hidden_exposure(make_survey) -> None:
    survey = make_survey()
    place = np.array([0.005]), np.array([20.01])
    for mjd, program in ((61030.2, 3), (61050.2, 1), (61051.2, 3), (61052.2, 1)):
        record = make_record(mjd, program=program)
        survey.observe(record, make_sources(record, *place))
    names = [decode_alert(data)["objectId"] for _, data in survey.log.replay(programs=tuple(Program))]
    assert [name[3:5] for name in names] == ["25", "26", "25", "26"]
    assert len({name[5:] for name in names}) == 1, "the letters are the object's in every stream"


def test_counts_of_a_public_packet_leave_private_exposures_out_until_their_release(make_survey) -> None:
    place = np.array([0.005]), np.array([20.01])
    released = Releases({Program.PRIVATE: ((20251122, 61003.0),)})
    for policy, expected in ((RightsPolicy(), (2, 2)), (RightsPolicy(released), (4, 4))):
        survey = make_survey(policy)
        for mjd, program in ((61000.2, 3), (61001.2, 3), (61002.2, 1), (61003.2, 1)):
            record = make_record(mjd, program=program)
            survey.observe(record, make_sources(record, *place))
        last = list(survey.log.replay())[-1]
        candidate = decode_alert(last[1])["candidate"]
        assert (candidate["ndethist"], candidate["ncovhist"]) == expected
        assert math.isclose(
            candidate["jdstarthist"] - candidate["jd"], -1.0 if expected == (2, 2) else -3.0, abs_tol=1e-6
        )
