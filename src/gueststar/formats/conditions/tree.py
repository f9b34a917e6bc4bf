"""The tree of a condition: what the parser makes and both back ends read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import pyarrow as pa


class Kind(Enum):
    """What a part of a condition is."""

    INTEGER = "integer"
    NUMBER = "number"
    TEXT = "text"
    TRUTH = "condition"

    @property
    def is_numeric(self) -> bool:
        """Whether it takes part in arithmetic."""
        return self in (Kind.INTEGER, Kind.NUMBER)


Constant = bool | int | float | str
"""A literal of a condition."""

COMPARISONS = ("=", "<>", "<", "<=", ">", ">=")
ARITHMETIC = ("+", "-", "*", "/")
FUNCTIONS = {
    "abs": (1, 1), "sqrt": (1, 1), "ln": (1, 1), "log10": (1, 1), "exp": (1, 1), "pow": (2, 2), "floor": (1, 1),
    "ceil": (1, 1), "round": (1, 1), "greatest": (2, 20), "least": (2, 20), "coalesce": (2, 20),
}  # fmt: skip
"""Functions, with the least and the greatest number of arguments; besides them there is ``cone``."""


@dataclass(frozen=True, eq=False)
class Node:
    """One part of a condition, with the parts it is made of.

    ``operator`` is ``field`` (value: its name), ``constant`` (value), ``cone`` (values: ra, dec, radius), ``in``
    (values: the list), ``like`` (value: the pattern), one of `COMPARISONS`, `ARITHMETIC` or `FUNCTIONS`, ``negative``,
    ``and``, ``or``, ``not``, ``is null``, or ``case`` (parts: condition, value, condition, value, ..., and in the end
    the value of ELSE where there is one).
    """

    operator: str
    kind: Kind
    parts: tuple[Node, ...]
    values: tuple[Constant, ...]
    key: str
    """Its text in a canonical form: parts with the same key have the same value."""
    depth: int
    position: int
    """Where it begins in the text, from 0."""

    def walk(self) -> Iterator[Node]:
        """Yield the node and all below it."""
        yield self
        for part in self.parts:
            yield from part.walk()


def node(operator: str, kind: Kind, *parts: Node, values: tuple[Constant, ...] = (), position: int = 0) -> Node:
    """Return a node of given parts."""
    inside = " ".join([*(repr(value) for value in values), *(part.key for part in parts)])
    depth = 1 + max((part.depth for part in parts), default=0)
    return Node(operator, kind, parts, values, f"({operator} {inside})", depth, position)


def field_kinds(schema: pa.Schema) -> dict[str, Kind]:
    """Return the fields that conditions over a table of this schema may name."""
    kinds = {
        pa.float64(): Kind.NUMBER, pa.float32(): Kind.NUMBER, pa.int64(): Kind.INTEGER, pa.int32(): Kind.INTEGER,
        pa.string(): Kind.TEXT, pa.large_string(): Kind.TEXT, pa.bool_(): Kind.TRUTH,
    }  # fmt: skip
    return {field.name: kinds[field.type] for field in schema if field.type in kinds}
