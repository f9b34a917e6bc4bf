"""From a classifier's log odds to probabilities that come true."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class CalibrationCurve(NamedTuple):
    """Probability as a rising, piecewise linear function of the log odds."""

    log_odds: Floats
    probability: Floats


class ReliabilityDiagram(NamedTuple):
    """How often detections of a score are real."""

    score: Floats
    """Mean score of each bin."""
    fraction_real: Floats
    n_detections: NDArray[np.int64]


def fit_calibration(log_odds: Floats, labels: NDArray[np.bool_], *, n_knots: int = 15) -> CalibrationCurve:
    """Fit the curve to rows that the classifier was not trained on.

    Isotonic regression (pool adjacent violators) of the labels in bins of equal counts, each with one
    real and one artefact added, so that no score says 0 or 1 for certain.
    """
    order = np.argsort(log_odds, kind="stable")
    bins = [part for part in np.array_split(order, n_knots) if part.size]
    place = np.array([log_odds[part].mean() for part in bins])
    weight = np.array([part.size + 2.0 for part in bins])
    share = np.array([(labels[part].sum() + 1.0) / (part.size + 2.0) for part in bins])
    return CalibrationCurve(place, _pooled(share, weight))


def calibrated(curve: CalibrationCurve, log_odds: Floats) -> Floats:
    """Return probabilities; beyond the curve's ends they follow the log odds from the end's value on."""
    probability = np.interp(log_odds, curve.log_odds, curve.probability)
    for end, is_beyond in ((0, log_odds < curve.log_odds[0]), (-1, log_odds > curve.log_odds[-1])):
        p = curve.probability[end]
        shifted = np.log(p / (1.0 - p)) + log_odds - curve.log_odds[end]
        probability = np.where(is_beyond, 1.0 / (1.0 + np.exp(-shifted)), probability)
    return np.asarray(probability)


def reliability_diagram(score: Floats, labels: NDArray[np.bool_], *, n_bins: int = 10) -> ReliabilityDiagram:
    """Return the share of real detections in bins of score of equal width (empty bins are left out)."""
    index = np.minimum((score * n_bins).astype(np.intp), n_bins - 1)
    count = np.bincount(index, minlength=n_bins)
    filled = count > 0
    mean = np.bincount(index, weights=score, minlength=n_bins)[filled] / count[filled]
    real = np.bincount(index, weights=labels.astype(float), minlength=n_bins)[filled] / count[filled]
    return ReliabilityDiagram(mean, real, count[filled])


def _pooled(share: Floats, weight: Floats) -> Floats:
    """Return the rising sequence that is closest to ``share`` in weighted least squares."""
    values: list[float] = []
    weights: list[float] = []
    lengths: list[int] = []
    for value, w in zip(share.tolist(), weight.tolist(), strict=True):
        values.append(value)
        weights.append(w)
        lengths.append(1)
        while len(values) > 1 and values[-2] > values[-1]:
            total = weights[-2] + weights[-1]
            values[-2] = (values[-2] * weights[-2] + values[-1] * weights[-1]) / total
            weights[-2], lengths[-2] = total, lengths[-2] + lengths[-1]
            values.pop()
            weights.pop()
            lengths.pop()
    return np.repeat(values, lengths)
