"""Rules that follow the clock or the survey's state fire once for each occasion, also after an absence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gueststar.operations.rules.book import RuleBook
from gueststar.operations.rules.coming import next_moment
from gueststar.operations.rules.contract import CalibrationSet, Firing, Priority, Retry, SurveyFacts
from gueststar.operations.rules.explain import explain_moment
from gueststar.operations.rules.load import SHIPPED
from gueststar.operations.rules.sun import survey_night

from .conftest import CAMERA, NIGHT, book_of, clock_rule, unix

Facts = Callable[..., SurveyFacts]

NOON = unix("2026-01-10T16:45Z")
"""Shortly after the local mean noon with which the night begins."""

MORNING = unix("2026-01-11T12:00Z")
"""After the sun has risen above -12 degrees at the camera's site."""


class Operator:
    """Asks the rules as the daemon does, and keeps what fired."""

    def __init__(self, book: RuleBook, facts: Facts) -> None:
        self.book, self.facts = book, facts
        self.fired: dict[str, float] = {}

    def ask(self, now: float, **changes: Any) -> list[Firing]:
        firings = self.book.due(self.facts(now, **changes), self.fired)
        for firing in firings:
            self.fired[firing.rule] = self.fired[firing.key] = now
        return firings

    def run(self, start: float, end: float, *, step_s: float = 300.0, **changes: Any) -> list[tuple[float, Firing]]:
        found, now = [], start
        while now < end:
            found += [(now, firing) for firing in self.ask(now, **changes)]
            now += step_s
        return found


@pytest.fixture
def operated(survey_facts: Facts) -> Callable[[str], Operator]:
    return lambda text, **options: Operator(book_of(text, **options), survey_facts)


# Nights


def test_the_end_of_a_night_fires_once_each_morning_with_its_night(operated: Any) -> None:
    found = operated(clock_rule("night_ends")).run(NOON, NOON + 3 * 86400.0, since=NOON)
    assert [firing.night for _, firing in found] == [20260110, 20260111, 20260112]
    hours = [(time - unix("2026-01-11T00:00Z")) / 3600.0 % 24.0 for time, _ in found]
    assert hours == pytest.approx([8.9] * 3, abs=0.2)  # the sun at -12 degrees over Cerro Tololo, UTC


def test_a_night_is_anticipated_and_followed_by_the_margins_of_a_rule(operated: Any) -> None:
    plain, before, after = (
        operated(clock_rule(when)).run(NOON, NOON + 86400.0, since=NOON, step_s=60.0)[0][0]
        for when in ("night_begins", "{night_begins: {before: 2 h}}", "{night_begins: {after: 30 min}}")
    )
    assert plain - before == pytest.approx(7200.0, abs=61.0)
    assert after - plain == pytest.approx(1800.0, abs=61.0)


def test_who_was_away_for_a_week_catches_up_once_and_for_the_last_night(operated: Any) -> None:
    operator = operated(clock_rule("night_ends"))
    operator.ask(MORNING)
    found = operator.run(MORNING + 7 * 86400.0, MORNING + 7.3 * 86400.0)
    assert [firing.night for _, firing in found] == [20260117]


def test_what_was_before_the_survey_was_operated_is_not_caught_up(operated: Any) -> None:
    operator = operated(clock_rule("night_ends"))
    assert operator.run(MORNING, MORNING + 6 * 3600.0, since=MORNING) == []
    assert [firing.night for _, firing in operator.run(MORNING, MORNING + 86400.0, since=MORNING)] == [20260111]


def test_the_observatorys_signal_ends_the_night_where_the_rules_say_so(operated: Any) -> None:
    operator = operated("night: {by: signal}\n" + clock_rule("night_ends"))
    assert operator.run(NOON, NOON + 86400.0) == []
    came = unix("2026-01-11T03:00Z")
    (firing,) = operator.ask(came, signals=frozenset({"night_ends"}))
    assert firing.night == NIGHT
    assert "signal" in firing.why


