"""Values with units, as rules are written: "10 min", "-12 deg", "50 GB", "> 200000 / deg2", "30 s to 2 min"."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any

from astropy import units as u
from pydantic import BeforeValidator

_WORDS = {
    "seconds": u.s, "second": u.s, "minutes": u.min, "minute": u.min, "hours": u.h, "days": u.day, "weeks": u.week,
    "degrees": u.deg, "degree": u.deg,
}  # fmt: skip
"""Words that people write and that astropy does not know by itself."""

_EXAMPLES = {u.s: "10 min", u.deg: "-12 deg", u.Gbyte: "50 GB", u.deg**-2: "200000 / deg2", u.one: "100"}
_COMPARED = re.compile(r"^(<=|>=|<|>)\s*(.+)$")
_BETWEEN = re.compile(r"^(.+?)\s+to\s+(.+)$")


def number_in(value: Any, unit: u.UnitBase) -> float:
    """Return a written quantity in a unit; ValueError tells what was written and how it is written right."""
    example = _EXAMPLES.get(unit, f"1 {unit}")
    try:
        with u.set_enabled_aliases(_WORDS):
            read = u.Quantity(value if isinstance(value, str) else str(value))
        number = float(read.to_value(unit)) if read.value != 0 or read.unit != u.one else 0.0
    except u.UnitConversionError:
        is_bare = read.unit == u.one
        raise ValueError(f"{value!r} {'has no unit' if is_bare else 'has another unit'}: write {example}") from None
    except (TypeError, ValueError):
        raise ValueError(f"{value!r} is no quantity: write {example}") from None
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is no finite quantity: write {example}")
    return number


@dataclass(frozen=True)
class Range:
    """What a value may be."""

    text: str
    """As it was written."""
    low: float = -math.inf
    high: float = math.inf
    has_low: bool = True
    """Whether the bound itself belongs to it."""
    has_high: bool = True

    def __contains__(self, value: float | None) -> bool:
        """Return whether a value is known and within the bounds."""
        if value is None:
            return False
        above = value >= self.low if self.has_low else value > self.low
        below = value <= self.high if self.has_high else value < self.high
        return above and below

    def __str__(self) -> str:
        return self.text


def range_in(value: Any, unit: u.UnitBase) -> Range:
    """Return a written comparison ("< 10 min", "30 s to 2 min") in a unit."""
    if isinstance(value, Range):
        return value
    text = str(value).strip()
    example = _EXAMPLES.get(unit, f"1 {unit}")
    if between := _BETWEEN.match(text):
        low, high = number_in(between[1], unit), number_in(between[2], unit)
        if low > high:
            raise ValueError(f"{text!r} is empty: the lower bound comes first")
        return Range(text, low, high)
    if not (compared := _COMPARED.match(text)):
        raise ValueError(f"{text!r} is no comparison: write < {example}, > {example} or {example} to ...")
    sign, bound = compared[1], number_in(compared[2], unit)
    if sign.startswith("<"):
        return Range(text, high=bound, has_high=sign == "<=")
    return Range(text, low=bound, has_low=sign == ">=")


def _quantity(unit: u.UnitBase) -> BeforeValidator:
    return BeforeValidator(lambda value: number_in(value, unit))


def _range(unit: u.UnitBase) -> BeforeValidator:
    return BeforeValidator(lambda value: range_in(value, unit))


Seconds = Annotated[float, _quantity(u.s)]
Degrees = Annotated[float, _quantity(u.deg)]
Gigabytes = Annotated[float, _quantity(u.Gbyte)]
RangeOfSeconds = Annotated[Range, _range(u.s)]
RangeOfDegrees = Annotated[Range, _range(u.deg)]
RangeOfGigabytes = Annotated[Range, _range(u.Gbyte)]
RangeOfDensity = Annotated[Range, _range(u.deg**-2)]
RangeOfNumbers = Annotated[Range, _range(u.one)]


def duration_text(seconds: float) -> str:
    """Return a duration as a person says it: 45 s, 12 min, 3.5 h, 2 d."""
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if abs(seconds) >= 2 * size or (abs(seconds) >= size and seconds % size == 0):
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
