"""Metrics in words and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from gueststar.operations.metrics.definitions import BY_NAME, DEFINITIONS, Levels, NamedMetric
from gueststar.store.metric_values import MetricValue


def band_of(value: MetricValue) -> str | None:
    """Return the band of a value's scope, if it has one."""
    return next((part[5:] for part in value.scope.split() if part.startswith("band=")), None)


def standing_of(value: MetricValue) -> str:
    """Return the best level that a value meets; empty where there is none to meet."""
    metric = BY_NAME.get(value.name)
    return metric.standing(value.value, band_of(value)) if metric else ""


def shown(number: float | None) -> str:
    """Return a number with as many digits as it is worth."""
    return "-" if number is None else f"{number:.3g}" if abs(number) < 1000 else f"{number:.0f}"


def value_line(value: MetricValue) -> str:
    """Return one measurement in a line."""
    metric = BY_NAME.get(value.name)
    unit = f" {metric.unit}" if metric and metric.unit else ""
    where = f"{value.scope or 'all':12s} {value.day_obs or 'survey'}"
    if value.value is None:
        return f"{value.name:24s} {where}  not measured: {value.data.get('why', 'no reason was given')}"
    error = "" if value.error is None else f" ± {shown(value.error)}"
    standing = {"below": "does not meet the minimum", "": ""}.get(word := standing_of(value), f"meets {word}")
    return (
        f"{value.name:24s} {where}  {shown(value.value)}{error}{unit}, n {value.n}{f': {standing}' if standing else ''}"
    )


def definition_lines(metric: NamedMetric) -> list[str]:
    """Return what a metric is."""
    lines = [f"{metric.name}{f' [{metric.unit}]' if metric.unit else ''}: {metric.doc}"]
    for levels, where in ((metric.levels, ""), (metric.red_levels, " in u, z, y")):
        if levels is not None:
            lines.append(f"  levels{where}: {_levels(levels)}")
    return lines + ([f"  {metric.reference}"] if metric.reference else [])


def _levels(levels: Levels) -> str:
    return ", ".join(f"{name} {shown(level)}" for name, level in levels._asdict().items() if level is not None)


def history_line(value: MetricValue) -> str:
    """Return when and with what a value was measured."""
    when = datetime.fromtimestamp(value.measured, UTC).strftime("%Y-%m-%d %H:%M")
    return f"{when}  {value.version:16s} {value_line(value)}"


def compared(values: Iterable[MetricValue], first: str, second: str) -> list[dict[str, Any]]:
    """Return metrics that two versions measured on the same, with the change and its size in sigmas.

    Of several nights that both measured each is compared with itself.
    """
    by_key: dict[tuple[str, int | None, str], dict[str, MetricValue]] = {}
    for value in values:
        by_key.setdefault((value.name, value.day_obs, value.scope), {})[value.version] = value
    rows = []
    for (name, night, scope), mine in by_key.items():
        one, two = mine.get(first), mine.get(second)
        if one is None or two is None or one.value is None or two.value is None:
            continue
        change, errors = two.value - one.value, (one.error, two.error)
        sigma = sum(error**2 for error in errors if error is not None) ** 0.5
        metric = BY_NAME.get(name)
        is_better = change > 0 if metric is not None and metric.is_higher_better else change < 0
        rows.append({
            "name": name, "night": night, "scope": scope, "unit": metric.unit if metric else "", first: one.value,
            second: two.value, "change": change, "sigmas": abs(change) / sigma if sigma > 0 else None,
            "verdict": "same" if change == 0 else "better" if is_better else "worse",
        })  # fmt: skip
    order = {metric.name: number for number, metric in enumerate(DEFINITIONS)}
    return sorted(rows, key=lambda row: (order.get(str(row["name"]), 999), str(row["scope"]), row["night"] or 0))


def as_json(value: MetricValue) -> dict[str, Any]:
    """Return a measurement as plain values."""
    metric = BY_NAME.get(value.name)
    return {
        "name": value.name, "unit": metric.unit if metric else "", "night": value.day_obs, "scope": value.scope,
        "value": value.value, "error": value.error, "n": value.n, "version": value.version, "measured": value.measured,
        "standing": standing_of(value), "why": value.data.get("why", ""),
    }  # fmt: skip
