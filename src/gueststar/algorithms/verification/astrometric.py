"""How well distances of stars repeat, between images and between filters, and how near places are to a catalog.

LPM-17 section 3.3.4: AM1, AM2, AM3 are the scatter of the distance of two stars about 5, 20 and 200 arcmin apart (the
median for many pairs); no more than AF1, AF2, AF3 per cent of the distances deviate from their median by more than
AD1, AD2, AD3. AB1, AB2 and ABF1 are the same between r and another filter, AA1 is the median error of absolute places.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.special import gammaincinv

from gueststar.algorithms.association.sky_index import chord_of, unit_vectors
from gueststar.algorithms.verification.estimate import Estimate, measured, nothing
from gueststar.algorithms.verification.photometric import quantile
from gueststar.algorithms.verification.stars import Detections, mean_positions, seen_often

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

LEAST_PAIRS = 20
"""With fewer pairs nothing is said."""

_MAS = np.degrees(1.0) * 3.6e6
"""Milliarcseconds in a radian."""


class Pairs(NamedTuple):
    """Pairs of stars, and the distance of each on every image that shows both."""

    first: Indices
    """Star of each pair by which it was found."""
    pair: Indices
    """One row a distance: which pair it is of."""
    distance: Floats
    """Milliarcseconds, less the pair's mean."""
    n_images: Indices
    """How many images show each pair."""
    mean: Floats
    """Mean distance of each pair, mas."""
    number: Indices
    """Which of the chosen pairs it is."""


def distances(
    rows: Detections, *, arcmin: float, width_arcmin: float, at_least: int = 3, n_pairs: int = 20000,
    rng: np.random.Generator,
) -> Pairs:  # fmt: skip
    """Return pairs of stars ``arcmin`` apart (within half of ``width_arcmin``) that so many images show.

    Of more than ``n_pairs`` a random part is taken.
    """
    often = seen_often(rows, at_least=at_least)
    ra, dec, _ = mean_positions(often)
    first, second = _choose_pairs(unit_vectors(ra, dec), arcmin, width_arcmin, n_pairs, rng)
    return _measure_pairs(*_places(often, first, second), at_least=at_least)


def chromatic_differences(
    one: Detections, other: Detections, *, arcmin: float, width_arcmin: float, at_least: int = 2, n_pairs: int = 20000,
    rng: np.random.Generator,
) -> Floats:  # fmt: skip
    """Return by how much mean distances of pairs differ between two filters, mas: one value a pair.

    The two lists number the same stars alike; both filters must show a pair on so many images.
    """
    n = max(one.n_stars, other.n_stars)
    seen = [np.bincount(rows.star, minlength=n) >= at_least for rows in (one, other)]
    stars = np.flatnonzero(seen[0] & seen[1])
    ra, dec, _ = mean_positions(one)
    first, second = _choose_pairs(unit_vectors(ra[stars], dec[stars]), arcmin, width_arcmin, n_pairs, rng)
    means = []
    for rows in (one, other):
        pairs = _measure_pairs(*_places(rows, stars[first], stars[second]), at_least=1)
        mean, count = np.full(first.size, np.nan), np.zeros(first.size, dtype=np.intp)
        mean[pairs.number], count[pairs.number] = pairs.mean, pairs.n_images
        means.append(np.where(count >= at_least, mean, np.nan))
    difference = means[0] - means[1]
    return np.asarray(difference[np.isfinite(difference)])


def _places(rows: Detections, first: Indices, second: Indices) -> tuple[Floats, Indices, Indices]:
    """Return unit vectors ``[star, image, 3]`` of the stars of pairs (NaN where not seen), and the pairs in them."""
    used, inverse = np.unique(np.concatenate([first, second]), return_inverse=True)
    number = np.full(max(rows.n_stars, int(used.max(initial=-1)) + 1), -1, dtype=np.intp)
    number[used] = np.arange(used.size)
    mine = rows.select(number[rows.star] >= 0)
    places = np.full((used.size, rows.n_images, 3), np.nan)
    places[number[mine.star], mine.image] = unit_vectors(mine.ra, mine.dec)
    return places, inverse[: first.size], inverse[first.size :]


