"""Conditions mean the same in memory and in the database, and nothing but the language gets through."""

from __future__ import annotations

import math
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gueststar.core.errors import ConfigError
from gueststar.formats.alert_table import alert_table_schema
from gueststar.formats.conditions.evaluate import Batch, like_matcher
from gueststar.formats.conditions.parse import MAX_CHARACTERS, parse_condition
from gueststar.formats.conditions.text import text_of
from gueststar.formats.conditions.tree import Kind, field_kinds
from gueststar.store.condition_sql import condition_sql

FIELDS = {
    "x": Kind.NUMBER, "y": Kind.NUMBER, "ra": Kind.NUMBER, "dec": Kind.NUMBER, "i": Kind.INTEGER, "j": Kind.INTEGER,
    "s": Kind.TEXT, "t": Kind.TEXT, "b": Kind.TRUTH,
}  # fmt: skip
TYPES = {Kind.NUMBER: pa.float64(), Kind.INTEGER: pa.int64(), Kind.TEXT: pa.string(), Kind.TRUTH: pa.bool_()}
SCHEMA = pa.schema([(name, TYPES[kind]) for name, kind in FIELDS.items()])
REAL = field_kinds(alert_table_schema())
DATABASE = duckdb.connect(config={"threads": 1})

# Random tables

odd_numbers = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 1e308, -1e308, 5e-324, 1e-200, 2.0**53, 0.1, 1e16, 3.0])
numbers = odd_numbers | st.floats(allow_nan=False, allow_infinity=False)
integers = st.sampled_from([0, 1, -1, 2, 2**53, 2**53 + 1, 2**63 - 1, 1 - 2**63]) | st.integers(-5, 5)
texts = st.sampled_from(
    ["", "a", "ab", "AB", "a%b", "a_b", "é", "aé\n", "b" * 20, "'", "\\", "ZTF25aaaaaaa"]
) | st.text(alphabet="ab%_\\é'", max_size=5)
COLUMNS = {Kind.NUMBER: numbers, Kind.INTEGER: integers, Kind.TEXT: texts, Kind.TRUTH: st.booleans()}
SKY = {"ra": st.floats(0, 359.999), "dec": st.floats(-90, 90)}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    n = draw(st.integers(1, 12))
    columns = {
        name: draw(st.lists(st.none() | SKY.get(name, COLUMNS[kind]), min_size=n, max_size=n))
        for name, kind in FIELDS.items()
    }
    return pa.table(columns, schema=SCHEMA)


# Random conditions, as text


def number_text(value: float) -> str:
    return f"({value!r})" if value < 0 or math.copysign(1, value) < 0 else repr(value)


PLAIN = {
    Kind.NUMBER: numbers.map(number_text),
    Kind.INTEGER: integers.map(str),
    Kind.TEXT: texts.filter(lambda t: "\n" not in t).map(lambda t: "'" + t.replace("'", "''") + "'"),
    Kind.TRUTH: st.sampled_from(["TRUE", "FALSE"]),
}
NUMERIC = (Kind.NUMBER, Kind.INTEGER)
SIGNS = ("=", "<>", "!=", "<", "<=", ">", ">=")
FUNCTIONS = ("abs", "sqrt", "ln", "log10", "exp", "floor", "ceil", "round")


@st.composite
def values(draw: st.DrawFn, kind: Kind, depth: int) -> str:
    """A random value of a kind, as text."""

    def inner(own: Kind = kind) -> str:
        return draw(values(own, depth - 1))

    def either() -> str:
        return inner(draw(st.sampled_from(NUMERIC)))

    forms = ["field", "plain"] if depth == 0 else ["field", "plain", "coalesce", "case", "greatest"]
    if depth and kind is Kind.NUMBER:
        forms += ["sign", "minus", "function", "pow"]
    match draw(st.sampled_from(forms)):
        case "field":
            return draw(st.sampled_from([name for name, own in FIELDS.items() if own is kind]))
        case "coalesce":
            return f"coalesce({inner()}, {inner()})"
        case "case":
            last = draw(st.sampled_from(["", "ELSE "]))
            return f"CASE WHEN {draw(conditions(depth - 1))} THEN {inner()} {last and last + inner()} END"
        case "greatest" if kind in NUMERIC:
            return f"{draw(st.sampled_from(['greatest', 'least']))}({inner()}, {inner()})"
        case "sign":
            return f"({either()} {draw(st.sampled_from('+-*/'))} {either()})"
        case "minus":
            return f"(-{either()})"
        case "function":
            return f"{draw(st.sampled_from(FUNCTIONS))}({either()})"
        case "pow":
            return f"pow({either()}, {either()})"
    return draw(PLAIN[kind])


