"""Tables of the documentation that are made from the code when the pages are built."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from enum import IntFlag
from pathlib import Path
from typing import Any

from gueststar.algorithms.alerts.history_features import FEATURES
from gueststar.cli.ways_out import ADDRESSES, COMMANDS
from gueststar.core.bits import UNUSABLE, MaskPlane, SourceFlag
from gueststar.formats.conditions.grammar import GRAMMAR
from gueststar.formats.ztf_fields import FieldRule, field_rules
from gueststar.model import columns, instrumental_columns
from gueststar.model.catalog import Schema
from gueststar.model.metrics import METRICS, Metric
from gueststar.operations.metrics.definitions import DEFINITIONS
from gueststar.pipelines.difference.vet import VetConfig
from gueststar.pipelines.night.settings import PipelineSettings
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
