from pathlib import Path

import pytest

from gueststar.core import times
from gueststar.core.errors import ConfigError
from gueststar.model.rights import Program
from gueststar.store.settings import read_settings, rights_policy


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_release_makes_nights_public_from_its_date_on(tmp_path: Path) -> None:
    text = "releases:\n- {program: partnership, until_night: 20250331, date: '2026-01-01T00:00:00'}\n"
    policy = rights_policy(read_settings(write(tmp_path / "survey.yaml", text)))
    after, before = times.mjd_tai_from_utc("2026-01-02T00:00:00"), times.mjd_tai_from_utc("2025-12-31T00:00:00")

    def may(night: int, moment: float, item: Program = Program.PARTNERSHIP) -> bool:
        return policy.may_appear(item, in_stream=Program.PUBLIC, item_day_obs=night, at_mjd_tai=moment)

    assert may(20250331, after)
    assert not may(20250331, before)
    assert not may(20250401, after)
    assert not may(20250331, after, Program.PRIVATE)


def test_nothing_is_released_by_default(tmp_path: Path) -> None:
    policy = rights_policy(read_settings(write(tmp_path / "survey.yaml", "name: mine\n")))
    for item in (Program.PARTNERSHIP, Program.PRIVATE, Program.ENGINEERING):
        assert not policy.may_appear(item, in_stream=Program.PUBLIC, item_day_obs=19900101, at_mjd_tai=99999.0)


@pytest.mark.parametrize(
    "text", ["relases: []\n", "releases: [{program: public, until_night: 20250101, date: '2026-01-01T00:00:00'}]\n",
             "releases: [{program: private, until_night: 20250101, date: soon}]\n"],
)  # fmt: skip
def test_a_mistake_in_the_settings_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="survey.yaml: rel"):
        read_settings(write(tmp_path / "survey.yaml", text))