def _measure_pairs(places: Floats, first: Indices, second: Indices, *, at_least: int) -> Pairs:
    """Return the distances of pairs on all images, a thousand pairs at a time."""
    kept, numbers, pairs, values, counts, means = [], [], [], [], [], []
    n_kept = 0
    for begin in range(0, first.size, 1000):
        one, two = first[begin : begin + 1000], second[begin : begin + 1000]
        chord = np.linalg.norm(places[one] - places[two], axis=2)
        angle = 2.0 * np.arcsin(np.minimum(chord / 2.0, 1.0)) * _MAS
        has = np.isfinite(angle)
        good = has.sum(axis=1) >= at_least
        angle, has, count = angle[good], has[good], has[good].sum(axis=1)
        mean = np.where(has, angle, 0.0).sum(axis=1) / count
        row, column = np.nonzero(has)
        kept.append(one[good])
        numbers.append(begin + np.flatnonzero(good))
        pairs.append(row + n_kept)
        values.append(angle[row, column] - mean[row])
        counts.append(count)
        means.append(mean)
        n_kept += int(good.sum())
    none, nothing_yet = np.zeros(0, dtype=np.intp), np.zeros(0)
    return Pairs(
        np.concatenate([none, *kept]), np.concatenate([none, *pairs]), np.concatenate([nothing_yet, *values]),
        np.concatenate([none, *counts]), np.concatenate([nothing_yet, *means]), np.concatenate([none, *numbers]),
    )  # fmt: skip


