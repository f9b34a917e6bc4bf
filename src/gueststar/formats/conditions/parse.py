"""From the text of a condition to its tree; what is not allowed is refused with its place and the reason."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedInput, UnexpectedToken, v_args
from lark.exceptions import VisitError
from lark.tree import Meta

from gueststar.core.errors import ConfigError
from gueststar.formats.conditions.grammar import GRAMMAR
from gueststar.formats.conditions.tree import FUNCTIONS, Kind, Node, node

MAX_CHARACTERS = 4000
MAX_DEPTH = 60
"""Of parts within parts; a sum of 60 terms is that deep, a list of conditions joined by AND is not."""
_INT64 = range(-(2**63), 2**63)
_PREFIX = "candidate."
_CONE = (360.0, 90.0, 10.0 * 3600.0)
"""Greatest right ascension and declination (degrees) and radius (arcsec) of a cone."""


@dataclass(frozen=True, eq=False)
class Condition:
    """A checked condition."""

    text: str
    """As it was written."""
    tree: Node
    fields: frozenset[str]
    """Fields of the table that it asks for."""

    @property
    def clauses(self) -> tuple[Node, ...]:
        """The parts that must all be true."""
        return self.tree.parts if self.tree.operator == "and" else (self.tree,)

    @property
    def cones(self) -> tuple[tuple[float, float, float], ...]:
        """Cones (ra, dec in degrees, radius in arcsec) in which everything that passes must lie."""
        found = [clause.values for clause in self.clauses if clause.operator == "cone"]
        return tuple((float(ra), float(dec), float(radius)) for ra, dec, radius in found)


def parse_condition(text: str, fields: Mapping[str, Kind]) -> Condition:
    """Return the checked condition over a table of these fields.

    Raises ConfigError, one line with the place (character, from 1) and the reason, for whatever the grammar does not
    name, an unknown field (with the nearest names), kinds that do not go together, and a condition that is too long or
    too deep.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"the condition has {len(text)} characters, {MAX_CHARACTERS} are allowed")
    if not text.strip():
        raise ConfigError("the condition is empty")
    try:
        parsed = _grammar().parse(text)
        tree = _Builder(fields).transform(parsed)
    except UnexpectedInput as problem:
        raise _refused(text, *_unexpected(text, problem)) from None
    except RecursionError:
        raise ConfigError(f"the condition is nested deeper than {MAX_DEPTH}") from None
    except VisitError as problem:
        if isinstance(problem.orig_exc, _Refusal):
            raise _refused(text, problem.orig_exc.position, problem.orig_exc.reason) from None
        raise
    used = frozenset(str(part.values[0]) for part in tree.walk() if part.operator == "field")
    has_cone = any(part.operator == "cone" for part in tree.walk())
    return Condition(text, tree, used | ({"ra", "dec"} if has_cone else set()))


@cache
def _grammar() -> Lark:
    return Lark(GRAMMAR, parser="lalr", propagate_positions=True)


class _Refusal(Exception):
    def __init__(self, place: Meta | Node, reason: str) -> None:
        super().__init__(reason)
        self.position = place.position if isinstance(place, Node) else place.start_pos
        self.reason = reason


def _refused(text: str, position: int, reason: str) -> ConfigError:
    near = " ".join(text[position : position + 20].split())
    where = f"character {position + 1} ({near!r})" if near else "the end"
    return ConfigError(f"the condition is refused at {where}: {reason}")


def _unexpected(text: str, problem: UnexpectedInput) -> tuple[int, str]:
    """Return where a text leaves the grammar, and how to mend what is often met."""
    is_end = isinstance(problem, UnexpectedToken) and problem.token.type == "$END"
    position = len(text) if is_end else int(problem.pos_in_stream or 0)
    rest = text[position:]
    if is_end:
        return position, "something is missing"
    if rest.startswith("="):
        return position, "equality is one ="
    if rest.startswith('"'):
        return position, "text is written in single quotes, names of fields in none"
    if rest.startswith(("&", "|", "!")):
        return position, "conditions are joined by AND, OR and NOT"
    return position, "not expected here"


