"""From a classifier's log odds to probabilities that come true."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


class Calibration(NamedTuple):
    """Log odds that come true are ``slope * log_odds + offset``."""

    slope: float
    offset: float


class Stack(NamedTuple):
    """Log odds of two classifiers together, which come true: a weighted sum."""

    features: float
    """Weight of the trees' log odds."""
    stamps: float
    """Weight of the network's."""
    offset: float

    def log_odds(self, features: Floats, stamps: Floats) -> Floats:
        """Return the calibrated log odds."""
        return self.features * features + self.stamps * stamps + self.offset


class ReliabilityDiagram(NamedTuple):
    """How often detections of a score are real."""

    score: Floats
    """Mean score of each bin."""
    fraction_real: Floats
    n_detections: NDArray[np.int64]


def fit_calibration(log_odds: Floats, labels: Bools) -> Calibration:
    """Fit the line to rows that the classifier was not trained on, by maximum likelihood (Platt 1999)."""
    slope, offset = _fit(log_odds[:, None], labels)
    return Calibration(max(slope, 1e-3), offset)


def fit_stack(features: Floats, stamps: Floats, labels: Bools) -> Stack:
    """Fit the weights of two classifiers to rows that neither was trained on (stacking, Wolpert 1992).

    A classifier that would count against itself is left out: more evidence never makes a detection less likely.
    """
    weights = _fit(np.stack([features, stamps], axis=1), labels)
    if min(weights[:2]) > 0:
        return Stack(*weights)
    keeps_features = weights[0] >= weights[1]
    line = fit_calibration(features if keeps_features else stamps, labels)
    return Stack(line.slope, 0.0, line.offset) if keeps_features else Stack(0.0, line.slope, line.offset)


def _fit(log_odds: Floats, labels: Bools, *, n_steps: int = 50) -> list[float]:
    """Return weights of the columns and an offset, by Newton's steps.

    Labels are drawn in by one real and one artefact more than there are, so that the weights stay finite.
    """
    n_real, n_false = int(labels.sum()), int((~labels).sum())
    target = np.where(labels, (n_real + 1.0) / (n_real + 2.0), 1.0 / (n_false + 2.0))
    design = np.column_stack([log_odds, np.ones(len(labels))])
    weights = np.append(np.full(log_odds.shape[1], 1.0 / log_odds.shape[1]), 0.0)
    for _ in range(n_steps):
        probability = logistic(design @ weights)
        scale = np.maximum(probability * (1.0 - probability), 1e-9)
        curvature = design.T @ (design * scale[:, None]) + 1e-6 * np.eye(design.shape[1])
        weights = weights - np.clip(np.linalg.solve(curvature, design.T @ (probability - target)), -1.0, 1.0)
    return [float(weight) for weight in weights]


def calibrated(calibration: Calibration, log_odds: Floats) -> Floats:
    """Return probabilities, rising with the log odds."""
    return logistic(calibration.slope * log_odds + calibration.offset)


def reliability_diagram(score: Floats, labels: Bools, *, n_bins: int = 10) -> ReliabilityDiagram:
    """Return the share of real detections in bins of score of equal width (empty bins are left out)."""
    index = np.minimum((score * n_bins).astype(np.intp), n_bins - 1)
    count = np.bincount(index, minlength=n_bins)
    filled = count > 0
    mean = np.bincount(index, weights=score, minlength=n_bins)[filled] / count[filled]
    real = np.bincount(index, weights=labels.astype(float), minlength=n_bins)[filled] / count[filled]
    return ReliabilityDiagram(mean, real, count[filled])


def expected_calibration_error(score: Floats, labels: Bools, *, n_bins: int = 15) -> float:
    """Return the mean distance of score and share of real ones, bins of equal width (Guo et al. 2017, eq. 3)."""
    diagram = reliability_diagram(score, labels, n_bins=n_bins)
    return float(np.average(np.abs(diagram.score - diagram.fraction_real), weights=diagram.n_detections))


def logistic(x: Floats) -> Floats:
    """Return probabilities of log odds."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -500.0, 500.0))))
