"""How the air displaced the stars of one exposure: coherent over minutes of arc, finer than any polynomial.

A Gaussian process whose correlation is measured on the stars themselves (Fortino et al. 2021, AJ 162, 106, found it
to take out most of the turbulence's variance on the Dark Energy Camera).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline
from scipy.linalg import cho_factor, cho_solve

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DisplacementConfig:
    """When and how the displacement is measured."""

    min_stars: int = 100
    """Fewer stars tell no correlation."""
    max_stars: int = 800
    """Of the smallest errors, that the field is made of (time goes with the third power)."""
    n_bins: int = 16
    """Bins of distance for the correlation."""
    max_distance: float = 0.35
    """Largest distance, in units of the detector's shorter side, at which correlation is looked for."""
    nodes_per_length: float = 3.0
    """Nodes of the field's grid within the distance at which the correlation falls to a half."""
    max_nodes: int = 40
    """Along either side."""
    min_gain: float = 0.05
    """Stars that were kept aside must scatter by so much less (a fraction of their variance), or none is taken out."""


class Correlation(NamedTuple):
    """The displacement's correlation: a Matern function of order 3/2, 5/2 or 7/2 of the distance."""

    variance: float
    """Per axis, in the unit of the residuals squared."""
    length: float
    """Pixels."""
    smoothness: int
    """1, 2, 3: how often the field can be differentiated."""

    @property
    def half_distance(self) -> float:
        """Distance at which the correlation is a half, pixels."""
        return self.length * _HALF[self.smoothness]

    def at(self, distance: Floats) -> Floats:
        """Return the covariance at distances, pixels."""
        r = distance / self.length
        second, third = _MATERN[self.smoothness]
        return np.asarray(self.variance * (1.0 + r + second * r**2 + third * r**3) * np.exp(-r))


_MATERN = {1: (0.0, 0.0), 2: (1.0 / 3.0, 0.0), 3: (2.0 / 5.0, 1.0 / 15.0)}
"""Coefficients of the second and third power of the distance in lengths."""
_HALF = {1: 1.678, 2: 2.330, 3: 2.850}


@dataclass(frozen=True, eq=False)
class Displacement:
    """The field on a grid of nodes over the detector, arcsec on the tangent plane (east, north)."""

    x: Floats
    y: Floats
    values: Floats
    """``[2, ny, nx]``: to be added to where the map puts a source."""
    error: Floats
    """``[ny, nx]``, one sigma per axis."""
    correlation: Correlation
    gain: float
    """By what fraction the variance of stars kept aside became smaller."""

    def at(self, x: Floats, y: Floats) -> Floats:
        """Return ``[n, 2]`` at pixel positions; outside the nodes the edge's value."""
        return np.stack([self._spline(plane).ev(y, x) for plane in self.values], axis=-1)

    def error_at(self, x: Floats, y: Floats) -> Floats:
        """Return one sigma per axis at pixel positions."""
        return np.asarray(np.maximum(self._spline(self.error).ev(y, x), 0.0))

    def _spline(self, plane: Floats) -> RectBivariateSpline:
        return RectBivariateSpline(self.y, self.x, plane, kx=3, ky=3, s=0.0)


def measure_displacement(
    x: Floats, y: Floats, residuals: Floats, variance: Floats, shape: tuple[int, int], config: DisplacementConfig
) -> Displacement | None:
    """Return the field that residuals ``[n, 2]`` (star minus map, arcsec) of given variances ``[n, 2]`` show.

    None where stars are too few, nothing is correlated, or stars that were kept aside are not foretold better.
    """
    order = np.argsort(variance.sum(axis=1), kind="stable")[: config.max_stars]
    places = np.stack([x[order], y[order]], axis=1)
    values, noise = residuals[order], variance[order].mean(axis=1)
    if places.shape[0] < config.min_stars:
        return None
    correlation = measure_correlation(places, values, noise, shape, config)
    if correlation is None:
        return None
    white = max(float(np.median(values**2) / 0.4549) - correlation.variance - float(np.median(noise)), 0.0)
    noise = noise + white
    gain = _gain(places, values, noise, correlation)
    if gain < config.min_gain:
        return None
    process = _Process(places, values, noise, correlation)
    return _on_grid(process, shape, gain, config)


def measure_correlation(
    places: Floats, values: Floats, noise: Floats, shape: tuple[int, int], config: DisplacementConfig
) -> Correlation | None:
    """Return the correlation of residuals by distance; None if it is less than five times its error."""
    reach = config.max_distance * min(shape)
    typical = float(np.median((values**2).sum(axis=1))) / 2.0
    total, products = _pair_sums(places, values, 1.0 / (noise + typical), reach, config.n_bins)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, error = products / total, 1.0 / np.sqrt(2.0 * total)
    known = total > 0
    middle = (np.arange(config.n_bins) + 0.5) * reach / config.n_bins
    return _best_correlation(middle[known], mean[known], error[known], reach)