class _Builder(Transformer[Token, Node]):
    """Makes nodes bottom up, each checked."""

    def __init__(self, fields: Mapping[str, Kind]) -> None:
        super().__init__(visit_tokens=False)
        self._fields = fields
        self._names = {name.lower(): name for name in fields}

    @v_args(inline=True)
    def start(self, tree: Node) -> Node:
        """Return the whole, a condition."""
        return _truth(tree, "the whole")

    @v_args(meta=True)
    def disjunction(self, meta: Meta, parts: list[Node]) -> Node:
        """Join by OR."""
        return self._made("or", Kind.TRUTH, meta, *(_truth(part, "each side of OR") for part in parts))

    @v_args(meta=True)
    def conjunction(self, meta: Meta, parts: list[Node]) -> Node:
        """Join by AND."""
        return self._made("and", Kind.TRUTH, meta, *(_truth(part, "each side of AND") for part in parts))

    @v_args(meta=True, inline=True)
    def negated(self, meta: Meta, part: Node) -> Node:
        """Negate."""
        return self._made("not", Kind.TRUTH, meta, _truth(part, "what NOT negates"))

    @v_args(meta=True, inline=True)
    def comparison(self, meta: Meta, left: Node, sign: Token, right: Node) -> Node:
        """Compare two values of one kind."""
        operator = "<>" if sign == "!=" else str(sign)
        if operator not in ("=", "<>") and Kind.TRUTH in (left.kind, right.kind):
            raise _Refusal(meta, f"conditions have no order: {operator}")
        _same_kind(meta, f"the sides of {operator}", left, right)
        return self._made(operator, Kind.TRUTH, meta, left, right)

    @v_args(meta=True, inline=True)
    def is_null(self, meta: Meta, part: Node) -> Node:
        """Ask whether a value is not known."""
        return self._made("is null", Kind.TRUTH, meta, part)

    @v_args(meta=True, inline=True)
    def is_not_null(self, meta: Meta, part: Node) -> Node:
        """Ask whether a value is known."""
        return self._made("not", Kind.TRUTH, meta, self.is_null(meta, part))

    @v_args(meta=True, inline=True)
    def between(self, meta: Meta, part: Node, low: Node, high: Node) -> Node:
        """Ask for a range, both ends included."""
        _same_kind(meta, "what BETWEEN compares", part, low, high)
        if part.kind is Kind.TRUTH:
            raise _Refusal(meta, "conditions have no order: BETWEEN")
        above = self._made(">=", Kind.TRUTH, meta, part, low)
        return self._made("and", Kind.TRUTH, meta, above, self._made("<=", Kind.TRUTH, meta, part, high))

    @v_args(meta=True, inline=True)
    def not_between(self, meta: Meta, part: Node, low: Node, high: Node) -> Node:
        """Ask for what is outside a range."""
        return self._made("not", Kind.TRUTH, meta, self.between(meta, part, low, high))

    @v_args(meta=True, inline=True)
    def member(self, meta: Meta, part: Node, *items: Node) -> Node:
        """Ask whether a value is one of a list."""
        _same_kind(meta, "what IN compares", part, *items)
        values = tuple(item.values[0] for item in items)
        if part.kind is Kind.INTEGER and any(item.kind is Kind.NUMBER for item in items):
            values = tuple(float(value) for value in values)
        return self._made("in", Kind.TRUTH, meta, part, values=values)

    @v_args(meta=True, inline=True)
    def not_member(self, meta: Meta, part: Node, *items: Node) -> Node:
        """Ask whether a value is none of a list."""
        return self._made("not", Kind.TRUTH, meta, self.member(meta, part, *items))

    @v_args(meta=True, inline=True)
    def like(self, meta: Meta, part: Node, pattern: Token) -> Node:
        """Compare a text with a pattern."""
        if part.kind is not Kind.TEXT:
            raise _Refusal(part, f"LIKE is for text, this is of kind {part.kind.value}")
        return self._made("like", Kind.TRUTH, meta, part, values=(_plain_text(pattern),))

    @v_args(meta=True, inline=True)
    def not_like(self, meta: Meta, part: Node, pattern: Token) -> Node:
        """Ask whether a text is not like a pattern."""
        return self._made("not", Kind.TRUTH, meta, self.like(meta, part, pattern))

    @v_args(meta=True, inline=True)
    def arithmetic(self, meta: Meta, left: Node, sign: Token, right: Node) -> Node:
        """Compute with two numbers."""
        _numeric(f"the sides of {sign}", left, right)
        return self._made(str(sign), Kind.NUMBER, meta, left, right)

    @v_args(meta=True, inline=True)
    def signed(self, meta: Meta, sign: Token, part: Node) -> Node:
        """Take a number with its sign."""
        _numeric(f"what follows {sign}", part)
        if sign == "+":
            return part
        value = part.values[0] if part.operator == "constant" else None
        if isinstance(value, int | float):
            return self._constant(meta, -value, part.kind)
        return self._made("negative", Kind.NUMBER, meta, part)

    @v_args(meta=True, inline=True)
    def number(self, meta: Meta, token: Token) -> Node:
        """Take a literal number: an integer, or one of double precision."""
        if token.isdigit():
            return self._constant(meta, int(token), Kind.INTEGER)
        return self._constant(meta, float(token), Kind.NUMBER)

    @v_args(meta=True, inline=True)
    def text(self, meta: Meta, token: Token) -> Node:
        """Take a literal text."""
        return self._constant(meta, _plain_text(token), Kind.TEXT)

    @v_args(meta=True)
    def true(self, meta: Meta, _: list[Any]) -> Node:
        """Take the literal TRUE."""
        return self._constant(meta, True, Kind.TRUTH)

    @v_args(meta=True)
    def false(self, meta: Meta, _: list[Any]) -> Node:
        """Take the literal FALSE."""
        return self._constant(meta, False, Kind.TRUTH)

    @v_args(meta=True, inline=True)
    def field(self, meta: Meta, token: Token) -> Node:
        """Look a field up, whatever its case."""
        name = token.lower().removeprefix(_PREFIX)
        if name == "null":
            raise _Refusal(meta, "nothing equals NULL: write IS NULL or IS NOT NULL")
        if name not in self._names:
            raise _Refusal(meta, _nearest(f"no field {token}", name, self._names))
        known = self._names[name]
        return self._made("field", self._fields[known], meta, values=(known,))

    @v_args(meta=True, inline=True)
    def call(self, meta: Meta, token: Token, *arguments: Node) -> Node:
        """Call a function of the list."""
        name = token.lower()
        if name == "cone":
            return self._cone(meta, arguments)
        if name not in FUNCTIONS:
            raise _Refusal(meta, _nearest(f"no function {token}", name, {n: n for n in (*FUNCTIONS, "cone")}))
        least, most = FUNCTIONS[name]
        if not least <= len(arguments) <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            raise _Refusal(meta, f"{name} has {len(arguments)} arguments, needs {wanted}")
        if name != "coalesce":
            _numeric(f"the arguments of {name}", *arguments)
        kind = _same_kind(meta, f"the arguments of {name}", *arguments)
        if name not in ("coalesce", "greatest", "least"):
            kind = Kind.NUMBER
        return self._made(name, kind, meta, *arguments)

    def _cone(self, meta: Meta, arguments: tuple[Node, ...]) -> Node:
        is_plain = all(a.operator == "constant" and a.kind.is_numeric for a in arguments)
        if len(arguments) != 3 or not is_plain:
            raise _Refusal(meta, "cone needs three plain numbers: ra and dec in degrees, radius in arcsec")
        ra, dec, radius = (float(argument.values[0]) for argument in arguments)
        if not (0.0 <= ra <= _CONE[0] and abs(dec) <= _CONE[1] and 0.0 < radius <= _CONE[2]):
            raise _Refusal(meta, f"cone({ra:g}, {dec:g}, {radius:g}): ra is 0 to 360, dec -90 to 90, radius to 36000")
        kinds = [self._fields.get(name) for name in ("ra", "dec")]
        if kinds != [Kind.NUMBER, Kind.NUMBER]:
            raise _Refusal(meta, "cone needs a table with ra and dec")
        return self._made("cone", Kind.TRUTH, meta, values=(ra, dec, radius))

    @v_args(meta=True)
    def case(self, meta: Meta, parts: list[Node]) -> Node:
        """Choose among values by conditions."""
        pairs = len(parts) // 2
        for k in range(pairs):
            _truth(parts[2 * k], "what follows WHEN")
        results = [parts[2 * k + 1] for k in range(pairs)] + parts[2 * pairs :]
        return self._made("case", _same_kind(meta, "the values of CASE", *results), meta, *parts)

    def _constant(self, meta: Meta, value: Any, kind: Kind) -> Node:
        if kind is Kind.INTEGER and value not in _INT64:
            raise _Refusal(meta, f"{value} is beyond the range of integers (64 bits)")
        if kind is Kind.NUMBER and not math.isfinite(value):
            raise _Refusal(meta, "the number is beyond the range of double precision")
        return self._made("constant", kind, meta, values=(value,))

    @staticmethod
    def _made(operator: str, kind: Kind, meta: Meta, *parts: Node, values: tuple[Any, ...] = ()) -> Node:
        made = node(operator, kind, *parts, values=values, position=meta.start_pos)
        if made.depth > MAX_DEPTH:
            raise _Refusal(meta, f"nested deeper than {MAX_DEPTH}")
        return made


