"""What may be written in rules.yaml, and what is said of the rest: file, line, rule, key, value and mend."""

from __future__ import annotations

import pytest
from astropy import units as u

from gueststar.operations.actions.catalog import ACTIONS
from gueststar.operations.rules.action_names import HOUSEKEEPING, PIPELINES
from gueststar.operations.rules.load import SHIPPED, check_rules
from gueststar.operations.rules.quantities import duration_text, number_in, range_in
from gueststar.operations.rules.reading import read_text

from .conftest import CAMERA, book_of, complaints_of

EXPOSURE = "rules:\n  - {{name: tonight, description: x, when: {{exposure: {{{}}}}}, do: alerts}}\n"
CLOCK = "rules:\n  - {{name: it, description: x, when: {{{}}}, do: readiness}}\n"


def test_the_shipped_rules_can_be_followed_and_are_all_enabled() -> None:
    checked = check_rules(read_text(SHIPPED), CAMERA)
    assert checked.complaints == ()
    assert checked.file is not None
    assert all(rule.enabled and rule.description for rule in checked.file.rules)


def test_the_shipped_rules_have_all_items_of_the_day_in_the_life() -> None:
    text = SHIPPED.read_text()
    for item in range(1, 15):
        assert f"[{item}]" in text or f"[{item}," in text or f", {item}]" in text, f"item {item} has no rule"


def test_the_actions_that_may_be_named_are_those_there_are() -> None:
    assert set(ACTIONS) == set(HOUSEKEEPING)
    assert not set(HOUSEKEEPING) & set(PIPELINES)


def test_arguments_of_actions_are_checked_with_the_rules() -> None:
    (told,) = complaints_of(CLOCK.format("night_ends: {}").replace("readiness", "[{clean_sandbox: {keep: 3}}]"))
    assert "rule 'it': do: clean_sandbox: argument 'keep': is no argument here; arguments are below_gb" in told
    (told,) = complaints_of(CLOCK.format("night_ends: {}").replace("readiness", "{clean_sandbox: {keep_nights: few}}"))
    assert "argument 'keep_nights': 'few': input should be a valid integer" in told
    assert complaints_of(CLOCK.format("night_ends: {}").replace("readiness", "{clean_sandbox: {keep_nights: 3}}")) == []


def test_a_wrong_value_is_told_with_file_line_rule_key_value_and_what_is_right() -> None:
    assert complaints_of(EXPOSURE.format("type: sciense")) == [
        "rules.yaml:2: rule 'tonight': when.exposure.type: 'sciense' is no type; one of science, bias, dark, flat"
    ]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("agee: 3", "agee: is no key here; did you mean age?"),
        ("age: 12 h", "'12 h' is no comparison: write < 10 min, > 10 min or 10 min to ..."),
        ("age: < 12", "'12' has no unit: write 10 min"),
        ("age: < 12 GB", "'12 GB' has another unit: write 10 min"),
        ("exposure_time: 2 min to 30 s", "is empty: the lower bound comes first"),
        ("band: gg", "'gg' is no band of camera simcam; one of g, i, r"),
        ("filter: [sim_r, sim_x]", "'sim_x' is no filter of camera simcam"),
        ("field: 9-3", "'9-3' is empty"),
        ("program: secret", "'secret' is no program; one of engineering, public, partnership, private"),
    ],
)
def test_wrong_conditions_on_exposures_are_named(written: str, said: str) -> None:
    (told,) = complaints_of(EXPOSURE.format(written))
    assert told.startswith("rules.yaml:2: rule 'tonight': when.exposure.")
    assert said in told


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("every: 6", "6 is no period"),
        ("every: {period: 6 h, at: 14:00}", "at goes with periods of whole days"),
        ("every: {period: day, at: 25:00}", "'25:00' is no time of day: write 14:00"),
        ("every: {period: day, weekday: monday}", "weekday goes with the period week"),
        ("every: {period: week, weekday: mondag}", "'mondag' is no weekday"),
        ("night_ends: {after: 1 h, before: 1 h}", "before and after cannot both be given"),
        ("good_epochs: {reach: 0}", "greater than or equal to 1"),
        ("disk: {below: 5 min}", "'5 min' has another unit: write 50 GB"),
        ("nights_end: {}", "did you mean night_ends?"),
        ("signal: a, idle: 5 min", "needs one trigger, has signal and idle"),
        ("maintenance: starts", "'starts' is no maintenance; one of begins, ends"),
    ],
)
def test_wrong_triggers_are_named(written: str, said: str) -> None:
    (told,) = complaints_of(CLOCK.format(written))
    assert said in told


