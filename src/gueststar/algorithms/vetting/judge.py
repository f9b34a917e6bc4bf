"""How good scores are: completeness and purity, area under the curve, calibration, what is missed, and by class."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.vetting.calibration import expected_calibration_error, reliability_diagram

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

THRESHOLDS = (0.1, 0.3, 0.5, 0.8)
_MAGNITUDES = (0.0, 0.5, 1.0, 2.0, 3.0, np.inf)


def figures(scores: Floats, labels: Bools, snr: Floats) -> dict[str, Any]:
    """Return figures of scores of rows that a model was not trained on, as plain values.

    ``missed_at_1_percent`` is the fraction of real detections that score below the threshold which 1 % of the
    artefacts reach, in all and by brightness: magnitudes above the limit of five sigma.
    """
    diagram = reliability_diagram(scores, labels)
    at = {}
    for threshold in THRESHOLDS:
        kept = scores >= threshold
        at[str(threshold)] = {
            "completeness": _share(kept[labels]),
            "false_positive_rate": _share(kept[~labels]),
            "purity": _share(labels[kept]),
        }
    return {
        "area_under_curve": round(area_under_curve(scores, labels), 5),
        "calibration_error": round(expected_calibration_error(scores, labels), 4),
        "at_threshold": at,
        "missed_at_1_percent": _missed(scores, labels, snr),
        "diagram": {name: np.round(values, 4).tolist() for name, values in diagram._asdict().items()},
    }


def area_under_curve(scores: Floats, labels: Bools) -> float:
    """Return how often a real detection scores higher than an artefact (ties count half); NaN if one side is empty."""
    _, inverse, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - 0.5 * (count - 1))[inverse]
    n_real, n_false = int(labels.sum()), int((~labels).sum())
    if n_real == 0 or n_false == 0:
        return float("nan")
    return float((rank[labels].sum() - n_real * (n_real + 1) / 2) / (n_real * n_false))


def figures_by_kind(scores: Floats, kind: NDArray[Any], names: Mapping[int, str]) -> dict[str, dict[str, Any]]:
    """Return of every class that occurs its number of rows, median score, and the share kept at each threshold."""
    found = {}
    for number, name in names.items():
        mine = scores[kind == number]
        if mine.size:
            kept = {str(threshold): _share(mine >= threshold) for threshold in THRESHOLDS}
            found[name] = {"n": int(mine.size), "median": round(float(np.median(mine)), 4), "kept": kept}
    return found


def _missed(scores: Floats, labels: Bools, snr: Floats) -> dict[str, Any]:
    threshold = float(np.quantile(scores[~labels], 0.99)) if (~labels).any() else 0.0
    is_missed = scores[labels] <= threshold
    above = 2.5 * np.log10(np.maximum(snr[labels], 1.0) / 5.0)
    found: dict[str, Any] = {"threshold": round(threshold, 4), "all": _share(is_missed)}
    for low, high in itertools.pairwise(_MAGNITUDES):
        mine = (above >= low) & (above < high)
        name = f"{low} to {high} mag" if np.isfinite(high) else f"more than {low} mag"
        found[name] = {"n": int(mine.sum()), "missed": _share(is_missed[mine])}
    return found


def _share(values: Bools) -> float | None:
    return round(float(values.mean()), 4) if values.size else None
