"""What rules fire is carried out to its end, also when the operator is killed in between."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gueststar.core.errors import DataError, TransientError
from gueststar.operations.actions.contract import ActionContext, ActionResult, Condition
from gueststar.operations.operator.control import give_signal
from gueststar.operations.operator.daemon import Operator
from gueststar.operations.rules.contract import Firing, Retry
from gueststar.store.alarms import Alarms
from gueststar.store.repo import SurveyRepo

from ._rehearsal import EVENING, ToldEngine, go_round, info, make_repo, operator_of, receive


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[SurveyRepo]:
    with make_repo(tmp_path / "survey", queue={"calibrations_quiet_s": 0.0, "patience_s": 0.0}) as made:
        yield made


class Diary:
    """Actions that write down that they ran."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, int]] = []
        self.troubles: list[Exception] = []

    def __call__(self, context: ActionContext) -> ActionResult:
        self.ran.append((context.arguments["name"], context.night))
        if self.troubles:
            raise self.troubles.pop(0)
        wrong = Condition("archive_away", "disk", "broken" in context.arguments, "no archive", "critical")
        return ActionResult("done", "it was done", {"n": 1}, (wrong,))


def operated(repo: SurveyRepo, diary: Diary) -> Operator:
    operator = operator_of(repo, ToldEngine(), actions=dict.fromkeys("abc", diary))
    operator.start()
    return operator


def firing(*names: str, **more) -> Firing:
    return Firing("a rule", [(name, {"name": name}) for name in names], 20230224, **more)


def until_quiet(operator: Operator) -> None:
    end = time.monotonic() + 5.0
    while len(operator.firings) and time.monotonic() < end:
        go_round(operator)
        time.sleep(0.005)
    assert not len(operator.firings)


def ends(repo: SurveyRepo) -> list[tuple[str, str]]:
    return [
        (event.data["actions"][0], event.data["state"])
        for event in repo.ledger.events(what="rule", subject="a rule")
        if event.data["state"] != "fired"
    ]


def test_actions_of_a_firing_run_one_after_the_other_and_are_written_down(repo: SurveyRepo) -> None:
    operator = operated(repo, diary := Diary())
    operator.firings.fire(firing("a", "b"))
    until_quiet(operator)
    assert diary.ran == [("a", 20230224), ("b", 20230224)]
    assert ends(repo) == [("a", "done"), ("b", "done")]


def test_a_failure_of_the_world_is_tried_again_and_that_of_data_is_not(repo: SurveyRepo) -> None:
    operator = operated(repo, diary := Diary())
    diary.troubles = [TransientError("server away"), TransientError("server away"), DataError("no such list")]
    operator.firings.fire(firing("a", "b", retry=Retry(3, 0.0)))
    until_quiet(operator)
    assert [name for name, _ in diary.ran] == ["a", "a", "a", "b"]
    assert ends(repo) == [("a", "failed"), ("b", "done")]
    assert [alarm.kind for alarm in Alarms(repo.ledger).open()] == ["action_failed"]


def test_a_firing_goes_on_after_a_kill_where_it_stood(repo: SurveyRepo) -> None:
    first = operated(repo, Diary())
    first.firings.fire(firing("a", "b", "c"))
    while not ends(repo):
        go_round(first)
    again = operated(repo, diary := Diary())
    until_quiet(again)
    assert {name for name, _ in diary.ran} <= {"b", "c"}
    assert ("c", 20230224) in diary.ran
    assert again.firings.last_fired["a rule"] == pytest.approx(first.firings.last_fired["a rule"], abs=1.0)
    last = operated(repo, diary := Diary())
    until_quiet(last)
    assert diary.ran == []


def nothing_to_do(context: ActionContext) -> ActionResult:
    return ActionResult("nothing", "too few images", is_last=True)


def test_what_has_no_purpose_after_an_action_is_left_out_and_told_also_after_a_kill(repo: SurveyRepo) -> None:
    first = operator_of(repo, ToldEngine(), actions={"a": nothing_to_do, "b": Diary(), "c": Diary()})
    first.start()
    first.firings.fire(firing("a", "b", "c"))
    until_quiet(first)
    assert ends(repo) == [("a", "nothing"), ("b", "left out"), ("c", "left out")]
    texts = [event.text for event in repo.ledger.events(what="rule", subject="a rule")]
    assert texts[-1] == "c: left out: there is nothing for it to do after a"
    again = operated(repo, diary := Diary())
    until_quiet(again)
    assert diary.ran == []


def test_what_an_action_sees_becomes_an_alarm_and_ceases_to_be_one(repo: SurveyRepo) -> None:
    operator = operated(repo, Diary())
    operator.firings.fire(Firing("a rule", [("a", {"name": "a", "broken": True})], 20230224))
    until_quiet(operator)
    assert [(alarm.kind, alarm.subject) for alarm in Alarms(repo.ledger).open()] == [("archive_away", "disk")]
    operator.firings.fire(firing("a"))
    until_quiet(operator)
    assert Alarms(repo.ledger).open() == []


def test_a_bug_in_an_action_stops_nothing(repo: SurveyRepo) -> None:
    operator = operated(repo, diary := Diary())
    diary.troubles = [ZeroDivisionError("a bug")]
    operator.firings.fire(firing("a", "b"))
    until_quiet(operator)
    assert ends(repo) == [("a", "failed"), ("b", "done")]


def test_a_name_that_is_no_action_fails_and_says_so(repo: SurveyRepo) -> None:
    operator = operated(repo, Diary())
    operator.firings.fire(Firing("a rule", [("bake", {})], 20230224))
    until_quiet(operator)
    (event,) = [event for event in repo.ledger.events(what="rule") if event.data["state"] == "failed"]
    assert "'bake' is no action" in event.text


def test_what_follows_a_night_that_is_over_follows_when_its_images_are_done(repo: SurveyRepo) -> None:
    receive(repo, info(0))
    operator = operator_of(repo, ToldEngine(), at=EVENING + 3.0)
    operator.start()
    until_idle(operator)
    names = [
        event.data["actions"][0] for event in repo.ledger.events(what="rule", subject="nights that are over")
        if event.data["state"] != "fired"
    ]  # fmt: skip
    assert names == ["references", "movers", "precover", "learn", "inject", "close"]
    assert [event.subject for event in repo.ledger.events(what="closed")] == [str(info(0).day_obs)]
    again = operator_of(repo, ToldEngine(), at=EVENING + 3.0)
    again.start()
    until_idle(again)
    assert len(repo.ledger.events(what="closed")) == 1


def until_idle(operator: Operator) -> None:
    end = time.monotonic() + 10.0
    while not (operator.is_idle and not operator.nights.to_close()) and time.monotonic() < end:
        go_round(operator)
        time.sleep(0.005)


def test_a_signal_that_the_night_ends_ends_it(repo: SurveyRepo) -> None:
    operator = operated(repo, Diary())
    night = info(0).day_obs
    assert not operator.nights.is_over(night)
    assert operator.nights.is_over(night - 1)
    give_signal(repo.root, "night_ends")
    operator.guarded_turn()
    assert operator.nights.is_over(night)