def test_of_sun_and_signal_the_first_counts_and_the_other_does_not_fire_again(operated: Any) -> None:
    text = "night: {by: either}\n" + clock_rule("night_ends")
    came = unix("2026-01-11T03:00Z")
    operator = operated(text)
    assert len(operator.ask(came, signal_times={"night_ends": came}, signals=frozenset({"night_ends"}))) == 1
    assert operator.run(came, NOON + 86400.0, signal_times={"night_ends": came}) == []
    late, operator = unix("2026-01-11T10:00Z"), operated(text)
    assert len(operator.run(NOON, late, since=NOON)) == 1
    assert operator.ask(late, signal_times={"night_ends": late}, signals=frozenset({"night_ends"})) == []


def test_a_night_that_was_resumed_after_a_closure_ends_again(operated: Any) -> None:
    operator = operated("night: {by: either}\n" + clock_rule("night_ends"))
    closed, finished = unix("2026-01-11T02:00Z"), unix("2026-01-11T08:30Z")
    for came in (closed, finished):
        (firing,) = operator.ask(came, signal_times={"night_ends": came}, signals=frozenset({"night_ends"}))
        assert firing.night == NIGHT


# Clock


def test_daily_rules_keep_local_time_when_the_clocks_change(operated: Any) -> None:
    operator = operated(clock_rule("{every: {period: day, at: 09:00}}"), zone="America/Los_Angeles")
    start = unix("2026-03-06T00:00-08:00")
    found = [time for time, _ in operator.run(start, start + 4 * 86400.0, since=start)]
    assert found == [unix(f"2026-03-{day:02d}T09:00{zone}") for day, zone in
                     ((6, "-08:00"), (7, "-08:00"), (8, "-07:00"), (9, "-07:00"))]  # fmt: skip


def test_a_time_that_the_clocks_skip_or_repeat_comes_once(operated: Any) -> None:
    for day, at in (("2026-03-08", "02:30"), ("2026-11-01", "01:30")):
        operator = operated(clock_rule(f"{{every: {{period: day, at: {at}}}}}"), zone="America/Los_Angeles")
        start = unix(f"{day}T00:00-08:00")
        assert len(operator.run(start, start + 23 * 3600.0, since=start)) == 1


def test_weeks_and_months_fire_on_their_day(operated: Any) -> None:
    operator = operated(clock_rule("{every: {period: week, weekday: wednesday, at: 12:00}}"))
    start = unix("2026-01-05T00:00Z")
    found = [time for time, _ in operator.run(start, start + 21 * 86400.0, since=start, step_s=3600.0)]
    assert found == [unix(f"2026-01-{day:02d}T12:00Z") for day in (7, 14, 21)]
    operator = operated(clock_rule("{every: {period: month, day: 15}}"))
    found = [time for time, _ in operator.run(start, start + 90 * 86400.0, since=start, step_s=3600.0)]
    assert found == [unix(f"2026-{month:02d}-15T00:00Z") for month in (1, 2, 3)]


def test_intervals_begin_at_once_and_do_not_pile_up(operated: Any) -> None:
    operator = operated(clock_rule("{every: 6 h}"))
    assert len(operator.run(NOON, NOON + 86400.0)) == 4
    assert len(operator.run(NOON + 10 * 86400.0, NOON + 10 * 86400.0 + 3600.0)) == 1


def test_every_ten_days_at_an_hour_counts_from_the_last_time(operated: Any) -> None:
    operator = operated(clock_rule("{every: {period: 10 days, at: 09:00}}"))
    start = unix("2026-01-01T10:00Z")
    found = [time for time, _ in operator.run(start, start + 25 * 86400.0, since=start, step_s=1800.0)]
    assert found == [unix("2026-01-02T09:00Z"), unix("2026-01-12T09:00Z"), unix("2026-01-22T09:00Z")]


def test_each_night_fires_once_when_its_number_changes(operated: Any) -> None:
    found = operated(clock_rule("{every: night}")).run(NOON, NOON + 2.9 * 86400.0, since=NOON - 86400.0)
    assert [firing.night for _, firing in found] == [20260110, 20260111, 20260112]


