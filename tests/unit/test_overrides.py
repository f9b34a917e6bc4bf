from dataclasses import dataclass, field
from typing import Literal

import pytest

from gueststar.core.bits import SourceFlag
from gueststar.core.errors import ConfigError
from gueststar.pipelines.overrides import as_plain, with_overrides


@dataclass(frozen=True)
class Inner:
    threshold: float = 5.0


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    n: int = 3
    names: tuple[str, ...] = ()
    limit: float | None = None
    is_on: bool = True
    method: Literal["auto", "kernel"] = "auto"
    flags: SourceFlag = SourceFlag.EDGE


def test_overrides_reach_nested_parameters_and_leave_the_rest() -> None:
    made = with_overrides(Outer(), {"inner": {"threshold": 4}, "names": ["a"], "limit": 2}, where="parameters")
    assert made == Outer(Inner(4.0), 3, ("a",), 2.0, True)


def test_an_unknown_key_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match=r"parameters.inner has no parameter 'treshold'; did you mean threshold"):
        with_overrides(Outer(), {"inner": {"treshold": 4}}, where="parameters")


@pytest.mark.parametrize("wrong", [{"n": 2.5}, {"n": "3"}, {"n": True}, {"is_on": 1}, {"limit": "x"}])
def test_a_value_of_another_type_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="is not of type"):
        with_overrides(Outer(), wrong, where="parameters")


def test_what_ran_can_be_recorded() -> None:
    assert as_plain(Outer()) == {"inner": {"threshold": 5.0}, "n": 3, "names": [], "limit": None, "is_on": True} | {
        "method": "auto",
        "flags": ["EDGE"],
    }


def test_bits_are_given_by_name() -> None:
    made = with_overrides(Outer(), {"flags": ["SATURATED", "EDGE"]}, where="parameters")
    assert made.flags == SourceFlag.SATURATED | SourceFlag.EDGE
    with pytest.raises(ConfigError, match="no bit 'SATURATE'"):
        with_overrides(Outer(), {"flags": ["SATURATE"]}, where="parameters")


def test_a_choice_that_is_none_of_those_offered_is_refused() -> None:
    with pytest.raises(ConfigError, match="is none of 'auto', 'kernel'"):
        with_overrides(Outer(), {"method": "foo"}, where="parameters")
