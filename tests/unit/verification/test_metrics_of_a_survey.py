"""Named metrics of a survey whose catalogs have a known scatter, and what the ledger keeps of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from gueststar.cli.metrics import command
from gueststar.core.errors import AccessDenied, ConfigError
from gueststar.operations.actions.contract import ActionContext
from gueststar.operations.actions.measure_metrics import measure_metrics
from gueststar.operations.metrics.definitions import BY_NAME, DEFINITIONS
from gueststar.operations.metrics.measure import measure_survey
from gueststar.operations.metrics.text import compared
from gueststar.store.metric_values import MetricValue, MetricValues
from gueststar.store.repo import SurveyRepo
from gueststar.store.visible import open_as

from .conftest import CATALOG_MAS, CATALOG_MMAG, MAS, MMAG, NIGHTS, ZERO_POINT_MMAG, Known


@pytest.fixture(scope="module")
def values(known: Known) -> dict[tuple[str, str], MetricValue]:
    with SurveyRepo.open(known.root) as repo:
        return {(item.name, item.scope): item for item in measure_survey(repo, version="9.9", now=1.0)}


def test_every_named_metric_has_a_value_or_a_reason(values: dict[tuple[str, str], MetricValue]) -> None:
    assert {name for name, _ in values} == set(BY_NAME)
    for item in values.values():
        assert item.value is not None or item.data["why"]


@pytest.mark.parametrize(
    ("name", "truth", "tolerance"),
    [
        ("PA1", float(np.hypot(MMAG, ZERO_POINT_MMAG)), 4.0), ("PA3", ZERO_POINT_MMAG, 5.0), ("AM1", MAS * 2**0.5, 0.5),
        ("AM2", MAS * 2**0.5, 0.5), ("AA1", CATALOG_MAS, 0.3), ("PA6", CATALOG_MMAG, 6.0), ("depth", 20.57, 0.1),
        ("image_quality", 2.0, 1e-6),
    ],
)  # fmt: skip
def test_a_metric_is_what_the_catalogs_were_made_with(
    values: dict[tuple[str, str], MetricValue], name: str, truth: float, tolerance: float
) -> None:
    found = values[name, "band=r"]
    assert found.value == pytest.approx(truth, abs=tolerance)
    assert found.n >= 8


def test_what_cannot_be_measured_says_why(values: dict[tuple[str, str], MetricValue]) -> None:
    assert values["AM3", "band=r"].value is None
    assert "0 pairs" in values["AM3", "band=r"].data["why"]
    assert "no image" in values["TE1", "band=g"].data["why"]
    assert "artificial" in values["completeness", ""].data["why"]


def test_the_expected_share_of_artefacts_follows_from_the_scores(values: dict[tuple[str, str], MetricValue]) -> None:
    assert values["false_alerts", ""].value == pytest.approx(15.0)
    assert values["accounted", ""].value == 100.0


def test_a_metric_of_a_night_is_kept_beside_that_of_the_survey(survey: SurveyRepo) -> None:
    measure_survey(survey, night=NIGHTS[1], version="9.9", now=2.0, names=["depth"])
    history = MetricValues(survey.ledger)
    assert {item.scope for item in history.history("depth", day_obs=NIGHTS[1])} == {"band=g", "band=r"}
    assert all(item.day_obs == NIGHTS[1] for item in history.latest(nightly=True))
    with pytest.raises(ConfigError, match="20250101"):
        measure_survey(survey, night=20250101, now=0.0)


def test_versions_are_compared_on_what_both_measured(survey: SurveyRepo) -> None:
    history = MetricValues(survey.ledger)
    made = [
        MetricValue("AM1", None, "band=r", 12.0, 100, "1.0", 1.0, {"error": 0.3}),
        MetricValue("AM1", None, "band=r", 8.0, 100, "2.0", 2.0, {"error": 0.4}),
        MetricValue("depth", None, "band=r", 20.0, 100, "1.0", 1.0, {}),
        MetricValue("depth", None, "band=r", 19.0, 100, "2.0", 2.0, {}),
        MetricValue("PA1", None, "band=r", 5.0, 100, "2.0", 2.0, {}),
    ]
    history.add(made)
    assert set(history.versions()) >= {"1.0", "2.0"}
    rows = {row["name"]: row for row in compared(history.latest(), "1.0", "2.0")}
    assert rows["AM1"]["verdict"] == "better"
    assert rows["AM1"]["sigmas"] == pytest.approx(8.0)
    assert rows["depth"]["verdict"] == "worse"
    assert "PA1" not in rows


def test_a_reader_does_not_see_metrics(known: Known) -> None:
    with open_as(known.root, "anonymous") as seen, pytest.raises(AccessDenied, match="anonymous"):
        MetricValues(seen.ledger)


def test_a_value_stands_by_the_best_level_that_it_meets() -> None:
    pa1 = BY_NAME["PA1"]
    assert [pa1.standing(value, "r") for value in (2.0, 4.0, 6.0, 20.0, None)] == ["stretch", "design", "minimum", "below", ""]  # fmt: skip  # noqa: E501
    assert pa1.standing(6.0, "z") == "design"
    assert BY_NAME["accounted"].standing(100.0) == "design"
    assert BY_NAME["accounted"].standing(99.0) == "below"
    assert len(BY_NAME) == len(DEFINITIONS)


def test_the_action_measures_and_a_dry_one_does_not(survey: SurveyRepo) -> None:
    before = len(MetricValues(survey.ledger).history())
    context = ActionContext(survey, NIGHTS[0], 5.0, {"of": "night"}, is_dry=True)
    assert measure_metrics(context).state == "nothing"
    assert len(MetricValues(survey.ledger).history()) == before
    result = measure_metrics(ActionContext(survey, NIGHTS[0], 5.0, {"of": "night"}))
    assert result.state == "done"
    assert "values of" in result.text
    assert measure_metrics(ActionContext(survey, 20200101, 5.0, {"of": "night"})).state == "nothing"


def test_the_command_measures_lists_shows_and_compares(known: Known) -> None:
    def run(*words: object) -> str:
        result = CliRunner().invoke(command, [str(word) for word in words], catch_exceptions=False)
        assert result.exit_code == 0
        return result.output

    run("measure", known.root, "--version-label", "a", "--only", "PA1")
    told = json.loads(run("measure", known.root, "--version-label", "b", "--only", "PA1", "--json"))
    assert {item["scope"] for item in told} == {"band=g", "band=r"}
    assert told[0]["standing"]
    assert "PA1" in run("list", known.root, "--version", "b")
    assert "levels: minimum 8, design 5, stretch 3" in run("show", known.root, "PA1")
    assert "same" in run("compare", known.root, "a", "b")
    with pytest.raises(ConfigError, match="PA77"):
        run("show", known.root, "PA77")
