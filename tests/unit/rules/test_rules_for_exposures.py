"""Which rule decides about an exposure: the first that matches, with the recipe that its inputs allow."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gueststar.core.errors import ConfigError
from gueststar.model.rights import Program
from gueststar.operations.rules.contract import Decision, Priority, Recipe, Retry
from gueststar.operations.rules.explain import explain_exposure
from gueststar.operations.rules.load import OWN, SHIPPED, load_rules, rules_path
from gueststar.store.operation_settings import OperationSettings

from .conftest import NIGHT, book_of, exposure_facts


def book_with(condition: str, *, more: str = "") -> Any:
    return book_of(f"rules:\n  - {{name: it, description: x, when: {{exposure: {{{condition}}}}}, do: alerts{more}}}")


@pytest.mark.parametrize(
    ("condition", "fits", "does_not"),
    [
        ("type: flat", {"observation_type": "flat"}, {}),
        ("type: [flat, bias]", {"observation_type": "bias"}, {}),
        ("program: partnership", {"program": Program.PARTNERSHIP}, {}),
        ("filter: sim_g", {"physical_filter": "sim_g"}, {}),
        ("band: [g, i]", {"band": "i"}, {}),
        ("field: 600-699", {"field": 699}, {"field": 700}),
        ("field: [12, 600-699]", {"field": 12}, {"field": None}),
        ("night: earlier", {"day_obs": NIGHT - 1}, {}),
        ("night: tonight", {"day_obs": NIGHT + 1}, {"day_obs": NIGHT - 1}),
        ("age: < 12 h", {"age_s": 43199.0}, {"age_s": 43200.0}),
        ("delay: < 10 min", {"delay_s": 599.0}, {"delay_s": 601.0}),
        ("exposure_time: 20 s to 40 s", {}, {"exposure_s": 60.0}),
        ("airmass: < 2", {}, {"airmass": None}),
        ('stars_per_deg2: "> 200000 / deg2"', {"stars_per_deg2": 3e5}, {"stars_per_deg2": None}),
        ("target_of_opportunity: true", {"is_target_of_opportunity": True}, {}),
        ("target_of_opportunity: false", {}, {"is_target_of_opportunity": True}),
        ("object: m*31", {}, {"object_name": "M 33"}),
        ("investigator: [Brahe, ty*]", {}, {"principal_investigator": ""}),
    ],
)
def test_each_condition_is_asked(condition: str, fits: dict[str, Any], does_not: dict[str, Any]) -> None:
    book = book_with(condition)
    assert book.decide(exposure_facts(**fits)).rule == "it"
    assert book.decide(exposure_facts(**does_not)).rule == ""


def test_all_conditions_must_hold() -> None:
    book = book_with("type: science, band: r, field: 612")
    assert book.decide(exposure_facts()).rule == "it"
    assert book.decide(exposure_facts(band="g")).rule == ""


def test_the_first_rule_that_matches_wins_and_disabled_ones_are_passed_over() -> None:
    book = book_of(
        """
        rules:
          - {name: off, description: x, when: exposure, do: archive, enabled: false}
          - {name: narrow, description: x, when: {exposure: {band: r}}, do: images}
          - {name: wide, description: x, when: exposure, do: alerts}
        """
    )
    assert book.decide(exposure_facts()).rule == "narrow"
    assert book.decide(exposure_facts(band="g")).rule == "wide"


BANDS = ("g", "r", "i")


@given(st.permutations([("only g", ["g"]), ("only r", ["r"]), ("blue", ["g", "r"]), ("any", list(BANDS))]))
def test_any_order_of_rules_is_respected(rules: list[tuple[str, list[str]]]) -> None:
    lines = [f"  - {{name: {name}, description: x, when: {{exposure: {{band: [{', '.join(bands)}]}}}}, do: images}}"
             for name, bands in rules]  # fmt: skip
    book = book_of("\n".join(["rules:", *lines]))
    for band in BANDS:
        expected = next(name for name, bands in rules if band in bands)
        assert book.decide(exposure_facts(band=band)).rule == expected


def test_an_exposure_that_no_rule_wants_is_kept_and_the_reason_told() -> None:
    decision = book_with("type: flat").decide(exposure_facts())
    assert (decision.recipe, decision.why) == (Recipe.ARCHIVE, "no rule matches")


FALLING = """, otherwise: [
    {if: {stars_per_deg2: "> 200000 / deg2"}, do: images},
    {if: {missing: reference}, do: images},
    {if: {missing: calibrations}, do: archive}]"""


@pytest.mark.parametrize(
    ("facts", "recipe", "why"),
    [
        ({}, Recipe.ALERTS, ""),
        ({"stars_per_deg2": 3e5}, Recipe.IMAGES, "stars_per_deg2 300000 / deg2: images only"),
        ({"has_reference": False}, Recipe.IMAGES, "no reference: images only"),
        ({"has_calibrations": False}, Recipe.ARCHIVE, "no calibrations: archive only"),
        (
            {"has_reference": False, "has_calibrations": False},
            Recipe.ARCHIVE,
            "no reference: images only; no calibrations: archive only",
        ),
    ],
)
def test_an_exposure_falls_back_as_far_as_what_is_missing_demands(
    facts: dict[str, Any], recipe: Recipe, why: str
) -> None:
    decision = book_with("type: science", more=FALLING.replace("\n", "")).decide(exposure_facts(**facts))
    assert (decision.rule, decision.recipe, decision.why) == ("it", recipe, why)


def test_the_order_of_fallbacks_does_not_raise_what_is_done() -> None:
    more = ", otherwise: [{if: {missing: calibrations}, do: archive}, {if: {missing: reference}, do: images}]"
    facts = exposure_facts(has_reference=False, has_calibrations=False)
    assert book_with("type: science", more=more).decide(facts).recipe is Recipe.ARCHIVE


def test_priority_deadline_and_retry_are_those_of_the_rule() -> None:
    more = ", priority: reprocessing, deadline: 5 min, retry: {attempts: 7, backoff: 1 min}"
    decision = book_with("type: science", more=more).decide(exposure_facts())
    assert decision == Decision("it", Recipe.ALERTS, Priority.REPROCESSING, 300.0, Retry(7, 60.0))


def test_unless_a_rule_says_so_late_exposures_yield_to_tonights() -> None:
    book = book_with("type: science")
    assert book.decide(exposure_facts()).priority is Priority.TONIGHT
    assert book.decide(exposure_facts(day_obs=NIGHT - 1)).priority is Priority.BACKLOG


def test_shipped_rules_know_every_type_of_exposure() -> None:
    book = book_of(SHIPPED.read_text())
    assert book.decide(exposure_facts()).rule == "tonight"
    assert book.decide(exposure_facts(is_target_of_opportunity=True)).rule == "target of opportunity"
    assert book.decide(exposure_facts(day_obs=NIGHT - 3)).rule == "backlog"
    for kind in ("bias", "dark", "flat"):
        facts = exposure_facts(observation_type=kind, ra=None, dec=None)
        assert book.decide(facts).recipe is Recipe.CALIBRATION


def test_an_explanation_names_every_condition_that_did_not_hold_with_its_value() -> None:
    book = book_of(SHIPPED.read_text())
    lines = explain_exposure(book, exposure_facts(day_obs=NIGHT - 1, age_s=90000.0, has_reference=False))
    assert "rule 'tonight' does not match" in lines
    assert "  night earlier is not tonight" in lines
    assert "  fallback images is taken: reference is missing" in lines
    assert lines[-1] == "-> images, priority backlog, at most 3 attempts (no reference: images only)"


def test_a_survey_follows_its_own_rules_else_those_that_ship(tmp_path: Any) -> None:
    settings = OperationSettings()
    assert rules_path(tmp_path, settings) == SHIPPED
    (tmp_path / OWN).write_text("rules: []")
    assert rules_path(tmp_path, settings) == tmp_path / OWN
    named = OperationSettings(rules=tmp_path / "other.yaml")
    assert rules_path(tmp_path, named) == tmp_path / "other.yaml"


def test_rules_are_not_loaded_without_a_survey(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="not a survey"):
        load_rules(tmp_path, OperationSettings())
