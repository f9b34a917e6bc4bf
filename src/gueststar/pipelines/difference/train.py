"""Train the reliability model on labelled detections."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.vetting.boosted_trees import BoostingConfig
from gueststar.algorithms.vetting.calibration import reliability_diagram
from gueststar.algorithms.vetting.features import FEATURE_NAMES, FEATURE_VERSION, measure_features
from gueststar.algorithms.vetting.score import ReliabilityModel, fit_calibrated_trees, score
from gueststar.core.errors import DataError
from gueststar.model.catalog import Catalog, Column, Schema
from gueststar.model.columns import DIA_SOURCE

LABELLED_SOURCE = Schema(
    "labelled_source",
    (
        *DIA_SOURCE.columns,
        Column("is_real", "?", "", "a thing on the sky that changed, not an artefact"),
    ),
)
"""Training rows: detections as measured, with the truth. Rows of one visit and detector belong together."""


@dataclass(frozen=True)
class TrainingConfig:
    """How the reliability model is trained."""

    boosting: BoostingConfig = field(default_factory=BoostingConfig)
    name: str = "trees"
    """First part of the model's version; the rest is a digest of what it was trained on."""
    note: str = ""
    """What the rows are, in words."""


class TrainReliability:
    """Fit a reliability model and say how good it is on images it was not fitted to."""

    def __init__(self, config: TrainingConfig = TrainingConfig()) -> None:
        self.config = config

    def run(self, rows: Catalog) -> ReliabilityModel:
        """Return a model trained on `LABELLED_SOURCE` rows; DataError if either label is rare."""
        labels = rows["is_real"].astype(bool)
        if min(labels.sum(), (~labels).sum()) < 50:
            raise DataError(f"training needs 50 real and 50 artefacts, got {labels.sum()} and {(~labels).sum()}")
        features, groups = training_features(rows)
        trees, calibration, held_out = fit_calibrated_trees(features, labels, groups, config=self.config.boosting)
        digest = hashlib.blake2b(np.ascontiguousarray(features).tobytes() + labels.tobytes(), digest_size=3).hexdigest()
        training = {
            "note": self.config.note,
            "n_real": int(labels.sum()),
            "n_artefact": int((~labels).sum()),
            "n_images": len(np.unique(groups)),
            "boosting": asdict(self.config.boosting),
            "held_out": figures(held_out, labels, np.abs(rows["snr"].astype(np.float64))),
        }
        version = f"{self.config.name}_f{FEATURE_VERSION}_{digest}"
        return ReliabilityModel(version, FEATURE_VERSION, FEATURE_NAMES, trees, calibration, training)


def measure_reliability(model: ReliabilityModel, rows: Catalog) -> dict[str, Any]:
    """Return the figures of a model on `LABELLED_SOURCE` rows that it was not trained on."""
    labels = rows["is_real"].astype(bool)
    if labels.all() or not labels.any():
        raise DataError("a test needs real detections and artefacts")
    features, _ = training_features(rows)
    found = figures(score(model, features), labels, np.abs(rows["snr"].astype(np.float64)))
    return {"n_real": int(labels.sum()), "n_artefact": int((~labels).sum()), **found}


def training_features(rows: Catalog) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the features of labelled rows and the number of the image that each is from."""
    keys = np.stack([rows["visit"], rows["detector"]])
    images, group = np.unique(keys, axis=1, return_inverse=True)
    group = group.ravel()
    features = np.empty((rows.n_rows, len(FEATURE_NAMES)))
    for image in range(images.shape[1]):
        mine = np.flatnonzero(group == image)
        features[mine] = measure_features(rows.select(mine))
    return features, group


def figures(scores: NDArray[np.float64], labels: NDArray[np.bool_], snr: NDArray[np.float64]) -> dict[str, Any]:
    """Return completeness and purity at some thresholds, the area under the curve, the diagram, and what is missed.

    ``missed_at_1_percent`` is the fraction of real detections that score below the threshold which 1 % of the
    artefacts reach, in all and by brightness: magnitudes above the limit of five sigma.
    """
    diagram = reliability_diagram(scores, labels)
    order = np.argsort(scores, kind="stable")
    rank = np.empty(len(scores))
    rank[order] = np.arange(1, len(scores) + 1)
    n_real, n_false = int(labels.sum()), int((~labels).sum())
    area = (rank[labels].sum() - n_real * (n_real + 1) / 2) / max(n_real * n_false, 1)
    at = {}
    for threshold in (0.1, 0.3, 0.5, 0.8):
        kept = scores >= threshold
        at[str(threshold)] = {
            "completeness": round(float(kept[labels].mean()), 4),
            "false_positive_rate": round(float(kept[~labels].mean()), 4),
            "purity": round(float(labels[kept].mean()), 4) if kept.any() else None,
        }
    return {
        "area_under_curve": round(float(area), 5),
        "at_threshold": at,
        "missed_at_1_percent": _missed(scores, labels, snr),
        "diagram": {name: np.round(values, 4).tolist() for name, values in diagram._asdict().items()},
    }


def _missed(scores: NDArray[np.float64], labels: NDArray[np.bool_], snr: NDArray[np.float64]) -> dict[str, Any]:
    threshold = float(np.quantile(scores[~labels], 0.99)) if (~labels).any() else 0.0
    is_missed = scores[labels] <= threshold
    above = 2.5 * np.log10(np.maximum(snr[labels], 1.0) / 5.0)
    found: dict[str, Any] = {"threshold": round(threshold, 4), "all": round(float(is_missed.mean()), 4)}
    for low, high in itertools.pairwise((0.0, 0.5, 1.0, 2.0, 3.0, np.inf)):
        mine = (above >= low) & (above < high)
        name = f"{low} to {high} mag" if np.isfinite(high) else f"more than {low} mag"
        found[name] = {"n": int(mine.sum()), "missed": round(float(is_missed[mine].mean()), 4) if mine.any() else None}
    return found