def _truth(part: Node, what: str) -> Node:
    if part.kind is not Kind.TRUTH:
        raise _Refusal(part, f"{what} must be a condition, this is of kind {part.kind.value}")
    return part


def _numeric(what: str, *parts: Node) -> None:
    for part in parts:
        if not part.kind.is_numeric:
            raise _Refusal(part, f"{what} must be numbers, this is of kind {part.kind.value}")


def _same_kind(meta: Meta, what: str, *parts: Node) -> Kind:
    """Return the kind that all parts have; integers among numbers are numbers."""
    kinds = {part.kind for part in parts}
    if kinds <= {Kind.INTEGER, Kind.NUMBER}:
        return Kind.NUMBER if Kind.NUMBER in kinds else Kind.INTEGER
    if len(kinds) > 1:
        told = " and ".join(sorted(kind.value for kind in kinds))
        raise _Refusal(meta, f"{what} do not go together: {told}")
    return kinds.pop()


def _plain_text(token: Token) -> str:
    return str(token)[1:-1].replace("''", "'")


def _nearest(problem: str, name: str, known: Mapping[str, str]) -> str:
    """Return the problem with the names that are most like what was written."""
    found = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    found += [other for other in known if name in other and other not in found][: 3 - len(found)]
    offer = f"nearest: {', '.join(known[other] for other in found)}" if found else "gueststar filter fields lists them"
    return f"{problem}; {offer}"
