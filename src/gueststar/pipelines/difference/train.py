"""Train the reliability model on labelled detections."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.vetting.boosted_trees import BoostingConfig
from gueststar.algorithms.vetting.calibration import calibrated, logistic
from gueststar.algorithms.vetting.drift import bin_counts, bin_edges
from gueststar.algorithms.vetting.features import FEATURE_NAMES, FEATURE_VERSION, measure_features
from gueststar.algorithms.vetting.fit_network import NetworkConfig
from gueststar.algorithms.vetting.judge import figures, figures_by_kind
from gueststar.algorithms.vetting.score import (
    FittedNetwork,
    FittedTrees,
    ReliabilityModel,
    Scores,
    fit_calibrated_network,
    fit_calibrated_trees,
    score,
)
from gueststar.core.errors import DataError
from gueststar.model.catalog import Catalog
from gueststar.model.labels import DetectionKind, LabelledDetections

_LEAST = 50
_NAMES = {int(kind): kind.title for kind in DetectionKind if kind is not DetectionKind.UNKNOWN}


@dataclass(frozen=True)
class TrainingConfig:
    """How the reliability model is trained."""

    boosting: BoostingConfig = field(default_factory=BoostingConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    judged_fifths: int = 1
    """Fifths of the images that judge a network trained without them: 1 trains once, 5 six times, and the network
    that is kept has then seen all."""
    noise_counts: int = 4
    """How often each peak of noise counts. Images that are labelled for training, rendered scenes above all, hold more
    changes than skies do, by about this much; else the highest peaks of noise, which only their rarity tells from faint
    sources, would be taken for likelier real than they are."""
    name: str = ""
    """First part of the model's version; the rest is a digest of what it was trained on. Empty: what it is made of."""
    note: str = ""
    """What the rows are, in words."""


class TrainReliability:
    """Fit a reliability model and say how good it is on images it was not fitted to."""

    def __init__(self, config: TrainingConfig = TrainingConfig()) -> None:
        self.config = config

    def run(self, labelled: LabelledDetections) -> ReliabilityModel:
        """Return a model trained on labelled detections; DataError if either label is rare.

        Without cut-outs the model knows features only.
        """
        labels = labelled.is_real
        if min(labels.sum(), (~labels).sum()) < _LEAST:
            raise DataError(f"training needs 50 real and 50 artefacts, got {labels.sum()} and {(~labels).sum()}")
        features, groups = training_features(labelled.rows)
        is_noise = labelled.rows["kind"] == int(DetectionKind.NOISE)
        counts = np.where(is_noise, max(self.config.noise_counts, 1), 1)
        again = np.repeat(np.arange(len(labels)), counts)
        once = np.cumsum(counts) - 1
        trees = fit_calibrated_trees(features[again], labels[again], groups[again], config=self.config.boosting)
        network = None
        if labelled.views is not None:
            network = fit_calibrated_network(
                labelled.views.select(again), labels[again], groups[again], trees.held_out, config=self.config.network,
                n_judged=self.config.judged_fifths,
            )  # fmt: skip
        held_out = _held_out_scores(trees, network)
        card = self._card(labelled, features, groups, Scores(*(part[once] for part in held_out)))
        name = self.config.name or ("trees" if network is None else "trees_network")
        version = f"{name}_f{FEATURE_VERSION}_{card['digest'][:6]}"
        return ReliabilityModel(
            version, FEATURE_VERSION, FEATURE_NAMES, trees.trees, trees.calibration, card,
            network.network if network else None,
        )  # fmt: skip

    def _card(
        self, labelled: LabelledDetections, features: NDArray[np.float64], groups: NDArray[np.intp], held_out: Scores
    ) -> dict[str, Any]:
        labels = labelled.is_real
        judged = np.isfinite(held_out.reliability)
        return {
            "note": self.config.note,
            "digest": _digest(labelled, features),
            "n_real": int(labels.sum()),
            "n_artefact": int((~labels).sum()),
            "n_images": len(np.unique(groups)),
            "n_of_kind": {name: n for k, name in _NAMES.items() if (n := int((labelled.rows["kind"] == k).sum()))},
            "boosting": asdict(self.config.boosting),
            "network": asdict(self.config.network) if labelled.views is not None else None,
            "noise_counts": self.config.noise_counts,
            "held_out": _figures(
                Scores(*(part[judged] for part in held_out)), labelled.select(np.flatnonzero(judged)).rows
            ),
            "distribution": _distribution(features, held_out),
        }


