"""What a survey needs, in words and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from gueststar.operations.sizing.claims import Finding, examine
from gueststar.operations.sizing.description import Survey
from gueststar.operations.sizing.model import Figure, Sizing, size_survey
from gueststar.operations.sizing.throughput import Costs, Throughput, costs_of

GROUPS: dict[str, tuple[str, ...]] = {
    "data": ("camera_mpix", "exposure_bytes", "raw_mbps", "images_per_minute", "mpix_per_s", "hours_per_night",
             "images_per_night", "raw_per_night", "raw_per_year", "raw_total", "images", "references"),
    "by its own documents": ("their_cores", "their_products_per_night", "their_products_total",
                             "their_references_bytes"),
    "with gueststar: computing": ("cpu_s_per_image", "cpu_s_per_crowded_image", "cores_busy", "cores_needed",
                                  "cores_planned", "memory", "reprocess_night_h"),
    "with gueststar: latency": ("transfer_s", "latency_p50", "latency_p95", "latency_p99"),
    "with gueststar: disks": ("images_bytes_per_night", "catalogs_bytes_per_night", "packets_bytes_per_night",
                              "raw_stored", "products_stored", "references_bytes", "disk_total"),
    "with gueststar: network and alerts": ("network_in_mbps", "alerts_per_night", "alerts_per_s", "peak_alerts_per_s",
                                           "network_alerts_mbps"),
}  # fmt: skip
"""Figures as they are shown."""

NEAR = 0.15
"""A figure that is told and one that follows agree within this share: documents round."""


def shown(figure: Figure) -> str:
    """Return a figure with a readable unit."""
    value, unit = figure.value, figure.unit
    if unit == "B":
        for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
            if abs(value) < 1000 or unit == "PB":
                break
            value /= 1000.0
    return f"{_number(value)} {unit}".rstrip()


def _number(value: float) -> str:
    if abs(value) >= 1e6:
        return f"{value / 1e6:.3g} million" if abs(value) < 1e9 else f"{value / 1e9:.3g} billion"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def size_lines(sizing: Sizing, findings: list[Finding], throughput: Throughput) -> list[str]:
    """Return what a survey needs, each figure with what it follows from."""
    survey = sizing.survey
    skies = ", ".join(sky.name for sky in throughput.skies)
    lines = [
        survey.title,
        f"costs measured {throughput.date} on {throughput.machine} (gueststar {throughput.version}; {skies})",
    ]
    for group, names in GROUPS.items():
        known = [sizing.figures[name] for name in names if name in sizing.figures]
        if known and any(figure.value for figure in known):
            lines += ["", group] + [_line(figure) for figure in known]
    told = told_rows(sizing)
    if told:
        lines += ["", "what its documents say"]
        lines += [
            f"  {row['what']}: {row['told']}, here {row['here']}: {row['verdict']} ({row['source']})" for row in told
        ]
    if findings:
        lines += ["", "what its statements come to"]
        lines += [f"  {'holds' if item.holds else 'CONTRADICTION'}: {item.statement}: {item.text}" for item in findings]
    if sizing.latency is not None and not sizing.latency.is_stable:
        lines += ["", "  these cores do not keep up: the queue grows through the night"]
    return lines + ([""] if sizing.remarks else []) + [f"  {remark}" for remark in sizing.remarks]


def _line(figure: Figure) -> str:
    return f"  {figure.name.replace('_', ' '):26} {shown(figure):>16}   {figure.follows}"


def told_rows(sizing: Sizing) -> list[dict[str, Any]]:
    """Return figures of the survey's documents beside those that follow here."""
    rows = []
    for told in sizing.survey.told:
        here = sizing.figures[told.figure]
        ratio = here.value / told.value
        verdict = "the same" if abs(ratio - 1.0) <= NEAR else f"{ratio:.2g} times as much"
        verdict = f"{verdict}, taken from it" if told.is_input else verdict
        rows.append({
            "what": told.what, "told": shown(Figure(told.what, told.value, told.unit, "")),
            "here": shown(Figure(told.what, here.value, told.unit, "")), "ratio": ratio, "verdict": verdict,
            "source": told.source,
        })  # fmt: skip
    return rows


def size_of(survey: Survey, throughput: Throughput) -> tuple[Sizing, list[Finding], Costs]:
    """Return what a survey needs, what its statements come to, and the costs that were used."""
    costs = costs_of(throughput)
    sizing = size_survey(survey, costs)
    return sizing, examine(survey, sizing, costs), costs


def as_json(sizing: Sizing, findings: list[Finding], throughput: Throughput) -> dict[str, Any]:
    """Return the same as plain values."""
    return {
        "survey": sizing.survey.model_dump(mode="json"),
        "figures": {name: asdict(figure) for name, figure in sizing.figures.items()},
        "told": told_rows(sizing), "findings": [asdict(item) for item in findings], "remarks": list(sizing.remarks),
        "measured": {"machine": throughput.machine, "date": throughput.date, "version": throughput.version},
    }  # fmt: skip