@st.composite
def conditions(draw: st.DrawFn, depth: int) -> str:
    """A random condition, as text."""

    def inner() -> str:
        return draw(conditions(depth - 1))

    def operand(kind: Kind | None = None) -> str:
        return draw(values(kind or draw(st.sampled_from(NUMERIC)), depth))

    forms = ["compare", "text", "between", "null", "in", "like", "cone", "truth"]
    maybe_not = draw(st.sampled_from(["", "NOT "]))
    match draw(st.sampled_from(forms + ["join", "join", "not", "unknown"] * (depth > 0))):
        case "compare":
            return f"{operand()} {draw(st.sampled_from(SIGNS))} {operand()}"
        case "text":
            return f"{operand(Kind.TEXT)} {draw(st.sampled_from(SIGNS))} {operand(Kind.TEXT)}"
        case "between":
            return f"{operand()} {maybe_not}BETWEEN {operand()} AND {operand()}"
        case "null":
            return f"{operand(draw(st.sampled_from([Kind.NUMBER, Kind.TEXT])))} IS {maybe_not}NULL"
        case "in":
            items = draw(st.lists(integers.map(str) | st.sampled_from(["0.5", "-2.5", "1e16"]), min_size=1, max_size=3))
            return f"{operand()} {maybe_not}IN ({', '.join(items)})"
        case "like":
            return f"{operand(Kind.TEXT)} {maybe_not}LIKE '{draw(st.text(alphabet='ab%_é', max_size=5))}'"
        case "cone":
            ra, dec, radius = draw(SKY["ra"]), draw(SKY["dec"]), draw(st.floats(1, 36000))
            return f"cone({ra:.3f}, {dec:.3f}, {radius:.3f})"
        case "truth":
            return operand(Kind.TRUTH)
        case "join":
            return f"({inner()}) {draw(st.sampled_from(['AND', 'OR', '=', '<>']))} ({inner()})"
        case "not":
            return f"NOT ({inner()})"
    return f"({inner()}) IS NULL"


def in_memory(text: str, table: pa.Table) -> list[bool | None]:
    verdict = Batch(table).verdict(parse_condition(text, FIELDS).tree)
    assert not (verdict.is_true & verdict.is_false).any()
    both = zip(verdict.is_true.tolist(), verdict.is_false.tolist(), strict=True)
    return [True if true else False if false else None for true, false in both]


def in_database(text: str, table: pa.Table) -> list[bool | None]:
    DATABASE.register("told", table)
    found = DATABASE.execute(f"SELECT {condition_sql(parse_condition(text, FIELDS))} FROM told").fetchall()
    return [row[0] for row in found]


def rows_in_database(text: str, table: pa.Table) -> list[int]:
    numbered = table.append_column("row", pa.array(range(table.num_rows)))
    DATABASE.register("told", numbered)
    sql = condition_sql(parse_condition(text, FIELDS))
    return [row[0] for row in DATABASE.execute(f'SELECT "row" FROM told WHERE {sql} ORDER BY 1').fetchall()]


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(table=tables(), text=conditions(2))
@example(table=pa.table({n: [None] for n in FIELDS}, schema=SCHEMA), text="NOT (x < 1 AND b) OR NOT (s = t) = b")
def test_memory_and_database_agree_on_every_row(table: pa.Table, text: str) -> None:
    said = in_memory(text, table)
    assert said == in_database(text, table)
    assert [k for k, true in enumerate(said) if true] == rows_in_database(text, table)
    tree = parse_condition(text, FIELDS).tree
    assert parse_condition(text_of(tree), FIELDS).tree.key == tree.key


def rows(**columns: list[Any]) -> pa.Table:
    n = len(next(iter(columns.values())))
    return pa.table({name: columns.get(name, [None] * n) for name in FIELDS}, schema=SCHEMA)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x > 1", [False, True, None]),
        ("NOT x > 1", [True, False, None]),
        ("x > 1 OR i = 1", [True, True, True]),
        ("x > 1 AND i = 2", [False, False, False]),
        ("x > 1 AND i = 1", [False, True, None]),
        ("x IS NULL", [False, False, True]),
        ("x / (x - 2) > 0", [False, None, None]),
        ("coalesce(1 / (x - 2), 7) = 7", [False, True, True]),
        ("sqrt(x - 1.5) > 0", [None, True, None]),
        ("log10(x - 1) >= 0", [None, True, None]),
        ("x * 1e308 * 10 > 0", [None, None, None]),
        ("greatest(x, 1.5) = 1.5", [True, False, True]),
        ("x IN (1, 5)", [True, False, None]),
        ("x NOT BETWEEN 1 AND 1.5", [False, True, None]),
        ("CASE WHEN x > 1 THEN 10 ELSE 20 END = 20", [True, False, True]),
    ],
)
def test_what_is_not_known_is_neither_true_nor_false(text: str, expected: list[bool | None]) -> None:
    table = rows(x=[1.0, 2.0, None], i=[1, 1, 1])
    assert in_memory(text, table) == expected
    assert in_database(text, table) == expected


