"""A linear fit to calibrators of which many are not what they seem.

Variables, blends and wrong matches are told from calibrators as by Hogg, Bovy & Lang (2010, arXiv:1008.4686, section
3): each star is drawn either from the solution, with its own error and a common scatter, or from a broad
distribution about it. Which star is which comes out of the fit as a probability.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_STRANGER_WIDTH = 0.7
"""Standard deviation of what does not follow the solution, mag."""
_FEW = 20
"""With fewer stars the slope is not searched: any few points lie close to some line."""
_ROUNDS = 25


class Mixture(NamedTuple):
    """Which stars follow the solution, and how closely."""

    parameters: Floats
    scatter: float
    """Of the stars that follow it, beyond their errors, mag."""
    membership: Floats
    """Probability of each star to follow it."""
    merit: float
    """Logarithm of likelihood and prior: the larger the better."""


class SlopePrior(NamedTuple):
    """What is known beforehand of the second parameter."""

    mean: float
    error: float


def densest(values: Floats, *, share: float) -> tuple[float, float]:
    """Return the middle of the shortest interval that holds a share of the values (at least 3), and its half-width."""
    ordered = np.sort(values)
    count = min(max(3, int(np.ceil(share * ordered.size))), ordered.size)
    width = ordered[count - 1 :] - ordered[: ordered.size - count + 1]
    first = int(np.argmin(width))
    return float(np.median(ordered[first : first + count])), float(0.5 * width[first])


def fit_mixture(design: Floats, target: Floats, variance: Floats, *, slope: SlopePrior) -> Mixture:
    """Return the likeliest solution of ``target = design @ parameters`` when up to two thirds are strangers.

    ``design`` is ``[n, k]``, its first column 1. The second parameter, the slope, has a normal prior; the search starts
    at its mean and, with enough stars, at the slope about which the targets crowd most. ``variance`` is that of
    the targets. Rows must be finite; at least one is needed.
    """
    trials = [slope.mean]
    if target.size >= _FEW:
        grid = slope.mean + slope.error * np.linspace(-6.0, 6.0, 13)
        widths = [densest(target - c * design[:, 1], share=0.35)[1] for c in grid]
        trials.append(float(grid[int(np.argmin(widths))]))
    return max((_from(design, target, variance, c, slope) for c in trials), key=lambda found: found.merit)


def _from(design: Floats, target: Floats, variance: Floats, start: float, slope: SlopePrior) -> Mixture:
    """Return the solution that expectation and maximisation in turn reach from a slope."""
    parameters = np.zeros(design.shape[1])
    parameters[1] = start
    few = target.size < _FEW
    parameters[0], half_width = densest(target - start * design[:, 1], share=0.5 if few else 0.35)
    # The shortest interval with half (35 %) of a normal distribution reaches to 0.674 (0.454) sigma.
    spread = half_width / (0.674 if few else 0.454)
    scatter_squared = max(spread**2 - float(np.median(variance)), 1e-8)
    share, merit, membership = 0.8, -np.inf, np.ones(target.size)
    for _ in range(_ROUNDS):
        residual = target - design @ parameters
        inside = share * _normal(residual, variance + scatter_squared)
        outside = (1.0 - share) * _normal(residual, variance + _STRANGER_WIDTH**2)
        membership = inside / (inside + outside)
        previous, merit = merit, float(np.log(inside + outside).sum())
        merit -= 0.5 * ((parameters[1] - slope.mean) / slope.error) ** 2
        if merit - previous < 1e-3 + 1e-6 * target.size:
            break
        # As if two stars had been seen to follow and one not: a share of exactly 1 or 0 could never change.
        share = float((membership.sum() + 2.0) / (target.size + 3.0))
        parameters = _solved(design, target, membership / (variance + scatter_squared), slope)
        squares = membership * (target - design @ parameters) ** 2
        scatter_squared = _scatter_squared(squares, membership, variance, scatter_squared)
    return Mixture(parameters, float(np.sqrt(scatter_squared)), membership, merit)


def _normal(residual: Floats, variance: Floats) -> Floats:
    return np.asarray(np.exp(-0.5 * residual**2 / variance) / np.sqrt(2.0 * np.pi * variance) + 1e-300)


def _solved(design: Floats, target: Floats, weight: Floats, slope: SlopePrior) -> Floats:
    normal = (design * weight[:, None]).T @ design
    right = (design * weight[:, None]).T @ target
    normal[1, 1] += 1.0 / slope.error**2
    right[1] += slope.mean / slope.error**2
    return np.asarray(np.linalg.pinv(normal, hermitian=True) @ right)


def _scatter_squared(squares: Floats, membership: Floats, variance: Floats, start: float) -> float:
    """Return the square of the extra scatter that brings the members' squared residuals nearer to their errors."""
    total, value = max(float(membership.sum()), 1e-12), start
    for _ in range(4):
        value *= float((squares / (variance + value)).sum()) / total
    return max(value, 1e-8)
