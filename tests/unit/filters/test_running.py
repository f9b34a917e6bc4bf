"""Filters see what their owners may see, once, and nothing that one of them does touches another or the stream."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gueststar.core.errors import ConfigError, TransientError
from gueststar.model.readers import PacketNights
from gueststar.model.rights import Program
from gueststar.store.alerts.log import AlertLog
from gueststar.store.filters.definitions import FilterRequest, FilterState, FilterStore
from gueststar.store.filters.marks import FilterMarks
from gueststar.store.readers import ReaderStore
from gueststar.store.settings import FilterSettings, SurveySettings
from gueststar.stream.filter_round import run_filters
from gueststar.stream.filters import FilterReceipt, RunFilters, checked, nights_of_owners

from .packets import JD, mark, packet, put

ALL = (Program.PUBLIC, Program.PARTNERSHIP, Program.PRIVATE)


class Survey:
    def __init__(self, root: Path) -> None:
        root.mkdir(exist_ok=True)
        self.root = root
        self.store = FilterStore.of(root, None)
        self.nights_of: Callable[[str], PacketNights] = lambda _: PacketNights.of_programs(ALL)
        self.settings = FilterSettings()

    def add(self, condition: str, *, owner: str = "alice", name: str = "mine", **more: object) -> None:
        request = FilterRequest(owner, name, condition, **more)  # type: ignore[arg-type]
        checked(request)
        self.store.add(request)

    def run(self, **more: object) -> FilterReceipt:
        more = {"nights_of": self.nights_of} | more
        with RunFilters(self.root, self.store, self.settings, **more) as filters:  # type: ignore[arg-type]
            return filters.run(must_be_sent=True)

    def waiting(self, topic: str = "filter_alice_mine") -> list[int]:
        marks = FilterMarks(self.root)
        found = [entry.candid for entry, _ in marks.waiting(topic, 1000)]
        marks.close()
        return found

    def state(self, owner: str = "alice", name: str = "mine") -> FilterState:
        return self.store.versions(owner, name)[-1].state


@pytest.fixture
def survey(tmp_path: Path) -> Survey:
    return Survey(tmp_path)


def test_what_passes_is_noted_once(survey: Survey) -> None:
    survey.add("magpsf < 18")
    put(survey.root, packet(1, magpsf=17.0), packet(2, magpsf=19.0), packet(3, magpsf=17.5))
    receipt = survey.run()
    assert (receipt.n_alerts, receipt.n_passed) == (3, 2)
    assert survey.waiting() == [1, 3]
    assert survey.run().n_alerts == 0
    assert survey.waiting() == [1, 3]


def test_filters_ask_of_features_and_count_what_is_not_known(survey: Survey) -> None:
    survey.add("magpsf < 18 AND colour_g_r < 0")
    put(survey.root, packet(1, magpsf=17.0), packet(2, magpsf=19.0))
    survey.run()
    marks = FilterMarks(survey.root)
    (count,) = marks.counts()
    assert (count.n_seen, count.n_passed, count.n_unknown) == (2, 0, 1)


def test_nothing_is_looked_at_before_it_left_to_the_stream(survey: Survey) -> None:
    survey.add("magpsf < 30")
    put(survey.root, packet(1), packet(2), sent=False)
    put(survey.root, packet(3))
    assert survey.run().n_alerts == 1
    mark(survey.root, 1)  # half of the image
    assert survey.run().n_alerts == 0
    mark(survey.root, 2)
    assert survey.run().n_alerts == 2
    assert survey.waiting() == [3, 1, 2]


def test_an_owner_who_may_not_see_a_program_gets_none_of_it(survey: Survey) -> None:
    survey.add("magpsf < 30", owner="alice", programs=ALL)
    survey.add("magpsf < 30", owner="bob", programs=ALL)
    survey.add("magpsf < 30", owner="carol", programs=(Program.PUBLIC,))
    mine = PacketNights({Program.PUBLIC: 29991231, Program.PARTNERSHIP: 20251120})
    survey.nights_of = lambda owner: PacketNights.of_programs(ALL) if owner == "bob" else mine
    for program in ALL:
        put(survey.root, packet(10 + program), program=program, night=20251121)
    put(survey.root, packet(22), program=2, night=20251120)
    survey.run()
    assert survey.waiting("filter_alice_mine") == [11, 22]
    assert survey.waiting("filter_bob_mine") == [11, 12, 13, 22]
    assert survey.waiting("filter_carol_mine") == [11]


def test_a_filter_says_the_same_where_what_it_may_not_see_never_was(tmp_path: Path) -> None:
    told = []
    for name, programs in (("whole", ALL), ("public", (Program.PUBLIC,))):
        survey = Survey(tmp_path / name)
        survey.nights_of = lambda _: PacketNights.of_programs((Program.PUBLIC,))
        survey.add("magpsf < 18.5 OR drb > 0.5", programs=ALL, cap=2)
        for night in range(3):
            for program in programs:
                made = (packet(100 * night + 10 * program + k, jd=JD + night, magpsf=16.0 + k) for k in range(6))
                put(survey.root, *made, night=20251121 + night, program=program)
        survey.run()
        marks = FilterMarks(survey.root)
        counts = [replace(count, cpu_s=0.0) for count in marks.counts()]
        told.append((survey.waiting(), counts, marks.fates()))
        marks.close()
    assert told[0] == told[1]
    assert told[0][0] != []


def test_packets_that_no_filter_may_see_are_not_opened(survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    survey.add("magpsf < 30")
    put(survey.root, packet(1))
    put(survey.root, packet(2), program=3)
    opened: list[int] = []
    read = AlertLog.read
    monkeypatch.setattr(AlertLog, "read", lambda log, entry: (opened.append(entry.candid), read(log, entry))[1])
    survey.run()
    assert opened == [1]


def test_of_one_exposure_the_best_pass_and_the_others_are_counted(survey: Survey) -> None:
    survey.add("magpsf < 30", cap=2)
    survey.add("magpsf < 30", name="faint", cap=1, order_by="magpsf")
    survey.add("magpsf < 30", name="bright", cap=1, order_by="magpsf", is_ascending=True)
    scores = {1: 0.5, 2: 0.9, 3: None, 4: 0.7}
    put(survey.root, *(packet(k, rb=score, magpsf=15.0 + k) for k, score in scores.items()))
    put(survey.root, packet(5, jd=JD + 0.001), packet(6, jd=JD + 0.001))
    receipt = survey.run()
    assert survey.waiting() == [2, 4, 5, 6]
    assert survey.waiting("filter_alice_faint") == [4, 5]
    assert survey.waiting("filter_alice_bright") == [1, 5]
    assert receipt.n_capped == 2 + 4 + 4


def test_a_cap_is_that_of_the_exposure_not_of_its_detectors(survey: Survey) -> None:
    survey.add("magpsf < 30", cap=2)
    put(survey.root, packet(1), packet(2, rb=0.95), packet(3))
    survey.run()
    put(survey.root, packet(4, rb=0.99))
    survey.run()
    assert survey.waiting() == [1, 2]


def test_a_slow_filter_is_paused_and_the_others_go_on(survey: Survey) -> None:
    survey.add("magpsf < 30", name="slow")
    survey.add("magpsf < 30", name="swift")
    put(survey.root, packet(1))
    ticks = iter([0.0, 9.0, 9.0, 9.001])
    receipt = survey.run(clock=lambda: next(ticks))
    assert list(receipt.paused) == ["alice/slow version 1"]
    assert survey.state(name="slow") is FilterState.PAUSED
    assert survey.state(name="swift") is FilterState.ACTIVE
    put(survey.root, packet(2))
    survey.run()
    assert survey.waiting("filter_alice_slow") == [1]
    assert survey.waiting("filter_alice_swift") == [1, 2]


def test_a_filter_that_fails_is_paused_with_the_reason(survey: Survey) -> None:
    survey.store.add(FilterRequest("alice", "broken", "no_such_field < 3"))
    survey.add("magpsf < 30")
    put(survey.root, packet(1))
    survey.run()
    assert "no field no_such_field" in survey.store.versions("alice", "broken")[-1].reason
    assert survey.waiting() == [1]


def test_a_filter_whose_owner_is_gone_is_paused(survey: Survey) -> None:
    survey.add("magpsf < 30")
    put(survey.root, packet(1))
    receipt = survey.run(nights_of=nights_of_owners(survey.root, SurveySettings()))
    assert "there is no user alice" in receipt.paused["alice/mine version 1"]
    assert survey.waiting() == []


def test_an_owner_sees_what_the_policy_says_now(survey: Survey) -> None:
    settings = SurveySettings(groups={"team": ("partnership",)})
    readers = ReaderStore.of(survey.root, None)
    readers.add("alice", ["team"])
    survey.add("magpsf < 30", programs=ALL)
    for program in ALL:
        put(survey.root, packet(10 + program), program=program)
    survey.run(nights_of=nights_of_owners(survey.root, settings))
    assert survey.waiting() == [11, 12]
    readers.set_groups("alice", [])
    put(survey.root, packet(22), program=2)
    survey.run(nights_of=nights_of_owners(survey.root, settings))
    assert survey.waiting() == [11, 12]


def test_a_new_version_goes_on_where_the_old_one_stopped(survey: Survey) -> None:
    survey.add("magpsf < 18")
    put(survey.root, packet(1, magpsf=17.0))
    survey.run()
    survey.add("magpsf > 18")
    put(survey.root, packet(2, magpsf=17.0), packet(3, magpsf=19.0))
    survey.run()
    assert survey.waiting() == [1, 3]
    assert [version.state for version in survey.store.versions("alice", "mine")] == ["replaced", "active"]


def test_an_index_made_anew_changes_nothing(survey: Survey) -> None:
    survey.add("magpsf < 30")
    for k in range(1, 4):
        put(survey.root, packet(k), night=20251121 - k)
    survey.run()
    log = AlertLog(survey.root)
    log.rebuild_index()
    log.close()
    assert survey.run().n_alerts == 0
    put(survey.root, packet(9))
    assert survey.run().n_alerts == 1


def test_filters_begin_with_what_comes(survey: Survey) -> None:
    put(survey.root, packet(1))
    marks = FilterMarks(survey.root)
    marks.look_past()
    survey.add("magpsf < 30")
    assert survey.run().n_alerts == 0
    put(survey.root, packet(2))
    assert survey.run().n_alerts == 1


def test_a_look_that_was_killed_finds_the_same_again(survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    survey.add("magpsf < 30", cap=1)
    put(survey.root, packet(1, rb=0.5), packet(2))
    settle = FilterMarks.settle

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FilterMarks, "settle", killed)
    with pytest.raises(KeyboardInterrupt):
        survey.run()
    monkeypatch.setattr(FilterMarks, "settle", settle)
    assert survey.waiting() == []
    survey.run()
    assert survey.waiting() == [2]


def test_a_damaged_packet_is_counted_and_stops_nothing(survey: Survey) -> None:
    survey.add("magpsf < 30")
    put(survey.root, packet(1), packet(2))
    (segment,) = (survey.root / "alerts").glob("*/*/*.tar")
    data = bytearray(segment.read_bytes())
    place = data.index(b"Obj\x01", data.index(b"Obj\x01") + 1)
    data[place + 100 : place + 104] = b"\xff\xff\xff\xff"
    segment.write_bytes(data)
    receipt = survey.run()
    assert receipt.n_unreadable == 1
    assert survey.waiting() == [1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"owner": "Alice"}, "cannot be an owner"),
        ({"name": "my_filter"}, "cannot be a filter's name"),
        ({"cap": 0}, "at least 1"),
        ({"order_by": "objectId"}, "by a number"),
        ({"programs": (Program.ENGINEERING,)}, "public, partnership or private"),
        ({"condition": "magpfs < 3"}, "no field magpfs"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(change: dict[str, object], reason: str) -> None:
    told: dict[str, object] = {"owner": "alice", "name": "mine", "condition": "rb > 0.9"}
    with pytest.raises(ConfigError, match=reason):
        checked(FilterRequest(**(told | change)))  # type: ignore[arg-type]


def test_removed_filters_run_no_more_and_can_be_added_again(survey: Survey) -> None:
    survey.add("magpsf < 30")
    survey.store.set_state("alice", "mine", FilterState.REMOVED)
    put(survey.root, packet(1))
    assert survey.run().n_alerts == 0
    with pytest.raises(ConfigError, match="was removed"):
        survey.store.set_state("alice", "mine", FilterState.ACTIVE)
    survey.add("magpsf < 30")
    assert survey.store.versions("alice", "mine")[-1].version == 2


def test_a_survey_without_filters_is_left_alone(tmp_path: Path) -> None:
    assert run_filters(tmp_path, SurveySettings()) == []
    assert list(tmp_path.iterdir()) == []


def test_a_survey_without_a_stream_asks_its_filters_of_what_is_in_the_log(survey: Survey) -> None:
    ReaderStore.of(survey.root, None).add("alice", [])
    survey.add("magpsf < 18")
    put(survey.root, packet(1, magpsf=17.0), packet(2), sent=False)
    assert run_filters(survey.root, SurveySettings()) == ["filters: 2 alerts, 1 passed, 0 over a cap"]
    assert survey.waiting() == [1]


def test_one_process_at_a_time_asks_the_filters(survey: Survey) -> None:
    survey.add("magpsf < 18")
    put(survey.root, packet(1))
    with (survey.root / "alerts" / "filters.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(TransientError, match="another process asks the filters"):
            run_filters(survey.root, SurveySettings())