@pytest.mark.parametrize(
    "when",
    [
        "night_ends",
        "{every: {period: day, at: 09:00}}",
        "{every: night}",
        "{every: 6 h}",
        "{night_begins: {before: 1 h}}",
    ],
)
def test_a_clock_that_steps_back_fires_nothing_twice(operated: Any, when: str) -> None:
    operator = operated(clock_rule(when))
    before = operator.run(NOON, NOON + 86400.0, since=NOON - 86400.0)
    again = operator.run(NOON + 86400.0 - 3 * 3600.0, NOON + 86400.0, since=NOON - 86400.0)
    assert before
    assert again == []


def test_a_clock_that_was_years_ahead_does_not_silence_the_rules(operated: Any) -> None:
    operator = operated(clock_rule("night_ends"))
    operator.ask(MORNING + 3650 * 86400.0)
    assert len(operator.run(MORNING, MORNING + 3600.0)) == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.0, 40.0 * 86400.0), min_size=1, max_size=40))
def test_whenever_it_is_asked_a_rule_fires_at_most_once_a_day(moments: list[float]) -> None:
    def facts(now: float) -> SurveyFacts:
        return SurveyFacts(now=now, night=survey_night(CAMERA.site, now))

    operator = Operator(book_of(clock_rule("{every: {period: day, at: 09:00}}")), facts)
    days: list[int] = []
    for moment in sorted(moments):
        now = unix("2026-01-01T00:00Z") + moment
        days += [int((now - 9 * 3600.0) // 86400.0)] * len(operator.ask(now))
    assert len(days) == len(set(days))


# Conditions besides


def test_a_rule_waits_until_the_rest_of_its_conditions_holds_and_then_fires_once(operated: Any) -> None:
    operator = operated(clock_rule("night_ends", more=', only_if: {received: ">= 10", idle: true}'))
    poor, good = {NIGHT: 9}, {NIGHT: 12}
    assert operator.ask(MORNING, received_by_night=poor) == []
    assert operator.ask(MORNING + 60.0, received_by_night=good, is_idle=False) == []
    assert len(operator.ask(MORNING + 120.0, received_by_night=good)) == 1
    assert operator.ask(MORNING + 180.0, received_by_night=good) == []


def test_exposures_count_for_the_night_that_a_rule_concerns(operated: Any) -> None:
    operator = operated(clock_rule("night_ends", more=', only_if: {received: ">= 10"}'))
    afternoon = unix("2026-01-11T18:00Z")
    assert operator.ask(afternoon, received=99) == []  # those are of the coming night
    assert len(operator.ask(afternoon, received=0, received_by_night={NIGHT: 12})) == 1


@pytest.mark.parametrize(
    ("besides", "holds", "does_not"),
    [
        ('sun_altitude: "> 0 deg"', {"sun_altitude_deg": 10.0}, {"sun_altitude_deg": None}),
        ("sandbox_free: < 10 GB", {"free_gb": {"sandbox": 5.0}}, {"free_gb": {}}),
        ('archive_free: ">= 1 TB"', {"free_gb": {"archive": 1000.0}}, {"free_gb": {"archive": 999.0}}),
        ("idle: false", {"is_idle": False}, {"is_idle": True}),
    ],
)
def test_what_cannot_be_told_does_not_hold(
    operated: Any, besides: str, holds: dict[str, Any], does_not: dict[str, Any]
) -> None:
    operator = operated(clock_rule("night_ends", more=f", only_if: {{{besides}}}"))
    assert operator.ask(MORNING, **does_not) == []
    assert len(operator.ask(MORNING, **holds)) == 1


# State of the survey


def test_a_calibration_set_is_complete_when_no_frame_follows(operated: Any) -> None:
    operator = operated(clock_rule("{calibration_set: {kinds: [bias, flat], quiet_for: 10 min, at_least: 3}}"))

    def frames(**counts: int) -> list[CalibrationSet]:
        return [CalibrationSet(NIGHT, kind, n, NOON + 60.0 * n) for kind, n in counts.items()]

    assert operator.ask(NOON + 300.0, calibration_sets=frames(bias=2)) == []
    assert operator.ask(NOON + 800.0, calibration_sets=frames(bias=2)) == []  # too few
    assert operator.ask(NOON + 800.0, calibration_sets=frames(bias=5)) == []  # more may follow
    (firing,) = operator.ask(NOON + 1000.0, calibration_sets=frames(bias=5, dark=9))
    assert (firing.night, firing.why.startswith("5 bias frames")) == (NIGHT, True)
    assert operator.ask(NOON + 1300.0, calibration_sets=frames(bias=5)) == []
    assert len(operator.ask(NOON + 4000.0, calibration_sets=frames(bias=5, flat=20))) == 1


def test_good_epochs_fire_at_each_count_once_for_each_field_and_band(operated: Any) -> None:
    operator = operated(clock_rule("{good_epochs: {reach: [5, 10]}}"))
    assert operator.ask(NOON, good_epochs={(1, "r"): 4}) == []
    (firing,) = operator.ask(NOON, good_epochs={(1, "r"): 5, (1, "g"): 6, (2, "r"): 1})
    assert firing.why == "field 1 has 6 good epochs in g and 1 more"
    assert operator.ask(NOON, good_epochs={(1, "r"): 9, (1, "g"): 6, (2, "r"): 1}) == []
    (firing,) = operator.ask(NOON, good_epochs={(1, "r"): 12, (1, "g"): 6, (2, "r"): 1})
    assert firing.why == "field 1 has 12 good epochs in r"


def test_good_epochs_concern_the_night_of_the_newest(operated: Any) -> None:
    operator = operated(clock_rule("{good_epochs: {reach: 5}}"))
    nights = {(1, "r"): 20260105, (2, "r"): 20260107, (3, "r"): 20260105}
    found = operator.ask(NOON, good_epochs=dict.fromkeys(nights, 5), epoch_nights=nights)
    assert [(firing.night, firing.occasion) for firing in found] == [(20260105, "1 r 5; 3 r 5"), (20260107, "2 r 5")]


def test_a_disk_below_its_mark_fires_again_only_after_a_while(operated: Any) -> None:
    operator = operated(clock_rule("{disk: {disk: sandbox, again_after: 2 h}}"))
    assert operator.ask(NOON, free_gb={"sandbox": 21.0}) == []
    (firing,) = operator.ask(NOON, free_gb={"sandbox": 19.0})
    assert "19.0 GB free, below 20 GB" in firing.why
    assert len(operator.run(NOON, NOON + 4.1 * 3600.0, free_gb={"sandbox": 19.0})) == 2
    assert operated(clock_rule("{disk: {disk: archive, below: 1 TB}}")).ask(NOON, free_gb={"archive": 999.0})


def test_idleness_fires_once_a_stretch(operated: Any) -> None:
    operator = operated(clock_rule("{idle: 30 min}"))
    assert operator.ask(NOON, is_idle=False) == []
    assert operator.ask(NOON + 1000.0, idle_since=NOON) == []
    assert len(operator.run(NOON + 1800.0, NOON + 86400.0, idle_since=NOON)) == 1
    assert len(operator.ask(NOON + 200000.0, idle_since=NOON + 190000.0)) == 1


def test_a_signal_fires_when_it_comes(operated: Any) -> None:
    operator = operated(clock_rule("{signal: dome_closed}"))
    assert operator.ask(NOON, signals=frozenset({"night_ends"})) == []
    assert len(operator.ask(NOON, signals=frozenset({"dome_closed"}))) == 1


# Planned downtimes

DOWN = """
    time_zone: America/Santiago
    maintenance:
      - {start: 2026-01-10 15:00, end: 2026-01-10 17:00, reason: new disks}
    rules:
      - {name: hourly, description: x, when: {every: 1 h}, do: readiness}
      - {name: begins, description: x, when: {maintenance: begins}, do: maintenance}
      - {name: ends, description: x, when: {maintenance: ends}, do: readiness}
"""


def test_during_a_planned_downtime_other_rules_wait_and_then_catch_up_once(operated: Any) -> None:
    operator = operated(DOWN)
    start, end = unix("2026-01-10T18:00Z"), unix("2026-01-10T20:00Z")
    assert [(window.start, window.end) for window in operator.book.maintenance] == [(start, end)]
    assert operator.book.maintenance_at(start - 1.0) is None
    assert operator.book.maintenance_at(start).reason == "new disks"
    assert operator.book.maintenance_at(end) is None
    found = operator.run(start - 600.0, end + 900.0, since=start - 86400.0)
    told = [(round((time - start) / 60.0), firing.rule) for time, firing in found]
    assert told == [(-10, "hourly"), (0, "begins"), (120, "hourly"), (120, "ends")]


def test_a_downtime_that_passed_unseen_only_ends(operated: Any) -> None:
    operator = operated(DOWN)
    found = operator.ask(unix("2026-01-12T00:00Z"))
    assert [firing.rule for firing in found] == ["hourly", "ends"]


# All together


def test_firings_carry_what_their_rule_says_in_the_order_of_the_rules(operated: Any) -> None:
    operator = operated(
        """
        rules:
          - {name: b, description: x, when: {every: 1 h}, do: [readiness, {clean_sandbox: {keep_nights: 3}}],
             priority: reprocessing, deadline: 1 h, retry: {attempts: 2, backoff: 5 s}}
          - {name: a, description: x, when: {every: 1 h}, do: readiness}
          - {name: c, description: x, when: {every: 1 h}, do: readiness, enabled: false}
        """
    )
    first, second = operator.ask(NOON)
    assert (first.rule, second.rule, second.priority) == ("b", "a", Priority.DAYTIME)
    assert first.actions == (("readiness", {}), ("clean_sandbox", {"keep_nights": 3}))
    assert (first.priority, first.deadline_s, first.retry) == (Priority.REPROCESSING, 3600.0, Retry(2, 5.0))


def test_shipped_rules_do_each_thing_of_the_day_once_a_night(operated: Any) -> None:
    operator = operated(SHIPPED.read_text())
    nights = {20260110 + n: 300 for n in range(3)}
    found = operator.run(NOON, NOON + 2 * 86400.0, since=NOON, received_by_night=nights)
    counted: dict[str, list[int]] = {}
    for _, firing in found:
        counted.setdefault(firing.rule, []).append(firing.night)
    for rule in (
        "account",
        "moving objects",
        "coverage",
        "ephemerides",
        "sandbox",
        "depot",
        "archive disk",
        "readiness",
    ):
        assert len(set(counted[rule])) == len(counted[rule]) == 2
    order = [firing.rule for _, firing in found]
    assert order.index("readiness") < order.index("end of night") < order.index("account") < order.index("sandbox")


def test_an_explanation_tells_what_is_due_what_waits_and_what_is_not_due(operated: Any, survey_facts: Facts) -> None:
    book = book_of(SHIPPED.read_text())
    facts = survey_facts(MORNING, received_by_night={NIGHT: 3}, sun_altitude_deg=25.0)
    text = "\n".join(explain_moment(book, facts, {"account": MORNING, f"account @ night {NIGHT}": MORNING}))
    assert "rule 'end of night' is due: night 20260110 ends: the sun at -12 deg" in text
    assert "rule 'moving objects' waits" in text
    assert "  received 3 is not >= 10" in text
    assert "rule 'account' is not due: 1 h after night ends; it fired last at 2026-01-11 12:00:00 UTC; next at" in text


@pytest.mark.parametrize(
    "when",
    [
        "night_ends", "{night_begins: {before: 2 h}}", "{every: night}", "{every: 6 h}",
        "{every: {period: day, at: 09:00}}", "{every: {period: week, weekday: friday, at: 09:00}}",
        "{every: {period: month, day: 12}}", "{every: {period: 3 days, at: 09:00}}",
    ],
)  # fmt: skip
def test_what_is_told_to_come_next_comes_then_and_not_before(operated: Any, when: str) -> None:
    operator = operated(clock_rule(when))
    operator.ask(NOON)
    (rule,) = operator.book.for_the_clock
    coming = next_moment(rule.when, operator.book.almanac, now=NOON, last=operator.fired.get("it"))
    assert coming is not None
    assert operator.run(NOON, coming - 1.0, step_s=3600.0) == []
    assert len(operator.ask(coming + 1.0)) == 1


def test_nobody_knows_when_a_signal_comes_or_a_disk_is_full(operated: Any) -> None:
    for when in ("{signal: a}", "{disk: sandbox}", "{idle: 5 min}", "{maintenance: begins}"):
        book = operated(clock_rule(when)).book
        assert next_moment(book.for_the_clock[0].when, book.almanac, now=NOON, last=None) is None
