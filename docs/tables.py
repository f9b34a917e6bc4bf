"""Tables of the documentation that are made from the code when the pages are built."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from enum import IntFlag
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from gueststar.algorithms.alerts.history_features import FEATURES
from gueststar.cli.ways_out import ADDRESSES, COMMANDS
from gueststar.core.bits import UNUSABLE, MaskPlane, SourceFlag
from gueststar.formats.conditions.grammar import GRAMMAR
from gueststar.formats.ztf_fields import FieldRule, field_rules
from gueststar.model import columns, instrumental_columns
from gueststar.model.catalog import Schema
from gueststar.model.metrics import METRICS, Metric
from gueststar.operations.metrics.definitions import DEFINITIONS
from gueststar.operations.rules import action_names, quantities
from gueststar.operations.rules import grammar as rules_grammar
from gueststar.operations.rules.catching_up import catch_up_of
from gueststar.operations.rules.load import SHIPPED
from gueststar.operations.rules.reading import parse, read_text
from gueststar.operations.rules.words import do_words, only_if_words, when_words
from gueststar.operations.watch.conditions import Limits
from gueststar.operations.watch.facts import Facts
from gueststar.operations.watch.kinds import ALARM_KINDS
from gueststar.operations.watch.prometheus import Figures, figures_of
from gueststar.pipelines.difference.vet import VetConfig
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.store.operation_settings import OperationSettings
from gueststar.store.operator_state import OperatorState
from gueststar.store.products import PRODUCTS

Row = Sequence[str]


def write_tables(folder: Path) -> None:
    """Write every table as a Markdown file that a page includes."""
    folder.mkdir(exist_ok=True)
    pages = {
        "catalogs": _catalogs(vars(columns).values()),
        "psf_star": _schema(instrumental_columns.PSF_STAR, level=3),
        "mask_planes": _bits(MaskPlane),
        "source_flags": _bits(SourceFlag),
        "metrics": _metrics(),
        "named_metrics": _named_metrics(),
        "parameters": _parameters(PipelineSettings()),
        "products": _products(),
        "ways_out": _ways_out(),
        "alert_fields": _alert_fields(),
        "alert_features": _alert_features(),
        "alarm_kinds": _alarm_kinds(),
        "alarm_limits": _alarm_limits(),
        "status_figures": _status_figures(),
        "rules_grammar": _rules_grammar(),
        "rules_shipped": _rules_shipped(),
        "rules_actions": _rules_actions(),
        "condition_grammar": f"```text\n{GRAMMAR.strip()}\n```\n",
    }
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def _catalogs(values: Iterable[Any]) -> str:
    return "\n".join(_schema(value, level=2) for value in values if isinstance(value, Schema))


def _schema(schema: Schema, *, level: int) -> str:
    rows = [(f"`{c.name}`", f"`{c.dtype}`", c.unit, c.doc) for c in schema.columns]
    return f"{'#' * level} {schema.name}\n\n" + _table(("column", "type", "unit", "meaning"), rows)


def _bits(kind: type[IntFlag]) -> str:
    docs = dict(_attribute_docs(kind))
    rows = []
    for bit in kind:
        mark = ("yes" if bit & UNUSABLE else "",) if kind is MaskPlane else ()
        rows.append((str(int(bit).bit_length() - 1), f"`{bit.name}`", docs.get(str(bit.name), ""), *mark))
    return _table(("bit", "name", "meaning", *(("unusable",) if kind is MaskPlane else ())), rows)


def _metrics() -> str:
    rows = [(f"`{m.name}`", m.unit, m.doc, _limit(m, m.fair), _limit(m, m.poor)) for m in METRICS]
    return _table(("metric", "unit", "meaning", "fair", "poor"), rows)


def _named_metrics() -> str:
    rows = []
    for metric in DEFINITIONS:
        levels = metric.levels or (None, None, None)
        shown = ["" if level is None else f"{level:g}" for level in levels]
        if metric.red_levels:
            shown = [f"{one} ({level:g})" for one, level in zip(shown, metric.red_levels, strict=True)]
        rows.append((f"`{metric.name}`", metric.unit, metric.doc, *shown, metric.reference))
    return _table(("metric", "unit", "meaning", "minimum", "design", "stretch", "reference"), rows)


def _limit(metric: Metric, value: float | None) -> str:
    if value is None:
        return ""
    scale = {"fwhm": f"{value:g} x typical FWHM", "depth": f"typical depth {value:+g}", "pixel": f"{value:g} pixel"}
    sign = "below" if metric.is_higher_better else "above"
    return f"{sign} {scale.get(metric.is_relative_to or '', f'{value:g}')}"


def _products() -> str:
    rows = [(f"`{p.name}`", p.meaning, ", ".join(p.keys), p.holds) for p in PRODUCTS.values()]
    return _table(("product", "meaning", "identified by", "holds"), rows)


def _ways_out() -> str:
    commands = [(f"`gueststar {name}`", way.eyes.value, way.what) for name, way in COMMANDS.items()]
    addresses = [(f"`{name}`", way.eyes.value, way.what) for name, way in ADDRESSES.items()]
    return _table(("way out", "for", "what leaves, and what holds it back"), sorted(commands) + sorted(addresses))


def _alert_fields() -> str:
    parts = []
    for record in ("alert", "candidate", "prv_candidate", "fp_hist", "cutout"):
        rows = [
            (f"`{rule.name}`", f"{rule.type}", rule.meaning, rule.remark, _unknown(rule))
            for rule in field_rules(record)
        ]
        parts.append(f"## {record}\n\n" + _table(("field", "type", "meaning", "ours", "where not known"), rows))
    return "\n".join(parts)


def _alert_features() -> str:
    rows = [(f"`{feature.name}`", feature.kind, feature.unit, feature.doc) for feature in FEATURES]
    return _table(("feature", "kind", "unit", "meaning"), rows)


_PARTS = (
    ("The file", rules_grammar.RulesFile), ("night", rules_grammar.NightPart),
    ("maintenance", rules_grammar.MaintenancePart), ("A rule", rules_grammar.Rule), ("when", rules_grammar.When),
    ("when: exposure", rules_grammar.ExposureWhen), ("when: calibration_set", rules_grammar.CalibrationSetWhen),
    ("when: night_begins, night_ends", rules_grammar.NightEdgeWhen),
    ("when: good_epochs", rules_grammar.GoodEpochsWhen), ("when: every", rules_grammar.EveryWhen),
    ("when: disk", rules_grammar.DiskWhen), ("when: idle", rules_grammar.IdleWhen),
    ("only_if", rules_grammar.OnlyIf), ("otherwise", rules_grammar.Fallback),
    ("otherwise: if", rules_grammar.FallbackIf), ("retry", rules_grammar.RetryPart),
)  # fmt: skip

_WRITTEN = (
    (quantities.Seconds, "10 min"), (quantities.Degrees, "-12 deg"), (quantities.Gigabytes, "50 GB"),
    (quantities.RangeOfSeconds, "< 12 h"), (quantities.RangeOfDegrees, "> 0 deg"),
    (quantities.RangeOfGigabytes, "< 50 GB"), (quantities.RangeOfDensity, "> 200000 / deg2"),
    (quantities.RangeOfNumbers, ">= 10"), (rules_grammar.TimeOfDay, "14:00"), (rules_grammar.FieldRange, "600-699"), (datetime, "2026-03-01 16:00"),
    (rules_grammar.Call, "clean_sandbox: {keep_nights: 30}"),
)  # fmt: skip
"""Kinds of values, and how one is written."""


def _rules_grammar() -> str:
    parts = []
    for title, part in _PARTS:
        docs, hints = dict(_attribute_docs(part)), get_type_hints(part, include_extras=True)
        rows = []
        for name, field in part.model_fields.items():
            default = "needed" if field.is_required() else _rules_default(field.default)
            rows.append((f"`{field.alias or name}`", _rules_written(hints[name]), default, docs.get(name, "")))
        meaning = " ".join(str(part.__doc__).split())
        parts.append(f"### {title}\n\n{meaning}\n\n" + _table(("key", "written", "unless told", "meaning"), rows))
    return "\n".join(parts)


def _rules_default(value: Any) -> str:
    if value is None or value == () or isinstance(value, rules_grammar.Part):
        return ""
    if isinstance(value, float):
        return f"{value:g} deg" if value < 0 else quantities.duration_text(value)
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()


def _rules_written(hint: Any) -> str:
    """Return how a value of a kind is written."""
    for kind, example in _WRITTEN:
        if hint == kind:
            return f"`{example}`"
    origin, inner = get_origin(hint), [item for item in get_args(hint) if item not in (NoneType, Ellipsis)]
    if origin is Literal:
        return ", ".join(map(str, inner))
    if origin in (Union, UnionType) or origin is Annotated:
        return _rules_written(inner[0])
    if origin is tuple:
        return f"{_rules_written(inner[0])}; or a list" if inner else ""
    plain = {bool: "true, false", int: "number", str: "text"}
    return plain.get(hint, "a section" if isinstance(hint, type) and issubclass(hint, rules_grammar.Part) else "")


def _rules_shipped() -> str:
    file = parse(read_text(SHIPPED)).file
    assert file is not None
    rows = []
    for rule in file.rules:
        besides = only_if_words(rule.only_if)
        when = when_words(rule.when) + (f"; if {besides}" if besides else "")
        rows.append((rule.name, when, do_words(rule), catch_up_of(rule) or "", rule.description))
    return _table(("rule", "when", "does", "catches up", "what for"), rows)


def _rules_actions() -> str:
    actions = {**action_names.HOUSEKEEPING, **action_names.PIPELINES}
    return _table(("action", "what it does"), [(f"`{name}`", text) for name, text in actions.items()])


def _alarm_kinds() -> str:
    parts = []
    for kind in ALARM_KINDS.values():
        title = kind.name.replace("_", " ")
        parts.append(
            f"## {kind.name}\n\n*{title}, {kind.severity}.* {kind.meaning}\n\n**What to do.** {kind.what_to_do}\n"
        )
    return "\n".join(parts)


def _alarm_limits() -> str:
    docs = dict(_attribute_docs(Limits))
    rows = [(f"`{one.name}`", f"{getattr(Limits(), one.name)}", docs[one.name]) for one in dataclasses.fields(Limits)]
    return _table(("limit", "default", "meaning"), rows)


def _status_figures() -> str:
    state = OperatorState(
        pid=1, host="", version="", started=0, beat=0, clock=0, night=20260101, mode="running", last_alert=0.0
    )
    facts = Facts(
        "", 0.0, OperationSettings(), state, 0.0, False, last_received=0.0, has_stream=True, sun_altitude_deg=0.0
    )
    families = {one.name: one for one in [*figures_of(facts), *Figures(lambda: facts).histograms()]}
    endings = {"counter": "_total", "info": "_info", "histogram": "_bucket, _sum, _count"}
    rows = [
        (
            f"`{one.name}`",
            f"{one.type} {endings.get(one.type, '')}".strip(),
            ", ".join(_labels_of(one)),
            one.documentation,
        )
        for one in families.values()
    ]
    return _table(("figure", "kind", "labels", "meaning"), rows)


def _labels_of(family: Any) -> Sequence[str]:
    return [f"`{label}`" for label in getattr(family, "_labelnames", ())]


def _unknown(rule: FieldRule) -> str:
    values = ", ".join("null" if value is None else f"`{value}`" for value in rule.unknown)
    return f"{values}: {rule.reason}" if rule.unknown else ""


def _parameters(settings: PipelineSettings) -> str:
    parts = []
    for section in dataclasses.fields(settings):
        config = getattr(settings, section.name)
        rows = [(f"`{name}`", _shown(value), doc) for name, value, doc in _leaves(config)]
        parts.append(
            f"({_label(section.name)})=\n## {section.name}\n\n" + _table(("parameter", "default", "meaning"), rows)
        )
    return "\n".join(parts)


def _label(section: str) -> str:
    return f"parameters-{section.replace('_', '-')}"


def _leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yield name, default and meaning of every parameter, those of nested sections with dots."""
    docs = dict(_attribute_docs(type(config)))
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, value, docs.get(item.name, "")


def _attribute_docs(kind: type[Any]) -> Iterator[tuple[str, str]]:
    """Yield the names of a class's attributes and the strings that follow them in the source."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]
    for statement, following in zip(body, body[1:], strict=False):
        target = getattr(statement, "target", None) or next(iter(getattr(statement, "targets", ())), None)
        is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        if isinstance(target, ast.Name) and is_text:
            yield target.id, " ".join(str(following.value.value).split())


def _shown(value: Any) -> str:
    if isinstance(value, IntFlag):
        return " ".join(f"`{bit.name}`" for bit in type(value) if bit & value)
    return f"`{value!r}`" if value != VetConfig().model else "(empty)"


def _table(head: Row, rows: Iterable[Row]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines) + "\n"
