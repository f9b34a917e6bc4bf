"""Conditions as SQL of DuckDB, for tables on disk; `formats.conditions.evaluate` gives the same rows in memory.

What a person wrote never becomes SQL text: the tree does, its names quoted and its constants written by us.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from gueststar.core.errors import ConfigError
from gueststar.formats.conditions.evaluate import HALF_DEGREE, cone_limit
from gueststar.formats.conditions.parse import Condition
from gueststar.formats.conditions.tree import ARITHMETIC, COMPARISONS, Constant, Kind, Node

MAX_SQL_CHARACTERS = 200_000
"""Guards repeat what they guard: functions of sums of functions of sums grow."""

_DOMAINS = {"sqrt": ">= 0e0", "ln": "> 0e0", "log10": "> 0e0"}
_MAY_OVERFLOW = frozenset({"pow", "exp"})


class _Number(NamedTuple):
    sql: str
    is_finite: bool
    """Whether it is finite wherever it is not NULL."""


def condition_sql(condition: Condition) -> str:
    """Return a condition as a SQL expression that is TRUE, FALSE or NULL, over columns of the fields' names.

    Columns hold no infinite numbers and no NaN (`formats.alert_table` sees to that). Raises ConfigError for a
    condition that becomes too long.
    """
    return clause_sql(condition.tree)


def clause_sql(part: Node) -> str:
    """Return a part of a condition that is itself a condition."""
    text = _truth(part)
    if len(text) > MAX_SQL_CHARACTERS:
        raise ConfigError("the condition nests too many functions in each other: write it more plainly")
    return text


def _truth(part: Node) -> str:
    operator, parts = part.operator, part.parts
    if operator in ("and", "or"):
        return "(" + f" {operator.upper()} ".join(_truth(inner) for inner in parts) + ")"
    if operator == "not":
        return f"(NOT {_truth(parts[0])})"
    if operator == "is null":
        return f"({_any(parts[0], parts[0].kind)} IS NULL)"
    if operator in COMPARISONS:
        kind = _common_kind(parts)
        return f"({_any(parts[0], kind)} {operator} {_any(parts[1], kind)})"
    if operator == "in":
        is_double = any(isinstance(value, float) for value in part.values)
        kind = Kind.NUMBER if is_double else parts[0].kind
        return f"({_any(parts[0], kind)} IN ({', '.join(_constant(value, kind) for value in part.values)}))"
    if operator == "like":
        return f"({_any(parts[0], Kind.TEXT)} LIKE {_constant(part.values[0], Kind.TEXT)})"
    if operator == "cone":
        return _cone(part)
    return _any(part, Kind.TRUTH)


def _any(part: Node, kind: Kind) -> str:
    """Return a part where a value of ``kind`` is wanted; numbers are guarded."""
    if kind is Kind.NUMBER:
        return _guarded(_number(part))
    if part.operator == "field":
        return _name(str(part.values[0]))
    if part.operator == "constant":
        return _constant(part.values[0], kind)
    if part.operator in ("coalesce", "greatest", "least"):
        return f"{part.operator}({', '.join(_any(inner, kind) for inner in part.parts)})"
    if part.operator == "case":
        return _case(part, kind)
    return _truth(part)


def _number(part: Node) -> _Number:
    """Return a part as double precision, as the database computes it."""
    operator, parts = part.operator, part.parts
    if operator == "field":
        name = _name(str(part.values[0]))
        return _Number(f"CAST({name} AS DOUBLE)" if part.kind is Kind.INTEGER else name, True)
    if operator == "constant":
        return _Number(_constant(part.values[0], Kind.NUMBER), True)
    if operator == "/":
        return _Number(f"({_number(parts[0]).sql} / nullif({_number(parts[1]).sql}, 0e0))", False)
    if operator in ARITHMETIC:
        return _Number(f"({_number(parts[0]).sql} {operator} {_number(parts[1]).sql})", False)
    if operator == "negative":
        inner = _number(parts[0])
        return _Number(f"(- {inner.sql})", inner.is_finite)
    if part.kind is Kind.INTEGER:
        return _Number(f"CAST({_any(part, Kind.INTEGER)} AS DOUBLE)", True)
    if operator in ("coalesce", "greatest", "least", "case"):
        return _Number(_any_number(part), True)
    return _Number(_function(part), True)


def _any_number(part: Node) -> str:
    if part.operator == "case":
        return _case(part, Kind.NUMBER)
    return f"{part.operator}({', '.join(_any(inner, Kind.NUMBER) for inner in part.parts)})"


def _function(part: Node) -> str:
    name, arguments = part.operator, [_guarded(_number(inner)) for inner in part.parts]
    call = f"{name}({', '.join(arguments)})"
    if len(call) > MAX_SQL_CHARACTERS:
        raise ConfigError("the condition nests too many functions in each other: write it more plainly")
    if name in _DOMAINS:
        return f"(CASE WHEN {arguments[0]} {_DOMAINS[name]} THEN {call} END)"
    if name in _MAY_OVERFLOW:
        return f"(CASE WHEN isfinite({call}) THEN {call} END)"
    return call


def _case(part: Node, kind: Kind) -> str:
    pairs = len(part.parts) // 2
    branches = [
        f"WHEN {_truth(part.parts[2 * k])} THEN {_any(part.parts[2 * k + 1], kind)}" for k in range(pairs)
    ]  # fmt: skip
    if len(part.parts) % 2:
        branches.append(f"ELSE {_any(part.parts[-1], kind)}")
    return f"(CASE {' '.join(branches)} END)"


def _guarded(number: _Number) -> str:
    return number.sql if number.is_finite else f"(CASE WHEN isfinite({number.sql}) THEN {number.sql} END)"


def _cone(part: Node) -> str:
    ra_0, dec_0, radius = (float(value) for value in part.values)
    half, shrink = _double(HALF_DEGREE), _double(math.cos(dec_0 * (2.0 * HALF_DEGREE)))
    half_dec = f'sin(("dec" - {_double(dec_0)}) * {half})'
    half_ra = f'sin(("ra" - {_double(ra_0)}) * {half})'
    cos_dec = f'cos("dec" * {_double(2.0 * HALF_DEGREE)})'
    haversine = f"{half_dec} * {half_dec} + {cos_dec} * {shrink} * ({half_ra} * {half_ra})"
    return f"({haversine} <= {_double(cone_limit(radius))})"


def _common_kind(parts: tuple[Node, ...]) -> Kind:
    return Kind.NUMBER if any(part.kind is Kind.NUMBER for part in parts) else parts[0].kind


def _constant(value: Constant, kind: Kind) -> str:
    if kind is Kind.TRUTH:
        return "TRUE" if value else "FALSE"
    if kind is Kind.TEXT:
        return "'" + str(value).replace("'", "''") + "'"
    return _double(float(value)) if kind is Kind.NUMBER else f"CAST({int(value)} AS BIGINT)"


def _double(value: float) -> str:
    """Return a literal of double precision, which an exponent makes it; without one it were decimal."""
    text = repr(value)
    return f"({text if 'e' in text else text + 'e0'})"


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
