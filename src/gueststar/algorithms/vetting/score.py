"""The reliability score of detections: trees on features, a network on cut-outs, and both together, calibrated."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.vetting.boosted_trees import BoostingConfig, Trees, fit_trees, log_odds, mean_of_trees
from gueststar.algorithms.vetting.calibration import (
    Calibration,
    Stack,
    calibrated,
    fit_calibration,
    fit_stack,
    logistic,
)
from gueststar.algorithms.vetting.fit_network import NetworkConfig, fit_network
from gueststar.algorithms.vetting.network import StampNetwork
from gueststar.algorithms.vetting.stamps import StampViews

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CalibratedNetwork:
    """A network, what makes its own log odds come true, and its part in the whole."""

    network: StampNetwork
    calibration: Calibration
    stack: Stack


@dataclass(frozen=True, eq=False)
class ReliabilityModel:
    """A trained model and what it was trained on."""

    version: str
    """Name on the wire (``rbversion``)."""
    feature_version: int
    feature_names: tuple[str, ...]
    trees: Trees
    calibration: Calibration
    """Of the trees alone, which is used where there are no cut-outs."""
    training: dict[str, Any] = field(default_factory=dict)
    """The card: numbers of rows, figures on rows kept aside, distributions of the features."""
    network: CalibratedNetwork | None = None
    """None: the model knows features only."""

    @property
    def network_version(self) -> str:
        """Name of the network on the wire (``drbversion``); empty if there is none."""
        return self.network.network.version if self.network else ""


class Scores(NamedTuple):
    """Probabilities of being real, 0 to 1."""

    reliability: Floats
    """Of features and cut-outs together."""
    features: Floats
    """Of the features alone."""
    stamps: Floats
    """Of the cut-outs alone; NaN where there is no network, or nothing for it to look at."""


def score(model: ReliabilityModel, features: Floats, views: StampViews | None = None) -> Scores:
    """Return the scores of rows ``[n, n_features]``, with their cut-outs where there are any."""
    n = features.shape[0]
    if n == 0:
        return Scores(np.zeros(0), np.zeros(0), np.zeros(0))
    by_features = log_odds(model.trees, features)
    alone = calibrated(model.calibration, by_features)
    if model.network is None or views is None:
        return Scores(alone, alone, np.full(n, np.nan))
    by_stamps = model.network.network.log_odds(views)
    return Scores(
        logistic(model.network.stack.log_odds(by_features, by_stamps)),
        alone,
        calibrated(model.network.calibration, by_stamps),
    )


def blended(one: ReliabilityModel, other: ReliabilityModel) -> ReliabilityModel:
    """Return a model whose trees are the mean of two models'; network, calibration and stack are those of ``one``.

    Forests fitted to different sets err differently, so that their mean holds for more images than either. The card is
    that of ``one``, its figures too, and names both: measure the result on rows that neither saw.
    """
    names = [f"{model.version} {model.training.get('digest', '')}" for model in (one, other)]
    digest = hashlib.blake2b("\n".join(names).encode(), digest_size=16).hexdigest()
    facts = ("n_real", "n_artefact", "n_images", "note")
    parts = {model.version: {name: model.training.get(name) for name in facts} for model in (one, other)}
    return replace(
        one, version=f"{one.version.rsplit('_', 1)[0]}_{digest[:6]}", trees=mean_of_trees(one.trees, other.trees),
        training={**one.training, "digest": digest, "blended": parts},
    )  # fmt: skip


def folds_of(groups: NDArray[Any], n_folds: int) -> NDArray[np.intp]:
    """Return the fold of every row, the same for rows of one group.

    Rows of one image share their group, so that what one image's rows have in common is not learnt.
    """
    _, number = np.unique(groups, return_inverse=True)
    return np.asarray(number % n_folds, dtype=np.intp)


class FittedTrees(NamedTuple):
    """Trees fitted to all rows."""

    trees: Trees
    calibration: Calibration
    held_out: Floats
    """Log odds of every row from trees that were not fitted to its group."""


def fit_calibrated_trees(
    features: Floats, labels: Bools, groups: NDArray[Any], *, config: BoostingConfig, n_folds: int = 5
) -> FittedTrees:
    """Fit trees, judge them on rows that they had not seen, and calibrate them on those."""
    fold, held_out = folds_of(groups, n_folds), np.zeros(len(labels))
    for k in range(n_folds):
        mine = fold == k
        if mine.any() and (~mine).any():
            held_out[mine] = log_odds(fit_trees(features[~mine], labels[~mine], config=config), features[mine])
    return FittedTrees(fit_trees(features, labels, config=config), fit_calibration(held_out, labels), held_out)


class FittedNetwork(NamedTuple):
    """A network and how it did on rows that it, or one of its kind, had not seen."""

    network: CalibratedNetwork
    held_out: Floats
    """Log odds; NaN of rows that every network saw."""


def fit_calibrated_network(
    views: StampViews, labels: Bools, groups: NDArray[Any], trees_held_out: Floats, *, config: NetworkConfig,
    n_folds: int = 5, n_judged: int = 1,
) -> FittedNetwork:  # fmt: skip
    """Fit a network, and how it is put together with trees.

    ``n_judged`` of ``n_folds`` parts of the images are kept from a network of their own, which judges them. With one,
    that network is the result (one training); with all, one that has seen every row (``n_folds`` + 1 trainings).
    """
    fold, held_out = folds_of(groups, n_folds), np.full(len(labels), np.nan)
    network: StampNetwork | None = None
    for k in range(min(n_judged, n_folds)):
        mine = fold == k
        network = fit_network(views.select(~mine), labels[~mine], config=config)
        held_out[mine] = network.log_odds(views.select(mine))
    if n_judged != 1 or network is None:
        network = fit_network(views, labels, config=config)
    judged = np.isfinite(held_out)
    calibration = fit_calibration(held_out[judged], labels[judged])
    stack = fit_stack(trees_held_out[judged], held_out[judged], labels[judged])
    return FittedNetwork(CalibratedNetwork(network, calibration, stack), held_out)
