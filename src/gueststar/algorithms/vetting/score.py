"""The reliability score of detections: trees, then a calibration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.vetting.boosted_trees import BoostingConfig, Trees, fit_trees, log_odds
from gueststar.algorithms.vetting.calibration import Calibration, calibrated, fit_calibration

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ReliabilityModel:
    """A trained model and what it was trained on."""

    version: str
    """Name on the wire (``rbversion``)."""
    feature_version: int
    feature_names: tuple[str, ...]
    trees: Trees
    calibration: Calibration
    training: dict[str, Any] = field(default_factory=dict)
    """Numbers of rows, figures on rows kept aside, reliability diagram."""


def score(model: ReliabilityModel, features: Floats) -> Floats:
    """Return the probability of each row ``[n, n_features]`` of being real, 0 to 1."""
    if features.shape[0] == 0:
        return np.zeros(0)
    return calibrated(model.calibration, log_odds(model.trees, features))


def cross_validated_log_odds(
    features: Floats, labels: NDArray[np.bool_], groups: NDArray[Any], *, config: BoostingConfig, n_folds: int = 5
) -> Floats:
    """Return log odds of every row from trees that were not fitted to its group.

    Rows of one image share their group, so that what one image's rows have in common is not learnt.
    """
    kinds = np.unique(groups)
    fold_of = dict(zip(kinds.tolist(), (np.arange(len(kinds)) % n_folds).tolist(), strict=True))
    fold = np.array([fold_of[group] for group in groups.tolist()])
    held_out = np.zeros(len(labels))
    for k in range(n_folds):
        mine = fold == k
        if mine.any() and (~mine).any():
            held_out[mine] = log_odds(fit_trees(features[~mine], labels[~mine], config=config), features[mine])
    return held_out


def fit_calibrated_trees(
    features: Floats, labels: NDArray[np.bool_], groups: NDArray[Any], *, config: BoostingConfig
) -> tuple[Trees, Calibration, Floats]:
    """Return trees fitted to all rows, their calibration, and scores of rows by trees that had not seen them."""
    held_out = cross_validated_log_odds(features, labels, groups, config=config)
    line = fit_calibration(held_out, labels)
    return fit_trees(features, labels, config=config), line, calibrated(line, held_out)
