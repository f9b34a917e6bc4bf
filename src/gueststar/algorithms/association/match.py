"""Match new detections to known objects on the sphere: most probable pairs first, one to one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.algorithms.association.sky_index import chord_of, separation_arcsec, unit_vectors

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]


@dataclass(frozen=True)
class MatchConfig:
    """How far apart two positions of one thing may be measured."""

    floor_arcsec: float = 1.0
    """Radius for perfect positions: errors of the astrometric solution, hosts, blends."""
    n_sigma: float = 3.5
    """Radius in units of the combined position error (two-dimensional: 0.2 % of true pairs lie beyond)."""
    max_arcsec: float = 5.0
    """Radius that is never exceeded, however large the errors."""


class Matches(NamedTuple):
    """Pairs of rows that belong together, by falling likelihood."""

    index_1: Integers
    """Rows of the first list, each at most once."""
    index_2: Integers
    """Rows of the second list, each at most once."""
    separation_arcsec: Floats
    probability: Floats
    """That the pair is no chance neighbour, given the density of the second list."""


def match_radius(error_1: Floats, error_2: Floats, config: MatchConfig) -> Floats:
    """Return the largest separation (arcsec) of a pair with these one-dimensional position errors (arcsec).

    Errors add in quadrature with a floor; NaN counts as no error.
    """
    variance = np.nan_to_num(error_1) ** 2 + np.nan_to_num(error_2) ** 2
    radius = np.sqrt(config.floor_arcsec**2 + config.n_sigma**2 * variance)
    return np.asarray(np.minimum(radius, config.max_arcsec))


def near_pairs(
    ra_1: Floats, dec_1: Floats, error_1: Floats, ra_2: Floats, dec_2: Floats, error_2: Floats,
    *, config: MatchConfig = MatchConfig(),
) -> tuple[Integers, Integers, Floats]:  # fmt: skip
    """Return all pairs of two lists of positions that lie within their `match_radius`.

    Rows of the first list, rows of the second list, separations (arcsec); a row may be in many pairs.
    """
    first, second, separation = _close_pairs(ra_1, dec_1, ra_2, dec_2, config.max_arcsec)
    near = separation <= match_radius(error_1[first], error_2[second], config)
    return first[near], second[near], separation[near]


def match_positions(
    ra_1: Floats, dec_1: Floats, error_1: Floats, ra_2: Floats, dec_2: Floats, error_2: Floats,
    *, config: MatchConfig = MatchConfig(),
) -> Matches:  # fmt: skip
    """Match two lists of positions (degrees, errors in arcsec) one to one, anywhere on the sphere.

    Among all pairs within their `match_radius`, the one of the highest likelihood is taken first and its
    members are taken out (Sutherland & Saunders 1992 for the likelihood; the density of unrelated
    neighbours is that of the second list over the area it fills).
    """
    first, second, separation = near_pairs(ra_1, dec_1, error_1, ra_2, dec_2, error_2, config=config)
    sigma2 = (match_radius(error_1[first], error_2[second], config) / config.n_sigma) ** 2
    log_likelihood = -0.5 * separation**2 / sigma2 - np.log(2.0 * np.pi * sigma2)
    keep = _one_to_one(first, second, np.argsort(-log_likelihood, kind="stable"))
    likelihood = np.exp(log_likelihood[keep])
    density = _density_per_arcsec2(ra_2, dec_2)
    return Matches(first[keep], second[keep], separation[keep], likelihood / (likelihood + density))


def nearest(
    ra_1: Floats, dec_1: Floats, ra_2: Floats, dec_2: Floats, *, k: int, max_arcsec: float
) -> tuple[Integers, Floats]:
    """Return for each position of the first list its ``k`` nearest of the second within ``max_arcsec``.

    Two arrays ``[n, k]``: rows of the second list (-1 where there is none) and distances (arcsec, NaN
    where there is none), nearest first.
    """
    index = np.full((len(ra_1), k), -1, dtype=np.intp)
    distance = np.full((len(ra_1), k), np.nan)
    if len(ra_1) == 0 or len(ra_2) == 0:
        return index, distance
    tree, points = cKDTree(unit_vectors(ra_2, dec_2)), unit_vectors(ra_1, dec_1)
    chord, row = tree.query(points, k=np.arange(1, k + 1), distance_upper_bound=float(chord_of(max_arcsec)))
    found = np.isfinite(chord)
    index[found] = row[found]
    distance[found] = np.degrees(2.0 * np.arcsin(chord[found] / 2.0)) * 3600.0
    return index, distance


def count_within(ra_1: Floats, dec_1: Floats, ra_2: Floats, dec_2: Floats, *, radius_arcsec: float) -> Integers:
    """Return for each position of the first list how many of the second lie within a radius."""
    if len(ra_1) == 0 or len(ra_2) == 0:
        return np.zeros(len(ra_1), dtype=np.intp)
    tree = cKDTree(unit_vectors(ra_2, dec_2))
    points = unit_vectors(ra_1, dec_1)
    return np.asarray(tree.query_ball_point(points, float(chord_of(radius_arcsec)), return_length=True), dtype=np.intp)


def _close_pairs(
    ra_1: Floats, dec_1: Floats, ra_2: Floats, dec_2: Floats, max_arcsec: float
) -> tuple[Integers, Integers, Floats]:
    """Return all pairs (rows of either list, separation) closer than ``max_arcsec``."""
    vectors_1, vectors_2 = unit_vectors(ra_1, dec_1), unit_vectors(ra_2, dec_2)
    none = np.zeros(0, dtype=np.intp)
    if len(vectors_1) == 0 or len(vectors_2) == 0:
        return none, none, np.zeros(0)
    tree = cKDTree(vectors_2)
    found = tree.query_ball_point(vectors_1, float(chord_of(max_arcsec)))
    counts = np.array([len(rows) for rows in found])
    first = np.repeat(np.arange(len(vectors_1)), counts)
    second = np.concatenate([np.asarray(rows, dtype=np.intp) for rows in found])
    return first, second, separation_arcsec(vectors_1[first], vectors_2[second])


def _one_to_one(first: Integers, second: Integers, order: Integers) -> Integers:
    """Return the pairs, in ``order``, whose members no earlier pair has taken."""
    taken_1: set[int] = set()
    taken_2: set[int] = set()
    keep = []
    for pair, a, b in zip(order.tolist(), first[order].tolist(), second[order].tolist(), strict=True):
        if a not in taken_1 and b not in taken_2:
            taken_1.add(a)
            taken_2.add(b)
            keep.append(pair)
    return np.asarray(keep, dtype=np.intp)


def _density_per_arcsec2(ra: Floats, dec: Floats) -> float:
    """Return the number of positions per square arcsec of the smallest circle about their mean that holds them."""
    if len(ra) < 2:
        return 0.0
    vectors = unit_vectors(ra, dec)
    middle = vectors.mean(axis=0)
    radius = float(separation_arcsec(vectors, middle / np.linalg.norm(middle)).max())
    return len(ra) / (np.pi * max(radius, 1.0) ** 2)