def test_all_that_is_wrong_is_told_at_once() -> None:
    told = complaints_of(
        """
        maintenence: []
        rules:
          - name: a
            when: {exposure: {type: sciense}}
            do: alerts
          - name: b
            description: x
            dedline: 5 min
            when: night_ends
            do: [readiness, {clean_sandbox: {raw: true}, other: {}}]
        """
    )
    assert len(told) == 5
    assert "rules.yaml:4: rule 'a': description: is missing" in told
    assert "rules.yaml:9: rule 'b': dedline: is no key here; did you mean deadline?" in told
    assert "rules.yaml:2: maintenence: is no key here; did you mean maintenance?" in told


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules: [", "this is not YAML"),
        ("- 1", "holds no rules"),
        ("rules: []", "at least 1 item"),
        ("time_zone: Mars/Olympus\nrules: []", "'Mars/Olympus' is no time zone"),
        (
            "rules:\n- name: a\n  name: b\n  description: x\n  when: night_ends\n  do: readiness",
            "name: is written twice",
        ),
        ("rules:\n- {name: a, description: x, when: night_ends, do: readines}", "did you mean readiness?"),
        ("rules:\n- {name: a, description: x, when: night_ends, do: readiness, otherwise: []}", ""),
        ("rules:\n- {name: a, description: x, when: exposure, do: readiness}", "is no recipe"),
        (
            "rules:\n- {name: a, description: x, when: exposure, do: alerts, only_if: {idle: true}}",
            "only_if is not for",
        ),
        ("rules:\n- {name: a, description: x, when: every, do: readiness}", "is no trigger that stands alone"),
        (
            "rules:\n- {name: a, description: x, when: exposure, do: images, "
            "otherwise: [{if: {missing: reference}, do: alerts}]}",
            "does more than images",
        ),
        (
            "rules:\n- &r {name: a, description: x, when: night_ends, do: readiness}\n- *r",
            "two rules are called 'a'",
        ),
        ("maintenance: [{start: 2026-03-01, end: 2026-02-01, reason: x}]\nrules: []", "before it starts"),
        ("maintenance: [{start: soon, end: 2026-02-01, reason: x}]\nrules: []", "'soon' is no date and time"),
    ],
)
def test_other_mistakes_are_told(text: str, said: str) -> None:
    told = complaints_of(text)
    assert bool(told) is bool(said)
    assert said in "\n".join(told)


def test_words_of_yaml_are_what_they_look_like() -> None:
    book = book_of(
        """
        rules:
          - {name: weekly, description: x, when: {every: {period: week, weekday: monday, at: 14:00}}, do: readiness}
          - {name: off, description: x, when: {signal: on}, do: {night_report: {since: 2026-01-01, level: off, n: 5}}}
        """
    )
    assert book.file.rules[0].when.every.at == "14:00"
    assert book.file.rules[1].when.signal == "on"
    assert book.file.rules[1].do == (("night_report", {"since": "2026-01-01", "level": "off", "n": 5}),)


def test_quantities_are_read_in_any_unit_and_in_words() -> None:
    assert number_in("10 min", u.s) == number_in("600 s", u.s) == number_in("10 minutes", u.s) == 600.0
    assert number_in("7 days", u.s) == number_in("1 week", u.s) == 604800.0
    assert number_in("2 TB", u.Gbyte) == 2000.0
    assert number_in("720 arcmin", u.deg) == pytest.approx(12.0)
    assert number_in(0, u.s) == 0.0
    for wrong in ("soon", "nan s", "10", "", None, True):
        with pytest.raises(ValueError, match="write 10 min"):
            number_in(wrong, u.s)


def test_ranges_hold_their_bounds_as_they_are_written() -> None:
    assert 600.0 not in range_in("< 10 min", u.s)
    assert 600.0 in range_in("<= 10 min", u.s)
    assert 600.0 in range_in(">= 10 min", u.s)
    assert 30.0 in range_in("30 s to 2 min", u.s)
    assert 121.0 not in range_in("30 s to 2 min", u.s)
    assert None not in range_in("< 10 min", u.s)


def test_durations_are_said_as_people_do() -> None:
    said = [duration_text(value) for value in (5.0, 60.0, 90.0, 600.0, 3600.0, 5400.0, 86400.0, 864000.0)]
    assert said == ["5 s", "1 min", "90 s", "10 min", "1 h", "90 min", "1 d", "10 d"]
