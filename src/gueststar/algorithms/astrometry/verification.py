"""Is a pointing true? Sharpen it and ask how often chance would do as well."""

from __future__ import annotations

from itertools import count
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.algorithms.astrometry.matching import Pairs, match_one_to_one
from gueststar.algorithms.astrometry.voting import Hypothesis

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

_PATIENCE, _HOPELESS = 2, -3.0
"""After so many smaller radii a hypothesis must at some radius have had less than this log10 of the chance of its
matches (a single pointing's, not all trials')."""


class SearchVolume(NamedTuple):
    """All that was searched, for the number of independent trials."""

    max_shift: float
    max_rotation: float
    """Radian."""
    scale_tolerance: float
    n_parities: int
    field_radius: float

    def n_trials(self, radius: float) -> float:
        """Return how many pointings can be told apart at a matching radius."""
        shift = max(self.max_shift / radius, 1.0) ** 2
        turn = max(2.0 * self.max_rotation * self.field_radius / radius, 1.0)
        stretch = max(2.0 * self.scale_tolerance * self.field_radius / radius, 1.0)
        return shift * turn * stretch * self.n_parities


class Verdict(NamedTuple):
    """A sharpened similarity and how sure it is."""

    matrix: Floats
    """2 x 2, from the points' plane to the stars' plane."""
    shift: Floats
    n_matched: int
    n_points: int
    radius: float
    """Matching radius at which it was judged."""
    log10_false_probability: float


def verify(
    hypothesis: Hypothesis, points: Floats, tree: cKDTree, *, radius: float, min_radius: float, volume: SearchVolume
) -> Verdict:
    """Sharpen a hypothesis by matching and fitting with ever smaller radii; return the surest state."""
    matrix, shift = _as_matrix(hypothesis)
    best = Verdict(matrix, shift, 0, points.shape[0], radius, 0.0)
    density = _local_density(points @ matrix.T + shift, tree)
    least_chance = 0.0
    for round_number in count():
        for _ in range(2):
            pairs = match_one_to_one(points @ matrix.T + shift, tree, radius=radius)
            if pairs.point.size < 3:
                return best
            matrix, shift = fit_similarity(points[pairs.point], tree.data[pairs.star])
        pairs = match_one_to_one(points @ matrix.T + shift, tree, radius=radius)
        chance = _log10_chance(pairs, density, radius)
        least_chance = min(chance, least_chance)
        odds = chance + np.log10(volume.n_trials(radius))
        if odds < best.log10_false_probability or best.n_matched == 0:
            best = Verdict(matrix, shift, pairs.point.size, points.shape[0], radius, min(float(odds), 0.0))
        is_hopeless = round_number >= _PATIENCE and least_chance > _HOPELESS
        if radius <= min_radius or is_hopeless:
            break
        radius = max(0.6 * radius, min_radius)
    return best


def _as_matrix(hypothesis: Hypothesis) -> tuple[Floats, Floats]:
    c, s = hypothesis.scale * np.cos(hypothesis.rotation), hypothesis.scale * np.sin(hypothesis.rotation)
    return np.array([[c, -s], [s, c]]), np.array([hypothesis.shift_x, hypothesis.shift_y])


def _local_density(points: Floats, tree: cKDTree) -> Floats:
    """Return stars per area about each point, no less than the mean (a cluster's chance matches count)."""
    extent = np.ptp(tree.data, axis=0)
    mean = tree.n / max(float(extent[0] * extent[1]), 1e-30)
    reach = np.sqrt(12.0 / (np.pi * mean))
    counts = tree.query_ball_point(points, reach, return_length=True)
    return np.maximum(counts / (np.pi * reach**2), mean)


def _log10_chance(pairs: Pairs, density: Floats, radius: float) -> float:
    """Return log10 of the probability that as many points find a star by chance.

    The binomial tail at the mean probability bounds the tail of unequal ones (Hoeffding 1956).
    """
    p = float(np.mean(-np.expm1(-np.pi * radius**2 * density)))
    k, n = pairs.point.size, density.size
    if k <= n * p:
        return 0.0
    from scipy.stats import binom  # on first use: it takes a second

    return float(binom.logsf(k - 1, n, p) / np.log(10.0))


def fit_similarity(points: Floats, stars: Floats, *, iterations: int = 6) -> tuple[Floats, Floats]:
    """Return (matrix, shift) of the similarity that takes points to stars, robustly (Tukey's biweight).

    Parity is kept. At least 2 pairs are needed.
    """
    p, q = points[:, 0] + 1j * points[:, 1], stars[:, 0] + 1j * stars[:, 1]
    factor, shift = _fit_similarity(p, q, iterations)
    matrix = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return matrix, np.array([shift.real, shift.imag])


@njit(cache=True)
def _fit_similarity(p: Complexes, q: Complexes, iterations: int) -> tuple[complex, complex]:
    """Return (factor, shift) with ``q = factor p + shift``."""
    weight = np.ones(p.size)
    residual = np.empty(p.size)
    factor, shift = 1.0 + 0.0j, 0.0 + 0.0j
    for _ in range(iterations):
        total = weight.sum()
        p0, q0 = (weight * p).sum() / total, (weight * q).sum() / total
        above, below = 0.0 + 0.0j, 0.0
        for k in range(p.size):
            u = p[k] - p0
            above += weight[k] * np.conj(u) * (q[k] - q0)
            below += weight[k] * (u.real * u.real + u.imag * u.imag)
        factor = above / max(below, 1e-30)
        shift = q0 - factor * p0
        for k in range(p.size):
            residual[k] = abs(q[k] - shift - factor * p[k])
        cut = 5.0 * np.median(residual) + 1e-12
        for k in range(p.size):
            inside = max(1.0 - (residual[k] / cut) ** 2, 1e-6)
            weight[k] = inside * inside
    return factor, shift
