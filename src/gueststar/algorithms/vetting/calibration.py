"""From a classifier's log odds to probabilities that come true."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Calibration(NamedTuple):
    """Log odds that come true are ``slope * log_odds + offset``."""

    slope: float
    offset: float


class ReliabilityDiagram(NamedTuple):
    """How often detections of a score are real."""

    score: Floats
    """Mean score of each bin."""
    fraction_real: Floats
    n_detections: NDArray[np.int64]


def fit_calibration(log_odds: Floats, labels: NDArray[np.bool_], *, n_steps: int = 50) -> Calibration:
    """Fit the line to rows that the classifier was not trained on, by maximum likelihood (Platt 1999).

    Labels are drawn in by one real and one artefact more than there are, so that the line stays finite.
    """
    n_real, n_false = int(labels.sum()), int((~labels).sum())
    target = np.where(labels, (n_real + 1.0) / (n_real + 2.0), 1.0 / (n_false + 2.0))
    design = np.stack([log_odds, np.ones_like(log_odds)], axis=1)
    line = np.array([1.0, 0.0])
    for _ in range(n_steps):
        probability = _logistic(design @ line)
        weight = np.maximum(probability * (1.0 - probability), 1e-9)
        step = np.linalg.solve(design.T @ (design * weight[:, None]), design.T @ (probability - target))
        line = line - np.clip(step, -1.0, 1.0)
    return Calibration(max(float(line[0]), 1e-3), float(line[1]))


def calibrated(calibration: Calibration, log_odds: Floats) -> Floats:
    """Return probabilities, rising with the log odds."""
    return _logistic(calibration.slope * log_odds + calibration.offset)


def reliability_diagram(score: Floats, labels: NDArray[np.bool_], *, n_bins: int = 10) -> ReliabilityDiagram:
    """Return the share of real detections in bins of score of equal width (empty bins are left out)."""
    index = np.minimum((score * n_bins).astype(np.intp), n_bins - 1)
    count = np.bincount(index, minlength=n_bins)
    filled = count > 0
    mean = np.bincount(index, weights=score, minlength=n_bins)[filled] / count[filled]
    real = np.bincount(index, weights=labels.astype(float), minlength=n_bins)[filled] / count[filled]
    return ReliabilityDiagram(mean, real, count[filled])


def _logistic(x: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -500.0, 500.0))))
