"""From a tree back to text of the language, with every bracket."""

from __future__ import annotations

from gueststar.formats.conditions.tree import ARITHMETIC, COMPARISONS, Constant, Node


def text_of(part: Node) -> str:
    """Return a part of a condition as text that parses to the same tree."""
    operator, inner = part.operator, [text_of(one) for one in part.parts]
    if operator == "field":
        return str(part.values[0])
    if operator == "constant":
        return _constant(part.values[0])
    if operator in ("and", "or"):
        return f"({f' {operator.upper()} '.join(inner)})"
    if operator == "not":
        return f"(NOT {inner[0]})"
    if operator == "is null":
        return f"({inner[0]} IS NULL)"
    if operator in COMPARISONS or operator in ARITHMETIC:
        return f"({inner[0]} {operator} {inner[1]})"
    if operator == "negative":
        return f"(- {inner[0]})"
    if operator == "in":
        return f"({inner[0]} IN ({', '.join(_constant(value) for value in part.values)}))"
    if operator == "like":
        return f"({inner[0]} LIKE {_constant(part.values[0])})"
    if operator == "case":
        return _case(inner)
    return f"{operator}({', '.join(inner or [_constant(value) for value in part.values])})"


def _case(inner: list[str]) -> str:
    pairs = len(inner) // 2
    branches = [f"WHEN {inner[2 * k]} THEN {inner[2 * k + 1]}" for k in range(pairs)]
    branches += [f"ELSE {inner[-1]}"] if len(inner) % 2 else []
    return f"CASE {' '.join(branches)} END"


def _constant(value: Constant) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)
