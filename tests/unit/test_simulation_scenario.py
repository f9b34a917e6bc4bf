from pathlib import Path

import pytest

from gueststar.core.errors import ConfigError
from gueststar.simulation.scenario import adapted, load_scenario, scenario_names


def test_every_packaged_scenario_is_valid() -> None:
    assert {"demo", "small", "plane", "bench"} <= set(scenario_names())
    for name in scenario_names():
        assert load_scenario(name).nights


def test_unknown_key_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("first_night: 2025-03-27\nnights: [{day: 0, blocks: [{n_round: 3}]}]\n")
    with pytest.raises(ConfigError, match="n_round"):
        load_scenario(path)


def test_more_nights_than_planned_repeat_the_last() -> None:
    scenario = load_scenario("small").with_nights(4)
    assert [night.day for night in scenario.nights] == [0, 6, 7, 8]


def test_density_is_a_name_or_a_number() -> None:
    assert adapted(load_scenario("small"), density="1200").stars.density == 1200.0
    with pytest.raises(ConfigError, match="dense"):
        adapted(load_scenario("small"), density="dense")
