"""Link detections of one night that move straight and evenly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.algorithms.association.sky_index import chord_of, separation_arcsec, unit_vectors
from gueststar.algorithms.moving.motion import Motion, extrapolate, fit_motion

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]

_MINUTES = 1440.0


@dataclass(frozen=True)
class LinkConfig:
    """What counts as one moving thing."""

    min_detections: int = 3
    min_rate: float = 0.05
    """arcsec per minute."""
    max_rate: float = 20.0
    """arcsec per minute."""
    max_gap_hours: float = 3.0
    """Between the first two detections."""
    max_span_hours: float = 8.0
    """Between the first and the last."""
    min_arc_arcsec: float = 2.0
    """Least distance between the first and the last."""
    error_floor_arcsec: float = 0.1
    """Added to position errors in quadrature: astrometric solution, curvature of the path."""
    n_sigma: float = 4.0
    """How far from its prediction the next detection is looked for."""
    min_probability: float = 1e-3
    """Of the chi-square of a straight and even motion."""
    max_mag_scatter: float = 0.7
    """How far a magnitude may lie from the median of its filter, beyond three sigma: rotation, blends."""
    max_false_probability: float = 0.1
    """Of a link as good or better among unrelated detections."""
    max_trials_per_detection: float = 300.0
    """Places where a third detection is looked for, for each first detection, at most; see `link_sources`."""
    max_triples_per_detection: float = 1.5
    """Triples that are followed up, for each first detection, at most; see `link_sources`."""


class MovingSources(NamedTuple):
    """Detections of one night that may belong to moving things, one row each."""

    mjd: Floats
    """Middle of the exposure, the same for all detections of one exposure."""
    ra: Floats
    dec: Floats
    error_ra: Floats
    """arcsec on the sky."""
    error_dec: Floats
    mag: Floats
    mag_err: Floats
    band: NDArray[np.int64]


class Link(NamedTuple):
    """Detections that belong together."""

    rows: tuple[int, ...]
    """By time."""
    motion: Motion
    false_probability: float


class LinkedNight(NamedTuple):
    """Links, and how far the search for them went."""

    links: list[Link]
    """Best first, no detection in two of them."""
    n_exposures: int
    n_bounded: int
    """Exposures with too many detections to follow every pair that begins there."""
    least_reach_arcsec: float
    """Of these the shortest distance within which a second detection was looked for; infinite without any."""


def link_sources(sources: MovingSources, *, config: LinkConfig = LinkConfig()) -> LinkedNight:
    """Return links of three or more detections, and by what the search was bounded.

    Pairs within the rate limits predict the place of a third; a triple that fits grows by every exposure
    that has a detection where it should be. Where links share detections, the one with more detections, or
    else of the higher probability, keeps them.

    Work and memory are bounded by the density of detections: where unrelated ones would make more pairs and triples
    than ``max_trials_per_detection`` and ``max_triples_per_detection`` allow, the second detection is looked for
    less far away, the same distance at any interval. So fast objects are lost first, and those last that are seen again
    soon. Exposures that still yield four times as many triples (artefacts come in rows) are cut short.
    """
    night = _Night.of(sources, config)
    reaches = [_reach_limit(night, k, config) for k in range(len(night.exposures))]
    kept = _without_sharing(_found_links(night, reaches, config))
    n_bounded = sum(np.isfinite(reach) for reach in reaches)
    return LinkedNight(kept, len(reaches), int(n_bounded), min(reaches, default=np.inf))


def _found_links(night: _Night, reaches: list[float], config: LinkConfig) -> list[Link]:
    """Return every link that passes, detections in several of them."""
    found: dict[tuple[int, ...], Link] = {}
    linked: set[tuple[int, int]] = set()
    for triple in _triples(night, reaches, config):
        if (triple[0], triple[1]) in linked and (triple[1], triple[2]) in linked:
            continue
        rows = _grown(night, triple, config)
        link = _judged(night, rows, config)
        if link is not None:
            found[link.rows] = link
            linked.update((a, b) for k, a in enumerate(link.rows) for b in link.rows[k + 1 :])
    return list(found.values())


def _without_sharing(links: list[Link]) -> list[Link]:
    best_first = sorted(links, key=lambda link: (-len(link.rows), -link.motion.probability, link.rows))
    taken: set[int] = set()
    kept = []
    for link in best_first:
        if not taken.intersection(link.rows):
            taken.update(link.rows)
            kept.append(link)
    return kept


@dataclass(frozen=True, eq=False)
class _Exposure:
    mjd: float
    rows: Integers
    tree: cKDTree
    centre: Floats
    radius_arcsec: float
    density: float
    """Detections per square arcsec of the circle that holds them."""


@dataclass(frozen=True, eq=False)
class _Night:
    sources: MovingSources
    vectors: Floats
    error: Floats
    """The larger position error with the floor, arcsec."""
    exposures: list[_Exposure]

    @classmethod
    def of(cls, sources: MovingSources, config: LinkConfig) -> _Night:
        vectors = unit_vectors(sources.ra, sources.dec)
        error = np.hypot(np.fmax(sources.error_ra, sources.error_dec), config.error_floor_arcsec)
        exposures = []
        for mjd in np.unique(sources.mjd):
            rows = np.flatnonzero(sources.mjd == mjd)
            centre = vectors[rows].mean(axis=0)
            centre = centre / np.linalg.norm(centre)
            radius = max(float(separation_arcsec(vectors[rows], centre).max()), 300.0)
            density = len(rows) / (np.pi * radius**2)
            exposures.append(_Exposure(float(mjd), rows, cKDTree(vectors[rows]), centre, radius, density))
        return cls(sources, vectors, error, exposures)


def _triples(night: _Night, reaches: list[float], config: LinkConfig) -> Iterator[tuple[int, int, int]]:
    """Yield rows of three exposures, in order of time, that lie about on a straight and even path."""
    for k, first in enumerate(night.exposures):
        most = int(4.0 * config.max_triples_per_detection * len(first.rows)) + 1000
        limit = most if np.isfinite(reaches[k]) else None
        yield from islice(_triples_from(night, k, reaches[k], config), limit)


def _triples_from(night: _Night, k: int, reach: float, config: LinkConfig) -> Iterator[tuple[int, int, int]]:
    """Yield the triples that begin in one exposure, with a second detection within ``reach`` arcsec."""
    first, near = night.exposures[k], _later(night, k, config)
    for m, second in enumerate(near):
        if second.mjd - first.mjd > config.max_gap_hours / 24.0:
            break
        a, b = _pairs(night, first, second, reach, config)
        if len(a) == 0:
            continue
        for third in near[m + 1 :]:
            fraction = (third.mjd - first.mjd) / (second.mjd - first.mjd)
            predicted = extrapolate(night.vectors[a], night.vectors[b], np.full(len(a), fraction))
            spread = np.hypot(fraction * night.error[b], (fraction - 1.0) * night.error[a])
            radius = config.n_sigma * np.hypot(spread, night.error[third.rows].max())
            for pair, hits in enumerate(third.tree.query_ball_point(predicted, chord_of(radius))):
                for hit in sorted(hits):
                    yield int(a[pair]), int(b[pair]), int(third.rows[hit])


def _later(night: _Night, k: int, config: LinkConfig) -> list[_Exposure]:
    """Return the exposures after the k-th that may see the same objects again."""
    first = night.exposures[k]
    within = [e for e in night.exposures[k + 1 :] if e.mjd - first.mjd <= config.max_span_hours / 24.0]
    return [e for e in within if _may_share(first, e, config)]


def _reach_limit(night: _Night, k: int, config: LinkConfig) -> float:
    """Return how far from detections of the k-th exposure others may be looked for, arcsec; infinite: no limit.

    Unrelated detections, spread evenly, are what makes the work.
    """
    first, near = night.exposures[k], _later(night, k, config)
    error = float(np.median(night.error[first.rows]))
    reach, load = [], []
    for m, second in enumerate(near):
        minutes = (second.mjd - first.mjd) * _MINUTES
        if minutes > config.max_gap_hours * 60.0:
            break
        fraction = np.array([(third.mjd - first.mjd) * _MINUTES / minutes for third in near[m + 1 :]])
        radius2 = (config.n_sigma * error) ** 2 * (fraction**2 + (fraction - 1.0) ** 2 + 1.0)
        density = np.array([third.density for third in near[m + 1 :]])
        n_triples = np.minimum(np.pi * radius2 * density, 1.0).sum()
        cost = n_triples / config.max_triples_per_detection + fraction.size / config.max_trials_per_detection
        reach.append(config.max_rate * minutes)
        load.append(np.pi * second.density * cost)
    far, weight = np.array(reach), np.array(load)
    if float(np.sum(weight * far**2)) <= 1.0:
        return float("inf")
    low, high = 0.0, float(far.max())
    for _ in range(40):
        middle = (low + high) / 2.0
        is_light = float(np.sum(weight * np.minimum(far, middle) ** 2)) <= 1.0
        low, high = (middle, high) if is_light else (low, middle)
    return low


def _may_share(first: _Exposure, second: _Exposure, config: LinkConfig) -> bool:
    reach = config.max_rate * (second.mjd - first.mjd) * _MINUTES
    distance = float(separation_arcsec(first.centre, second.centre))
    return distance <= first.radius_arcsec + second.radius_arcsec + reach


def _pairs(
    night: _Night, first: _Exposure, second: _Exposure, reach: float, config: LinkConfig
) -> tuple[Integers, Integers]:
    """Return rows of two exposures whose distance lies within the rate limits, and within ``reach`` arcsec."""
    minutes = (second.mjd - first.mjd) * _MINUTES
    farthest = min(config.max_rate * minutes, reach)
    hits = second.tree.query_ball_point(night.vectors[first.rows], float(chord_of(farthest)))
    counts = np.array([len(h) for h in hits], dtype=np.intp)
    a = np.repeat(first.rows, counts)
    b = second.rows[np.concatenate([np.asarray(h, dtype=np.intp) for h in hits])]
    distance = separation_arcsec(night.vectors[a], night.vectors[b])
    slack = config.n_sigma * np.hypot(night.error[a], night.error[b])
    fast_enough = distance + slack >= config.min_rate * minutes
    return a[fast_enough], b[fast_enough]


def _grown(night: _Night, triple: tuple[int, int, int], config: LinkConfig) -> tuple[int, ...]:
    """Return the triple with the detection nearest to its prediction of every other exposure that has one."""
    rows = list(triple)
    times = {float(night.sources.mjd[row]) for row in rows}
    first, last = rows[0], rows[-1]
    start, span = float(night.sources.mjd[first]), float(night.sources.mjd[last] - night.sources.mjd[first])
    for exposure in night.exposures:
        is_near = abs(exposure.mjd - start) <= config.max_span_hours / 24.0
        if exposure.mjd in times or not is_near:
            continue
        fraction = (exposure.mjd - start) / span
        predicted = extrapolate(night.vectors[first], night.vectors[last], np.asarray(fraction))
        spread = np.hypot(fraction * night.error[last], (fraction - 1.0) * night.error[first])
        distance, hit = exposure.tree.query(predicted)
        row = int(exposure.rows[hit])
        if distance <= chord_of(config.n_sigma * np.hypot(spread, night.error[row])):
            rows.append(row)
    return tuple(sorted(rows, key=lambda row: (night.sources.mjd[row], row)))


def _judged(night: _Night, rows: tuple[int, ...], config: LinkConfig) -> Link | None:
    """Return the link of rows that move straight, evenly, far enough and at an even brightness, else None.

    A grown link that fails is tried again without its worst detection, as long as enough are left.
    """
    while len(rows) >= config.min_detections:
        motion = _motion(night, rows, config)
        if motion.probability >= config.min_probability:
            break
        rows = min(
            (rows[:k] + rows[k + 1 :] for k in range(len(rows)) if len(rows) > config.min_detections),
            key=lambda left: _motion(night, left, config).chi2,
            default=(),
        )
    if len(rows) < config.min_detections or not config.min_rate <= motion.rate <= config.max_rate:
        return None
    arc = float(separation_arcsec(night.vectors[rows[0]], night.vectors[rows[-1]]))
    if arc < config.min_arc_arcsec or not _is_even(night.sources, rows, config):
        return None
    chance = false_link_probability(night, rows, config)
    return Link(rows, motion, chance) if chance <= config.max_false_probability else None


def _motion(night: _Night, rows: tuple[int, ...], config: LinkConfig) -> Motion:
    chosen, sources = list(rows), night.sources
    error_ra, error_dec = (
        np.hypot(np.nan_to_num(error[chosen]), config.error_floor_arcsec)
        for error in (sources.error_ra, sources.error_dec)
    )
    return fit_motion(night.vectors[chosen], sources.mjd[chosen], error_ra, error_dec)


def _is_even(sources: MovingSources, rows: tuple[int, ...], config: LinkConfig) -> bool:
    """Return whether magnitudes agree within each filter; unknown ones agree with everything."""
    chosen = np.array(rows)
    for band in np.unique(sources.band[chosen]):
        mine = chosen[sources.band[chosen] == band]
        offset = np.abs(sources.mag[mine] - np.nanmedian(sources.mag[mine]))
        allowed = config.max_mag_scatter + 3.0 * np.nan_to_num(sources.mag_err[mine])
        if np.any(offset > allowed):
            return False
    return True


def false_link_probability(night: _Night, rows: tuple[int, ...], config: LinkConfig) -> float:
    """Return the probability that unrelated detections made such a link from its first detection.

    Their expected number is that of pairs within the rate limit times, for every further detection, that of
    unrelated ones within its search circle (Poisson, at the mean density of each exposure).
    """
    exposure_of = {float(exposure.mjd): exposure for exposure in night.exposures}
    mjd = night.sources.mjd
    second = exposure_of[float(mjd[rows[1]])]
    reach = config.max_rate * float(mjd[rows[1]] - mjd[rows[0]]) * _MINUTES
    expected = second.density * np.pi * reach**2
    for row in rows[2:]:
        fraction = float(mjd[row] - mjd[rows[0]]) / float(mjd[rows[1]] - mjd[rows[0]])
        spread = np.hypot(fraction * night.error[rows[1]], (fraction - 1.0) * night.error[rows[0]])
        radius = config.n_sigma * float(np.hypot(min(spread, reach), night.error[row]))
        expected *= min(exposure_of[float(mjd[row])].density * np.pi * radius**2, 1.0)
    return float(-np.expm1(-expected))
