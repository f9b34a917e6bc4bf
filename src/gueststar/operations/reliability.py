"""Reliability models of a survey for a reader: which there are, how they compare, how far a night has drifted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gueststar.algorithms.vetting.score import ReliabilityModel
from gueststar.core import times
from gueststar.formats.reliability_model import default_reliability_model, read_reliability_model
from gueststar.model.labels import LabelledDetections
from gueststar.pipelines.difference.train import measure_reliability
from gueststar.store.reliability_models import ReliabilityModels

SHIPPED = "shipped"


def model_named(name: str, repo: Path | None = None) -> ReliabilityModel:
    """Return the model at a path, of a version of a survey, or (``shipped``, or no name) the one that ships.

    With a survey and no name it is the one in use there. Raises ConfigError if there is none.
    """
    if name == SHIPPED or (not name and repo is None):
        return default_reliability_model()
    if repo is None or name.endswith(".json"):
        return read_reliability_model(Path(name))
    models = ReliabilityModels(repo)
    return models.model(name) if name else models.in_use() or default_reliability_model()


def model_lines(repo: Path) -> list[str]:
    """Return one line a version, and when which was in use."""
    models = ReliabilityModels(repo)
    lines = []
    for row in models.rows():
        figures = ", ".join(
            f"{title} {row[name]:{form}}"
            for name, title, form in (
                ("area_under_curve", "area under the curve", ".4f"), ("calibration_error", "calibration error", ".3f"),
                ("missed_at_1_percent", "missed at 1 % of the artefacts", ".1%"),
            ) if row[name] is not None
        )  # fmt: skip
        lines.append(
            f"{'*' if row['is_in_use'] else ' '} {row['version']} ({row['network'] or 'features only'}): "
            f"{row['n_real']} real, {row['n_artefact']} artefacts, set {row['training_set'][:12] or '?'}; {figures}"
        )
    lines += [f"  {times.isot_utc(use.mjd_tai)[:19]} {use.version} by {use.person}" for use in models.uses()]
    return lines


def comparison_lines(one: ReliabilityModel, other: ReliabilityModel, labelled: LabelledDetections) -> list[str]:
    """Return figures of two models on the same labelled detections, side by side."""
    first, second = (measure_reliability(model, labelled) for model in (one, other))
    lines = [f"{'':<44}{one.version:>24}{other.version:>24}"]
    for title, names in _COMPARED.items():
        lines.append(_line(title, _at(first, names), _at(second, names)))
    for kind in first["by_kind"]:
        title = f"{kind} ({first['by_kind'][kind]['n']}) kept at 0.3"
        lines.append(_line(title, *(figures["by_kind"][kind]["kept"]["0.3"] for figures in (first, second))))
    return lines


_COMPARED = {
    "area under the curve": ("area_under_curve",),
    "expected calibration error": ("calibration_error",),
    "real ones kept at 0.3": ("at_threshold", "0.3", "completeness"),
    "artefacts kept at 0.3": ("at_threshold", "0.3", "false_positive_rate"),
    "real ones missed at 1 % of the artefacts": ("missed_at_1_percent", "all"),
}


def _at(figures: dict[str, Any], names: tuple[str, ...]) -> float | None:
    value: Any = figures
    for name in names:
        value = value[name]
    return value


def _line(title: str, *values: float | None) -> str:
    return f"{title:<44}" + "".join(f"{'?' if value is None else format(value, '.4f'):>24}" for value in values)
