"""Conditions asked of a batch of alerts in memory: arrays, three-valued logic, shared between conditions.

Numbers are double precision, integers are compared exactly. What SQL calls NULL is a value that is not known: whatever
is computed from it is not known either, and a condition is true, false, or not known. A quotient by zero, and every
result that is not a finite number when it is compared or handed to a function, is not known. `store.condition_sql`
says the same in SQL; both give the same rows.

Logarithms and powers are those of the C library, value by value, as the database has them: numpy's own differ in the
last bit on some processors, and so would rows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gueststar.formats.conditions.parse import Condition
from gueststar.formats.conditions.tree import ARITHMETIC, COMPARISONS, Kind, Node

Mask = NDArray[np.bool_]

HALF_DEGREE = math.pi / 360.0
"""Half a degree in radians."""


class Known(NamedTuple):
    """Values, and which of them are known; the others are anything."""

    values: NDArray[Any]
    is_known: Mask


class Verdict(NamedTuple):
    """What a condition says of each row; where it is neither, it is not known."""

    is_true: Mask
    is_false: Mask


class Batch:
    """A table that conditions are asked of; what several of them hold in common is computed once."""

    def __init__(self, table: pa.Table) -> None:
        self.n_rows = table.num_rows
        self._table = table
        self._values: dict[str, Known] = {}
        self._verdicts: dict[str, Verdict] = {}

    def passes(self, condition: Condition) -> Mask:
        """Return the rows for which the condition is true."""
        return self.verdict(condition.tree).is_true

    def verdict(self, part: Node) -> Verdict:
        """Return what a condition, or a part of one that is itself a condition, says of each row."""
        with np.errstate(all="ignore"):
            return self._verdict(part)

    def _verdict(self, part: Node) -> Verdict:
        found = self._verdicts.get(part.key)
        if found is None:
            found = self._verdicts[part.key] = self._judged(part)
        return found

    def _judged(self, part: Node) -> Verdict:
        operator = part.operator
        if operator in ("and", "or"):
            return self._joined(part)
        if operator == "not":
            inner = self._verdict(part.parts[0])
            return Verdict(inner.is_false, inner.is_true)
        if operator == "is null":
            is_known = self._known(part.parts[0]).is_known
            return Verdict(~is_known, is_known)
        if operator in COMPARISONS and part.parts[0].kind is Kind.TRUTH:
            return self._same_truth(part)
        if operator in COMPARISONS:
            left, right = self._comparable(part.parts)
            return _verdict_of(_COMPARE[operator](left.values, right.values), left.is_known & right.is_known)
        if operator == "in":
            return self._member(part)
        if operator == "like":
            text = self._known(part.parts[0])
            matches = like_matcher(str(part.values[0]))
            return _verdict_of(_mapped(matches, text.values, text.is_known, bool), text.is_known)
        if operator == "cone":
            return self._inside(part)
        truth = self._known(part)  # a field, a constant, CASE or coalesce
        return _verdict_of(truth.values, truth.is_known)

    def _joined(self, part: Node) -> Verdict:
        is_and = part.operator == "and"
        first, *others = (self._verdict(inner) for inner in part.parts)
        is_true, is_false = first
        for other in others:
            is_true = is_true & other.is_true if is_and else is_true | other.is_true
            is_false = is_false | other.is_false if is_and else is_false & other.is_false
        return Verdict(is_true, is_false)

    def _same_truth(self, part: Node) -> Verdict:
        left, right = (self._verdict(inner) for inner in part.parts)
        same = left.is_true & right.is_true | left.is_false & right.is_false
        different = left.is_true & right.is_false | left.is_false & right.is_true
        return Verdict(same, different) if part.operator == "=" else Verdict(different, same)

    def _member(self, part: Node) -> Verdict:
        inner, values = part.parts[0], part.values
        is_double = inner.kind is Kind.NUMBER or any(isinstance(value, float) for value in values)
        truth = self._finite(inner) if is_double else self._known(inner)
        found = np.zeros(self.n_rows, dtype=bool)
        for value in values:
            found |= truth.values == value
        return _verdict_of(found, truth.is_known)

    def _inside(self, part: Node) -> Verdict:
        ra, dec = (self._column(name) for name in ("ra", "dec"))
        is_known = ra.is_known & dec.is_known
        ra_0, dec_0, radius = (float(value) for value in part.values)
        half_dec = _mapped(math.sin, (dec.values - dec_0) * HALF_DEGREE, is_known)
        half_ra = _mapped(math.sin, (ra.values - ra_0) * HALF_DEGREE, is_known)
        shrink = _mapped(math.cos, dec.values * (2.0 * HALF_DEGREE), is_known) * math.cos(dec_0 * (2.0 * HALF_DEGREE))
        haversine = half_dec * half_dec + shrink * (half_ra * half_ra)
        return _verdict_of(haversine <= cone_limit(radius), is_known)

    # Values

    def _known(self, part: Node) -> Known:
        found = self._values.get(part.key)
        if found is None:
            found = self._values[part.key] = self._valued(part)
        return found

    def _valued(self, part: Node) -> Known:
        operator = part.operator
        if operator == "field":
            return self._column(str(part.values[0]))
        if operator == "constant":
            return self._constant(part)
        if operator in ARITHMETIC:
            return _computed(operator, *(self._as_number(inner) for inner in part.parts))
        if operator == "negative":
            inner = self._as_number(part.parts[0])
            return Known(-inner.values, inner.is_known)
        if operator == "case":
            return self._case(part)
        if operator in ("coalesce", "greatest", "least"):
            return _chosen(operator, [self._argument(inner, part.kind) for inner in part.parts])
        if part.kind is not Kind.TRUTH:
            return _function(operator, [self._finite(inner) for inner in part.parts])
        verdict = self._verdict(part)
        return Known(verdict.is_true, verdict.is_true | verdict.is_false)

    def _column(self, name: str) -> Known:
        key = f"column {name}"
        if key not in self._values:
            column = self._table.column(name)
            is_known = np.asarray(column.is_valid().to_numpy(), dtype=bool)
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                values = np.array(column.fill_null("").to_pylist(), dtype=object)
            else:
                values = np.asarray(column.fill_null(False if pa.types.is_boolean(column.type) else 0).to_numpy())
                values = values.astype({"i": np.int64, "f": np.float64, "b": np.bool_}[values.dtype.kind])
            self._values[key] = Known(values, is_known)
        return self._values[key]

    def _constant(self, part: Node) -> Known:
        kinds = {Kind.INTEGER: np.int64, Kind.NUMBER: np.float64, Kind.TRUTH: np.bool_, Kind.TEXT: np.object_}
        values = np.empty(self.n_rows, dtype=kinds[part.kind])
        values[:] = part.values[0]
        return Known(values, np.ones(self.n_rows, dtype=bool))

    def _as_number(self, part: Node) -> Known:
        """Return values as double precision; they may be infinite."""
        known = self._known(part)
        return known if part.kind is Kind.NUMBER else Known(known.values.astype(np.float64), known.is_known)

    def _finite(self, part: Node) -> Known:
        """Return values as double precision, those that are not finite not known."""
        known = self._as_number(part)
        if part.operator not in (*ARITHMETIC, "negative"):
            return known  # finite as they are
        return Known(known.values, known.is_known & np.isfinite(known.values))

    def _argument(self, part: Node, kind: Kind) -> Known:
        """Return what a part gives where a value of ``kind`` is wanted."""
        return self._finite(part) if kind is Kind.NUMBER else self._known(part)

    def _comparable(self, parts: Iterable[Node]) -> list[Known]:
        parts = list(parts)
        is_double = any(part.kind is Kind.NUMBER for part in parts)
        return [self._finite(part) if is_double else self._known(part) for part in parts]

    def _case(self, part: Node) -> Known:
        inner, pairs = part.parts, len(part.parts) // 2
        last = self._argument(inner[-1], part.kind) if len(inner) % 2 else None
        values = last.values.copy() if last else self._argument(inner[1], part.kind).values.copy()
        is_known = last.is_known.copy() if last else np.zeros(self.n_rows, dtype=bool)
        for k in reversed(range(pairs)):
            condition, result = self._verdict(inner[2 * k]).is_true, self._argument(inner[2 * k + 1], part.kind)
            values, is_known = (
                np.where(condition, result.values, values),
                np.where(condition, result.is_known, is_known),
            )
        return Known(values, is_known)


_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": np.equal, "<>": np.not_equal, "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal,
}  # fmt: skip


def _verdict_of(is_true: NDArray[Any], is_known: Mask) -> Verdict:
    is_true = is_true.astype(bool, copy=False) & is_known
    return Verdict(is_true, is_known & ~is_true)


def _computed(operator: str, left: Known, right: Known) -> Known:
    is_known = left.is_known & right.is_known
    if operator == "/":
        return Known(left.values / right.values, is_known & (right.values != 0.0))
    compute = {"+": np.add, "-": np.subtract, "*": np.multiply}[operator]
    return Known(compute(left.values, right.values), is_known)


def _chosen(operator: str, arguments: list[Known]) -> Known:
    """Return the first, greatest or least of the known arguments."""
    values, is_known = arguments[0]
    for other in arguments[1:]:
        if operator == "coalesce":
            is_better = ~is_known
        else:
            is_beyond = other.values > values if operator == "greatest" else other.values < values
            is_better = other.is_known & (~is_known | is_beyond)
        values, is_known = np.where(is_better, other.values, values), is_known | other.is_known
    return Known(values, is_known)


def _function(name: str, arguments: list[Known]) -> Known:
    """Return a function of finite arguments; a result that is not finite is not known."""
    x, is_known = arguments[0]
    if name == "pow":
        base, exponent = arguments
        is_known = base.is_known & exponent.is_known
        pairs = np.empty(len(x), dtype=object)
        pairs[:] = list(zip(base.values.tolist(), exponent.values.tolist(), strict=True))
        values = _mapped(_power, pairs, is_known)
        return Known(values, is_known & np.isfinite(values))
    if name in _BY_VALUE:
        is_known = is_known & (x > 0.0 if name != "exp" else True)
        values = _mapped(_BY_VALUE[name], x, is_known)
        return Known(values, is_known & np.isfinite(values))
    if name == "sqrt":
        return Known(np.sqrt(x), is_known & (x >= 0.0))
    return Known(_ROUNDED[name](x), is_known)


def _power(pair: tuple[float, float]) -> float:
    try:
        return math.pow(*pair)
    except (ValueError, OverflowError):
        return math.nan


def _exponential(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.nan


def _rounded(x: NDArray[Any]) -> NDArray[Any]:
    """Return whole numbers, halves away from zero."""
    whole = np.trunc(x)
    return whole + np.copysign(np.abs(x - whole) >= 0.5, x)


_BY_VALUE: dict[str, Callable[[float], float]] = {"ln": math.log, "log10": math.log10, "exp": _exponential}
_ROUNDED: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "abs": np.abs, "floor": np.floor, "ceil": np.ceil, "round": _rounded,
}  # fmt: skip


def _mapped(function: Callable[[Any], Any], values: NDArray[Any], is_known: Mask, dtype: Any = np.float64) -> Any:
    """Return a function of each known value; 0 for the others."""
    out = np.zeros(len(values), dtype=dtype)
    out[is_known] = [function(value) for value in values[is_known].tolist()]
    return out


def cone_limit(radius_arcsec: float) -> float:
    """Return the haversine of a cone's radius."""
    half = math.sin(radius_arcsec / 3600.0 * HALF_DEGREE)
    return half * half


def like_matcher(pattern: str) -> Callable[[str], bool]:
    """Return whether a text is like a pattern: ``%`` is any text, ``_`` any one character.

    The parts between the ``%`` are looked for from left to right, each once: no text makes this slow.
    """
    parts = [
        re.compile("".join("." if c == "_" else re.escape(c) for c in part), re.DOTALL) for part in pattern.split("%")
    ]
    if len(parts) == 1:
        return lambda text: parts[0].fullmatch(text) is not None
    first, *middle, last = parts
    n_last = len(pattern.rsplit("%", 1)[1])

    def matches(text: str) -> bool:
        """Look for the parts in turn, each as far to the left as it goes."""
        found = first.match(text)
        for part in middle:
            if found is None:
                return False
            found = part.search(text, found.end())
        if found is None or len(text) - found.end() < n_last:
            return False
        return last.fullmatch(text, len(text) - n_last) is not None

    return matches
