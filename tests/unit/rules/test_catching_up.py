"""After an absence each rule catches up what it says it does: all nights, the last moment, or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gueststar.operations.rules.book import RuleBook
from gueststar.operations.rules.catching_up import catch_up_of
from gueststar.operations.rules.contract import Firing, SurveyFacts
from gueststar.operations.rules.explain import explain_moment
from gueststar.operations.rules.facts import SurveyFactsSource
from gueststar.operations.rules.load import SHIPPED
from gueststar.operations.rules.reading import RulesText
from gueststar.operations.rules.record import FIRED, FIRING, last_fired, write_rules
from gueststar.operations.rules.sun import survey_night
from gueststar.store.repo import SurveyRepo

from .conftest import CAMERA, book_of, clock_rule, complaints_of, unix

MONDAY = unix("2026-01-05T18:00Z")
"""When the survey was first operated: night 20260105."""
BACK = unix("2026-01-11T18:00Z")
"""When somebody is there again: night 20260111."""
EXPOSED = {20260105: 30, 20260106: 0, 20260107: 12, 20260109: 4, 20260110: 30}


def facts(now: float = BACK, **changes: Any) -> SurveyFacts:
    told = {"now": now, "night": survey_night(CAMERA.site, now), "since": MONDAY, "received_by_night": EXPOSED}
    return SurveyFacts(**{**told, **changes})


def rule(more: str, *, do: str = "night_report", when: str = "night_ends", name: str = "it") -> str:
    return f"  - {{name: {name}, description: A rule., when: {when}, do: {do}{more}}}\n"


def rounds(book: RuleBook, fired: dict[str, float], n: int = 30, **changes: Any) -> list[list[tuple[str, int]]]:
    """What fires each time the rules are asked, until nothing does."""
    found = []
    for k in range(n):
        firings = book.due(facts(BACK + 5.0 * k, **changes), fired)
        if not firings:
            break
        found.append([(one.rule, one.night) for one in firings])
        for one in firings:
            fired[one.rule] = fired[one.key] = BACK + 5.0 * k
    return found


def nights(found: list[list[tuple[str, int]]]) -> list[int]:
    return [night for one in found for _, night in one]


def test_the_account_of_every_night_that_had_exposures_is_caught_up_the_last_one_first_then_by_time() -> None:
    found = rounds(book_of("rules:\n" + rule("")), {})
    assert nights(found) == [20260110, 20260105, 20260107, 20260109]


def test_a_night_for_which_it_fired_is_not_caught_up_again() -> None:
    at_its_end = unix("2026-01-08T09:00Z")
    fired = {"it": at_its_end, "it @ night 20260107": at_its_end}
    assert nights(rounds(book_of("rules:\n" + rule("")), fired)) == [20260110, 20260105, 20260109]


def test_conditions_are_of_the_night_that_is_caught_up() -> None:
    found = rounds(book_of("rules:\n" + rule(', only_if: {received: ">= 10"}')), {})
    assert nights(found) == [20260110, 20260105, 20260107]


def test_missed_nights_are_caught_up_as_they_went_one_firing_at_a_time_while_nothing_is_at_work() -> None:
    text = "rules:\n" + rule("", when="{night_ends: {after: 1 h}}", name="account") + rule("", do="movers")
    found = rounds(book_of(text), {})
    assert found[0] == [("account", 20260110), ("it", 20260110)]
    assert found[1:3] == [[("it", 20260105)], [("account", 20260105)]]
    assert all(len(one) == 1 for one in found[1:])
    assert rounds(book_of(text), {"it": BACK, "account": BACK, "it @ night 20260110": BACK,
                                  "account @ night 20260110": BACK}, is_idle=False) == []  # fmt: skip


@pytest.mark.parametrize(("more", "expected"), [(", catch_up: last", [20260110]), (", catch_up: none", [])])
def test_a_rule_may_catch_up_the_last_night_only_or_none(more: str, expected: list[int]) -> None:
    assert nights(rounds(book_of("rules:\n" + rule(more)), {}, present_since=BACK)) == expected


def test_a_restart_at_the_moment_itself_misses_nothing() -> None:
    book = book_of("rules:\n" + rule(", catch_up: none"))
    end = unix("2026-01-11T08:55Z")
    fired = [book.due(facts(end + 60.0 * k, present_since=end + 300.0), {}) for k in range(5, 20)]
    assert any(fired)


def test_what_a_rule_does_tells_what_it_catches_up_unless_it_says_so_itself() -> None:
    book = book_of(SHIPPED.read_text())
    told = {one.name: catch_up_of(one) for one in book.file.rules}
    for name in ("end of night", "moving objects", "coverage", "metrics", "candidates for history", "account"):
        assert told[name] == "all"
    for name in ("sandbox", "archive", "depot", "readiness", "weekly synopsis", "ephemerides"):
        assert told[name] == "last"
    assert told["references"] is None
    assert told["tonight"] is None


def test_nights_before_a_rule_was_in_force_are_not_caught_up_for_it() -> None:
    later = unix("2026-01-08T18:00Z")
    found = rounds(book_of("rules:\n" + rule("")), {}, rules_since={"it": later})
    assert nights(found) == [20260110, 20260109]


def test_a_night_whose_end_nobody_told_ends_with_its_date() -> None:
    found = rounds(book_of("night: {by: signal}\nrules:\n" + rule("")), {})
    assert nights(found) == [20260105, 20260107, 20260109, 20260110]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (clock_rule("{every: {period: week}}", more=", catch_up: all"), "catch_up: all goes with night_begins"),
        (clock_rule("{disk: sandbox}", more=", catch_up: last"), "catch_up is not for disk"),
        (clock_rule("night_ends", more=", catch_up: some"), "'some' is no catch_up; one of all, last, none"),
    ],
)
def test_what_cannot_be_caught_up_is_told(text: str, words: str) -> None:
    (complaint,) = complaints_of(text)
    assert words in complaint


def test_an_explanation_tells_which_nights_are_to_be_caught_up() -> None:
    lines = explain_moment(book_of("rules:\n" + rule("")), facts(), {})
    assert "rule 'it' is due: night 20260110 ends: the sun at -12 deg -> night_report" in lines
    assert "rule 'it' catches up in its turn: night 20260105 ended -> night_report" in lines


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[SurveyRepo]:
    with SurveyRepo.create(tmp_path / "survey", CAMERA) as made:
        yield made


def test_the_diary_knows_for_which_nights_a_rule_fired_and_since_when_it_is_in_force(repo: SurveyRepo) -> None:
    first, second = book_of("rules:\n" + rule("", name="a")), book_of("rules:\n" + rule("", name="a") + rule(""))
    write_rules(repo.ledger, first, now=1000.0)
    write_rules(repo.ledger, RuleBook(second.file, source=RulesText("rules.yaml", "changed"),
                                      nights=second.almanac.nights, zone=second.almanac.zone), now=2000.0)  # fmt: skip
    repo.ledger.event("operator", "started", "process 1", at=2500.0)
    repo.ledger.event(FIRING, "a", "", night=20260105, state=FIRED, occasion="", at=3000.0)
    assert last_fired(repo.ledger)[Firing("a", (), 20260105, occasion="night 20260105").key] == 3000.0
    found = SurveyFactsSource(repo).facts(now=4000.0)
    assert dict(found.rules_since) == {"a": 1000.0, "it": 2000.0}
    assert found.present_since == 2500.0