def _choose_pairs(
    vectors: Floats, arcmin: float, width_arcmin: float, n_pairs: int, rng: np.random.Generator
) -> tuple[Indices, Indices]:
    """Return pairs of stars about so far apart, each pair once, from stars in random order."""
    none = np.zeros(0, dtype=np.intp)
    if len(vectors) < 2:
        return none, none
    tree, order = cKDTree(vectors), rng.permutation(len(vectors))
    low, high = (float(chord_of(60.0 * (arcmin + side * width_arcmin / 2.0))) for side in (-1.0, 1.0))
    firsts, seconds, found = [none], [none], 0
    most_each = max(n_pairs // 200, 10)
    for star in order:
        near = np.asarray(tree.query_ball_point(vectors[star], high), dtype=np.intp)
        near = near[np.linalg.norm(vectors[near] - vectors[star], axis=1) >= low]
        near = near[near > star]
        if near.size > most_each:
            near = rng.choice(near, most_each, replace=False)
        firsts.append(np.full(near.size, star, dtype=np.intp))
        seconds.append(near)
        found += near.size
        if found >= n_pairs:
            break
    return np.concatenate(firsts), np.concatenate(seconds)


def distance_scatter(pairs: Pairs, *, rng: np.random.Generator) -> Estimate:
    """Return AM1 (AM2, AM3) in mas: the median over pairs of the scatter of their distance. ``n`` are pairs.

    The scatter of a few images is too small in the median (by a third for two); it is brought to that of many, so that
    values of surveys with few and with many visits can be compared.
    """
    if pairs.n_images.size < LEAST_PAIRS:
        return nothing(pairs.n_images.size, _too_few(pairs))
    squares = np.bincount(pairs.pair, pairs.distance**2, minlength=pairs.n_images.size)
    scatter = np.sqrt(squares / (pairs.n_images - 1)) / _median_of_few(pairs.n_images)
    return measured(float(np.median(scatter)), _error_by_star(scatter, pairs.first, rng), pairs.n_images.size)


def distance_outliers(pairs: Pairs, *, limit_mas: float) -> Estimate:
    """Return AF1 (AF2, AF3): per cent of distances further than AD1 from their pair's mean. ``n`` are pairs."""
    if pairs.n_images.size < LEAST_PAIRS:
        return nothing(pairs.n_images.size, _too_few(pairs))
    share = float(np.mean(np.abs(_widened(pairs)) > limit_mas))
    error = np.sqrt(max(share * (1.0 - share), 0.25 / pairs.n_images.size) / pairs.n_images.size)
    return measured(100.0 * share, 100.0 * float(error), pairs.n_images.size)


def distance_limit(pairs: Pairs, *, percent: float) -> Estimate:
    """Return AD1 (AD2, AD3) in mas: the departure that ``percent`` of the distances exceed. ``n`` are pairs."""
    if pairs.n_images.size < LEAST_PAIRS:
        return nothing(pairs.n_images.size, _too_few(pairs))
    return measured(*quantile(np.abs(_widened(pairs)), 1.0 - percent / 100.0), pairs.n_images.size)


def chromatic_scatter(differences: Floats) -> Estimate:
    """Return AB1 in mas: the rms of `chromatic_differences`. ``n`` are pairs; their measuring errors are contained."""
    n = int(differences.size)
    if n < LEAST_PAIRS:
        return nothing(n, f"{n} pairs of stars were seen in both filters, {LEAST_PAIRS} are needed")
    value = float(np.sqrt(np.mean(differences**2)))
    return measured(value, value / np.sqrt(2.0 * n), n)


def chromatic_outliers(differences: Floats, *, limit_mas: float) -> Estimate:
    """Return ABF1: per cent of `chromatic_differences` beyond AB2. ``n`` are pairs."""
    n = int(differences.size)
    if n < LEAST_PAIRS:
        return nothing(n, f"{n} pairs of stars were seen in both filters, {LEAST_PAIRS} are needed")
    share = float(np.mean(np.abs(differences) > limit_mas))
    return measured(100.0 * share, 100.0 * float(np.sqrt(max(share * (1.0 - share), 0.25 / n) / n)), n)


def absolute_error(offset_ra_mas: Floats, offset_dec_mas: Floats) -> Estimate:
    """Return AA1 in mas: the median size of offsets from a catalog, in the worse coordinate. ``n`` are stars."""
    n = int(offset_ra_mas.size)
    if n < LEAST_PAIRS:
        return nothing(n, f"{n} stars are in the reference catalog, {LEAST_PAIRS} are needed")
    worst = max((quantile(np.abs(offset), 0.5) for offset in (offset_ra_mas, offset_dec_mas)), key=lambda pair: pair[0])
    return measured(*worst, n)


def _too_few(pairs: Pairs) -> str:
    return f"{pairs.n_images.size} pairs of stars so far apart were seen often enough, {LEAST_PAIRS} are needed"


def _widened(pairs: Pairs) -> Floats:
    """Return departures from the pairs' means, as if the means did not follow them."""
    count = pairs.n_images[pairs.pair]
    return pairs.distance * np.sqrt(count / (count - 1))


def _median_of_few(count: Indices) -> Floats:
    """Return the median of the standard deviation of so many Gaussian values, over the true one."""
    free = np.asarray(count - 1, dtype=np.float64)
    return np.asarray(np.sqrt(2.0 * gammaincinv(free / 2.0, 0.5) / free))


def _error_by_star(values: Floats, star: Indices, rng: np.random.Generator, draws: int = 60) -> float:
    """Return the error of a median whose values come in groups, by drawing groups anew."""
    _, group = np.unique(star, return_inverse=True)
    order = np.argsort(group, kind="stable")
    parts = np.split(values[order], np.cumsum(np.bincount(group))[:-1])
    medians = []
    for _ in range(draws):
        chosen = rng.integers(0, len(parts), len(parts))
        medians.append(np.median(np.concatenate([parts[k] for k in chosen])))
    return float(np.std(medians))
