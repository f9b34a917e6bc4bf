"""Completeness against magnitude, from sources that were found or not."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import erfc, erfcinv, expit

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

_MIN_EACH = 3
"""Sources found, and sources missed, that a fit needs."""


class CompletenessFit(NamedTuple):
    """A plateau that falls as the integral of a normal curve; all NaN where nothing can be fitted."""

    magnitude_50: float
    """At which half of all sources is found."""
    magnitude_50_err: float
    plateau: float
    """Fraction of bright sources that is found."""
    width: float
    """Sigma of the fall, mag."""


_UNKNOWN = CompletenessFit(float("nan"), float("nan"), float("nan"), float("nan"))


def completeness_at(magnitude: Floats, *, magnitude_50: float, plateau: float, width: float) -> Floats:
    """Return the fraction found at magnitudes: ``plateau`` / 2 erfc((m - m0) / sqrt(2) width).

    It is one half at ``magnitude_50``; ``plateau`` must exceed one half.
    """
    middle = magnitude_50 - np.sqrt(2.0) * width * erfcinv(1.0 / plateau)
    return np.asarray(0.5 * plateau * erfc((magnitude - middle) / (np.sqrt(2.0) * width)))


def fit_completeness(magnitude: Floats, is_found: Bools) -> CompletenessFit:
    """Return the likeliest completeness of sources of known magnitude.

    The width is held to the order of 0.2 mag (a factor of two, one sigma), as matched filters in even noise give. All
    NaN with fewer than three found or three missed, or where fewer than half of the brightest are found.
    """
    if is_found.sum() < _MIN_EACH or (~is_found).sum() < _MIN_EACH:
        return _UNKNOWN

    def unlikelihood(parameters: Floats) -> float:
        share = np.clip(completeness_at(magnitude, **_named(parameters)), 1e-4, 1.0 - 1e-4)
        prior = 0.5 * ((parameters[1] - np.log(0.2)) / 0.7) ** 2 + 0.5 * ((parameters[2] - 3.0) / 3.0) ** 2
        return float(-np.log(np.where(is_found, share, 1.0 - share)).sum() + prior)

    starts = np.quantile(magnitude, [0.25, 0.5, 0.75])
    found = min(
        (
            minimize(unlikelihood, [start, np.log(0.2), 3.0], method="Nelder-Mead", options={"maxiter": 600})
            for start in starts
        ),
        key=lambda result: float(result.fun),
    )
    best = np.asarray(found.x, dtype=np.float64)
    values = _named(best)
    if values["plateau"] < 0.51 or not magnitude.min() - 0.5 < values["magnitude_50"] < magnitude.max() + 0.5:
        return _UNKNOWN
    return CompletenessFit(
        values["magnitude_50"], _error_of_first(unlikelihood, best), values["plateau"], values["width"]
    )


def _named(parameters: Floats) -> dict[str, float]:
    plateau = 0.5 + 0.5 * float(expit(parameters[2])) * (1.0 - 1e-9) + 1e-9
    return {"magnitude_50": float(parameters[0]), "width": float(np.exp(parameters[1])), "plateau": min(plateau, 1.0)}


def _error_of_first(function, best: Floats) -> float:  # type: ignore[no-untyped-def]
    """Return the error of the first parameter from the curvature at the minimum."""
    steps = np.array([0.03, 0.1, 0.3])
    hessian = np.empty((3, 3))
    for i in range(3):
        for j in range(3):
            corners = [
                a * b * function(best + a * steps * (np.arange(3) == i) + b * steps * (np.arange(3) == j))
                for a in (-1.0, 1.0)
                for b in (-1.0, 1.0)
            ]
            hessian[i, j] = sum(corners) / (4.0 * steps[i] * steps[j])
    variance = float(np.linalg.pinv(hessian)[0, 0])
    return float(np.sqrt(variance)) if variance > 0 else float("nan")