def _best_correlation(distance: Floats, mean: Floats, error: Floats, reach: float) -> Correlation | None:
    best, best_chi2 = None, np.inf
    for smoothness, length in product(_MATERN, np.geomspace(reach / 80.0, reach / 2.0, 24)):
        shape = Correlation(1.0, float(length), smoothness).at(distance)
        # A fitted plane leaves a small negative constant at large distances: it is fitted too.
        design = np.stack([shape, np.ones_like(shape)], axis=1) / error[:, None]
        normal = np.linalg.inv(design.T @ design + 1e-12 * np.eye(2))
        solution = normal @ (design.T @ (mean / error))
        chi2 = float(((mean / error - design @ solution) ** 2).sum())
        if chi2 < best_chi2 and solution[0] > 5.0 * np.sqrt(normal[0, 0]):
            best, best_chi2 = Correlation(float(solution[0]), float(length), smoothness), chi2
    return best


@njit(cache=True)
def _pair_sums(places: Floats, values: Floats, weight: Floats, reach: float, n_bins: int) -> tuple[Floats, Floats]:
    """Return per bin of distance the pairs' weights and weighted mean products of both axes."""
    total, product = np.zeros(n_bins), np.zeros(n_bins)
    for i in range(places.shape[0]):
        for j in range(i):
            dx, dy = places[i, 0] - places[j, 0], places[i, 1] - places[j, 1]
            distance = np.sqrt(dx * dx + dy * dy)
            if distance < reach:
                k = int(distance / reach * n_bins)
                w = weight[i] * weight[j]
                total[k] += w
                product[k] += 0.5 * w * (values[i, 0] * values[j, 0] + values[i, 1] * values[j, 1])
    return total, product


@njit(cache=True)
def _matern(a: Floats, b: Floats, variance: float, length: float, second: float, third: float) -> tuple[Floats, Floats]:
    """Return ``[n_a, n_b]`` the polynomial of the correlation's covariance between places, and what it decays by."""
    power, decay = np.empty((a.shape[0], b.shape[0])), np.empty((a.shape[0], b.shape[0]))
    for i in range(a.shape[0]):
        for j in range(b.shape[0]):
            dx, dy = a[i, 0] - b[j, 0], a[i, 1] - b[j, 1]
            r = np.sqrt(dx * dx + dy * dy) / length
            power[i, j], decay[i, j] = variance * (1.0 + r * (1.0 + r * (second + r * third))), -r
    return power, decay


def _covariance(a: Floats, b: Floats, correlation: Correlation) -> Floats:
    power, decay = _matern(a, b, correlation.variance, correlation.length, *_MATERN[correlation.smoothness])
    power *= np.exp(decay, out=decay)  # NumPy takes several exponentials at once
    return np.asarray(power)


class _Process:
    """The field given the stars."""

    def __init__(self, places: Floats, values: Floats, noise: Floats, correlation: Correlation) -> None:
        self.places, self.correlation = places, correlation
        covariance = _covariance(places, places, correlation) + np.diag(noise)
        self.factor = cho_factor(covariance, lower=True, overwrite_a=True, check_finite=False)
        self.weights = cho_solve(self.factor, values, check_finite=False)

    def mean(self, places: Floats) -> Floats:
        """Return ``[n, 2]``."""
        return np.asarray(_covariance(places, self.places, self.correlation) @ self.weights)

    def error(self, places: Floats) -> Floats:
        """Return one sigma per axis ``[n]``."""
        cross = _covariance(places, self.places, self.correlation)
        told = np.einsum("ij,ji->i", cross, cho_solve(self.factor, cross.T, check_finite=False))
        return np.sqrt(np.clip(self.correlation.variance - told, 0.0, None))


def _gain(places: Floats, values: Floats, noise: Floats, correlation: Correlation) -> float:
    """Return by what fraction every fifth star's variance falls when the others foretell it."""
    is_aside = np.arange(len(places)) % 5 == 2
    process = _Process(places[~is_aside], values[~is_aside], noise[~is_aside], correlation)
    left = values[is_aside] - process.mean(places[is_aside])
    weight = 1.0 / (noise[is_aside] + correlation.variance)[:, None]
    limit = 25.0 / weight
    before = float((weight * np.minimum(values[is_aside] ** 2, limit)).sum())
    return 1.0 - float((weight * np.minimum(left**2, limit)).sum()) / max(before, 1e-30)


def _on_grid(process: _Process, shape: tuple[int, int], gain: float, config: DisplacementConfig) -> Displacement:
    ny, nx = shape
    step = process.correlation.half_distance / config.nodes_per_length
    n_x, n_y = (int(np.clip(np.ceil(side / step) + 1, 5, config.max_nodes)) for side in (nx, ny))
    x, y = np.linspace(-0.5, nx - 0.5, n_x), np.linspace(-0.5, ny - 0.5, n_y)
    grid = np.stack([g.ravel() for g in np.meshgrid(x, y)], axis=1)
    values = process.mean(grid).T.reshape(2, n_y, n_x)
    every = max(1, min(n_x, n_y) // 12)
    coarse = np.stack([g.ravel() for g in np.meshgrid(x[::every], y[::every])], axis=1)
    error = process.error(coarse).reshape(y[::every].size, x[::every].size)
    fine = RectBivariateSpline(y[::every], x[::every], error, kx=1, ky=1)(y, x)
    return Displacement(x, y, values, fine, process.correlation, gain)