def measure_reliability(model: ReliabilityModel, labelled: LabelledDetections) -> dict[str, Any]:
    """Return the figures of a model on labelled detections that it was not trained on."""
    labels = labelled.is_real
    if labels.all() or not labels.any():
        raise DataError("a test needs real detections and artefacts")
    features, _ = training_features(labelled.rows)
    found = _figures(score(model, features, labelled.views), labelled.rows)
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


SCORE_EDGES = np.array([0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.97, 0.99])
"""Edges of the bins in which scores are counted."""

SCORE_NAMES = ("reliability", "stamp_reliability")
"""Scores whose distribution is watched beside the features'."""


def watched_edges(model: ReliabilityModel) -> list[NDArray[np.float64]] | None:
    """Return the edges of the bins of features and scores in which a model counted its training rows; None if not."""
    distribution = model.training.get("distribution")
    if not distribution:
        return None
    return [np.asarray(edges, dtype=np.float64) for edges in distribution["edges"]]


def watched_values(features: NDArray[np.float64], scores: Scores) -> NDArray[np.float64]:
    """Return ``[n, n_features + 2]``: features, reliability, score of the cut-outs alone."""
    return np.column_stack([features, scores.reliability, scores.stamps])


def _distribution(features: NDArray[np.float64], held_out: Scores) -> dict[str, Any]:
    edges = [*bin_edges(features), SCORE_EDGES, SCORE_EDGES]
    counts = bin_counts(watched_values(features, held_out), edges)
    if np.isfinite(held_out.stamps).any():  # rows that the network was trained on have no held-out score
        for count in counts[-len(SCORE_NAMES) :]:
            count[-1] = 0
    return {
        "names": [*FEATURE_NAMES, *SCORE_NAMES],
        "edges": [[float(f"{edge:.6g}") for edge in inner] for inner in edges],
        "counts": [count.tolist() for count in counts],
    }


def _held_out_scores(trees: FittedTrees, network: FittedNetwork | None) -> Scores:
    alone = calibrated(trees.calibration, trees.held_out)
    if network is None:
        return Scores(alone, alone, np.full(len(alone), np.nan))
    both = logistic(network.network.stack.log_odds(trees.held_out, network.held_out))
    return Scores(both, alone, calibrated(network.network.calibration, network.held_out))


def _figures(scores: Scores, rows: Catalog) -> dict[str, Any]:
    """Return the figures of the whole score, by class too, and shorter ones of its two parts."""
    labels, snr = rows["is_real"].astype(bool), np.abs(rows["snr"].astype(np.float64))
    found = figures(scores.reliability, labels, snr)
    found["by_kind"] = figures_by_kind(scores.reliability, rows["kind"], _NAMES)
    if np.isfinite(scores.stamps).all():
        for name, part in (("features", scores.features), ("stamps", scores.stamps)):
            alone = figures(part, labels, snr)
            short = ("area_under_curve", "calibration_error", "at_threshold")
            found[f"{name}_alone"] = {key: alone[key] for key in short}
            found[f"{name}_alone"]["missed_at_1_percent"] = alone["missed_at_1_percent"]["all"]
    return found


def _digest(labelled: LabelledDetections, features: NDArray[np.float64]) -> str:
    """Return a digest of the training rows and their cut-outs."""
    parts = [features, labelled.is_real, *(labelled.views or ())]
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()