def test_large_integers_are_compared_exactly() -> None:
    table = rows(i=[2**62 + 1, 2**62])
    assert in_memory(f"i = {2**62 + 1}", table) == in_database(f"i = {2**62 + 1}", table) == [True, False]


@pytest.mark.parametrize("radius", [0.5, 30.0, 7200.0])
def test_a_cone_holds_what_is_near_also_across_ra_zero_and_at_the_pole(radius: float) -> None:
    from astropy import units
    from astropy.coordinates import SkyCoord

    for ra, dec in ((0.0001, 10.0), (120.0, 89.9999), (300.0, -35.0)):
        here = SkyCoord(ra, dec, unit="deg")
        angles = np.linspace(0, 350, 8)
        places = [
            here.directional_offset_by(a * units.deg, f * radius * units.arcsec) for a in angles for f in (0.999, 1.001)
        ]
        table = rows(ra=[p.ra.deg for p in places], dec=[p.dec.deg for p in places])
        text = f"cone({ra}, {dec}, {radius})"
        assert in_memory(text, table) == in_database(text, table) == [True, False] * 8


def test_like_is_fast_on_whatever_pattern() -> None:
    assert not like_matcher("%a" * 50 + "%b")("a" * 5000)
    assert like_matcher("a%_b%c")("aXYbZc")
    assert not like_matcher("ab%ba")("aba")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("magpfs < 18", "at character 1 ('magpfs < 18'): no field magpfs; nearest: magpsf"),
        ("rb > 0.9 AND magpsf", "at character 14 ('magpsf'): each side of AND must be a condition"),
        ("rb > 0.9; DROP TABLE alert", "at character 9"),
        ("rb > (SELECT 1)", "at character 14"),
        ("rb > 0.9 -- and so on", "refused"),
        ("read_csv('/etc/passwd') IS NULL", "no function read_csv"),
        ("rb = NULL", "IS NULL"),
        ("rb == 1", "equality is one ="),
        ('isdiffpos = "t"', "single quotes"),
        ("isdiffpos = 1", "do not go together: integer and text"),
        ("magpsf LIKE '1%'", "LIKE is for text"),
        ("rb > 0.9 AND", "at the end: something is missing"),
        ("rb > 1e999", "beyond the range of double"),
        ("candid = 99999999999999999999", "beyond the range of integers"),
        ("cone(10, 91, 5)", "dec -90 to 90"),
        ("cone(ra, dec, 5)", "three plain numbers"),
        ("sqrt(rb, rb) > 1", "sqrt has 2 arguments, needs 1"),
        ("NOT " * 200 + "is_mover", "nested deeper"),
        ("NOT " * 900 + "is_mover", "nested deeper"),
        ("rb" + "+1" * 500 + " > 2", "nested deeper"),
        ("rb > 1 OR " * 500 + "rb > 1", f"{MAX_CHARACTERS} are allowed"),
        ("  ", "is empty"),
        ("objectId = 'a\nb'", "refused"),
    ],
)
def test_whatever_the_language_does_not_name_is_refused_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_condition(text, REAL)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def test_functions_within_functions_do_not_grow_without_limit() -> None:
    condition = parse_condition("pow(" * 20 + "rb" + ", 2)" * 20 + " > 1", REAL)
    with pytest.raises(ConfigError, match="too many functions"):
        condition_sql(condition)


@given(st.text(max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_text_is_a_condition_or_refused_in_one_line(text: str) -> None:
    refused = ""
    try:
        parse_condition(text, REAL)
    except ConfigError as problem:
        refused = str(problem)
    assert "\n" not in refused


def test_names_know_no_case_and_may_say_candidate() -> None:
    condition = parse_condition("Candidate.MAGPSF < 18 and cone(10, 20, 5)", REAL)
    assert condition.fields == {"magpsf", "ra", "dec"}
    assert condition.cones == ((10.0, 20.0, 5.0),)


def test_conditions_share_what_they_have_in_common() -> None:
    table = pa.table({name: [None] * 3 for name in FIELDS}, schema=SCHEMA).set_column(0, "x", pa.array([1.0, 2.0, 3.0]))
    batch = Batch(table)
    first = batch.verdict(parse_condition("x > 1.5 AND b", FIELDS).tree.parts[0])
    again = batch.verdict(parse_condition("NOT (x>1.5)", FIELDS).tree)
    assert again.is_false is first.is_true
