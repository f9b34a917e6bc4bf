"""Link trails of one night with each other and with detections that are points.

A trail is two places at two times, so it predicts, for either sense of its motion, where the body was in every other
exposure. The idea is that of MOPS's and of Rubin's trailed sources (Denneau et al. 2013, PASP 125, 357; Veres et al.
2012, PASP 124, 1197), carried from pairs of detections to a single exposure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import pdtrc

from gueststar.algorithms.association.sky_index import chord_of, separation_arcsec
from gueststar.algorithms.moving.motion import Motion, fit_motion
from gueststar.algorithms.moving.tracklets import MovingSources
from gueststar.algorithms.moving.trail_night import SAME_EXPOSURE_DAYS, Exposure, TrailLinkConfig, TrailNight
from gueststar.algorithms.moving.trails import MINUTES, Path, Predicted, TrailedSources

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]


class TrailLink(NamedTuple):
    """Trails and detections that belong together."""

    trails: tuple[int, ...]
    """Rows of trails, by time; one at least."""
    is_forward: tuple[bool, ...]
    """Whether each of them was drawn from its first end to its second."""
    points: tuple[int, ...]
    """Rows of detections, by time."""
    motion: Motion
    false_probability: float

    @property
    def n_members(self) -> int:
        """How many exposures saw it."""
        return len(self.trails) + len(self.points)


def link_trails(
    trails: TrailedSources, points: MovingSources, *, config: TrailLinkConfig | None = None
) -> list[TrailLink]:
    """Return links of a trail with other trails and detections, the largest first; nothing is in two of them."""
    night = TrailNight.of(trails, points, config or TrailLinkConfig())
    found = {(link.trails, link.points): link for seed in _seeds(night) if (link := _judged(night, seed)) is not None}
    best_first = sorted(
        found.values(), key=lambda k: (-k.n_members, -len(k.trails), -k.motion.probability, k.trails, k.points)
    )
    taken: set[tuple[str, int]] = set()
    kept = []
    for link in best_first:
        mine = {("trail", row) for row in link.trails} | {("point", row) for row in link.points}
        if not taken & mine:
            taken |= mine
            kept.append(link)
    return kept


def motions_of_trails(trails: TrailedSources, rows: Sequence[int]) -> list[Motion]:
    """Return the motions that single trails tell, each from its first end to its second."""
    night = TrailNight.of(trails, _no_points(), TrailLinkConfig())
    return [_motion(night, _Members(row, True, ())) for row in rows]


class _Hit(NamedTuple):
    is_trail: bool
    row: int
    distance: float
    """From the prediction, sigma."""
    expected: float
    """How many unrelated ones lie where such a one is looked for."""


class _Members(NamedTuple):
    """A trail, the sense of its motion, and what goes with it."""

    seed: int
    is_forward: bool
    hits: tuple[_Hit, ...]
    """The first one is where the trail alone predicts it, the others where both do."""
    n_covering: int = 0
    """Exposures in which the trail alone predicts a place."""

    @property
    def trails(self) -> tuple[int, ...]:
        """Rows of trails other than the seed."""
        return tuple(sorted(hit.row for hit in self.hits if hit.is_trail))

    @property
    def points(self) -> tuple[int, ...]:
        """Rows of detections."""
        return tuple(sorted(hit.row for hit in self.hits if not hit.is_trail))

    @property
    def chance(self) -> float:
        """Expected number of such links by chance, in both senses and all exposures.

        As many hits beyond the first as there are, or more, among the exposures that are left (Poisson).
        """
        beyond = [hit.expected for hit in self.hits[1:]]
        n_left = max(self.n_covering - 1, len(beyond))
        share = float(pdtrc(len(beyond) - 1, float(np.mean(beyond)) * n_left)) if beyond else 1.0
        return 2.0 * self.n_covering * self.hits[0].expected * share


def _seeds(night: TrailNight) -> Iterator[_Members]:
    """Yield every trail, in either sense, with something that it predicts, and with what both predict."""
    for row in range(night.trails.mjd.size):
        for is_forward in (True, False):
            path = night.path(row, is_forward=is_forward)
            seen = _predicted_in(night, path, float(night.trails.mjd[row]))
            for k, predicted in seen:
                hits = _hits(night, night.exposures[k], path, predicted, row)
                for hit in hits[: night.config.max_candidates]:
                    yield _grown(night, _Members(row, is_forward, (hit,), len(seen)), k)


def _predicted_in(night: TrailNight, path: Path, mjd: float) -> list[tuple[int, Predicted]]:
    """Return the exposures near a time that may show what moves along a path, with where it is expected there."""
    away = np.abs(night.mjd - mjd)
    near = np.flatnonzero((away > SAME_EXPOSURE_DAYS) & (away <= night.config.max_hours / 24.0))
    predicted = path.at(night.mjd[near])
    far = separation_arcsec(predicted.place, night.centres[near])
    reach = night.config.n_sigma * np.maximum(predicted.along_err, predicted.across_err)
    is_covering = far <= night.radii[near] + reach
    return [(int(near[k]), predicted.at(int(k))) for k in np.flatnonzero(is_covering)]


def _hits(night: TrailNight, exposure: Exposure, path: Path, predicted: Predicted, seed: int) -> list[_Hit]:
    """Return what of an exposure lies where a path predicts it, nearest first: trails that fit, else points."""
    return _trail_hits(night, exposure, path, predicted, seed) or _point_hits(night, exposure, predicted, seed)


def _trail_hits(night: TrailNight, exposure: Exposure, path: Path, predicted: Predicted, seed: int) -> list[_Hit]:
    rows, config = exposure.trails, night.config
    if rows.size == 0:
        return []
    ahead, aside = predicted.offsets(night.middle[rows])
    own = night.trails.along_err[rows] / np.sqrt(2.0), night.trails.across_err[rows] / np.sqrt(2.0)
    along_err = np.sqrt(predicted.along_err**2 + own[0] ** 2 + config.error_floor_arcsec**2)
    across_err = np.sqrt(predicted.across_err**2 + own[1] ** 2 + config.error_floor_arcsec**2)
    distance = np.hypot(ahead / along_err, aside / across_err)
    if distance.min() > config.n_sigma:
        return []
    rate_window = config.rate_tolerance * path.rate + config.n_sigma * np.hypot(
        night.rate_errors[rows], night.rate_errors[seed]
    )
    angle = np.degrees(np.arcsin(np.minimum(np.abs(night.turns[rows] @ predicted.across), 1.0)))
    angle_window = config.angle_tolerance_deg + config.n_sigma * np.hypot(
        night.angle_errors[rows], night.angle_errors[seed]
    )
    is_like = (np.abs(night.rates[rows] - path.rate) <= rate_window) & (angle <= angle_window)
    good = is_like & (distance <= config.n_sigma) & _is_as_bright(night, seed, night.trails, rows)
    area = np.pi * config.n_sigma**2 * along_err * across_err
    alike = np.minimum(2.0 * rate_window / path.rate, 1.0) * np.minimum(angle_window / 90.0, 1.0)
    expected = exposure.density(rows.size) * area * alike
    hits = [_Hit(True, int(rows[k]), float(distance[k]), float(expected[k])) for k in np.flatnonzero(good)]
    return sorted(hits, key=lambda hit: (hit.distance, hit.row))


def _point_hits(night: TrailNight, exposure: Exposure, predicted: Predicted, seed: int) -> list[_Hit]:
    if exposure.tree is None:
        return []
    config = night.config
    largest = float(night.point_error[exposure.points].max())
    reach = config.n_sigma * np.hypot(max(predicted.along_err, predicted.across_err), largest)
    near = np.array(exposure.tree.query_ball_point(predicted.place, float(chord_of(reach))), dtype=np.intp)
    rows = exposure.points[np.sort(near)]
    if rows.size == 0:
        return []
    ahead, aside = predicted.offsets(night.at[rows])
    along_err = np.hypot(predicted.along_err, night.point_error[rows])
    across_err = np.hypot(predicted.across_err, night.point_error[rows])
    distance = np.hypot(ahead / along_err, aside / across_err)
    good = (distance <= config.n_sigma) & _is_as_bright(night, seed, night.points, rows)
    expected = exposure.density(exposure.points.size) * np.pi * config.n_sigma**2 * along_err * across_err
    hits = [_Hit(False, int(rows[k]), float(distance[k]), float(expected[k])) for k in np.flatnonzero(good)]
    return sorted(hits, key=lambda hit: (hit.distance, hit.row))


def _is_as_bright(
    night: TrailNight, seed: int, others: TrailedSources | MovingSources, rows: Integers
) -> NDArray[np.bool_]:
    """Return whether others are as bright as a trail; those of other filters or unknown magnitude may be."""
    mine, config = night.trails, night.config
    error = np.hypot(np.nan_to_num(mine.mag_err[seed]), np.nan_to_num(others.mag_err[rows]))
    offset = np.abs(others.mag[rows] - mine.mag[seed])
    return np.asarray((others.band[rows] != mine.band[seed]) | ~(offset > config.max_mag_scatter + 3.0 * error))


def _grown(night: TrailNight, members: _Members, exposure_of_hit: int) -> _Members:
    """Return a trail and one other with what of each other exposure is where both together predict it."""
    (hit,), seed = members.hits, members.seed
    path = _path_through(night, seed, hit)
    hits = [hit]
    for k, predicted in _predicted_in(night, path, float(night.trails.mjd[seed])):
        if k != exposure_of_hit:
            hits += _hits(night, night.exposures[k], path, predicted, seed)[:1]
    return members._replace(hits=tuple(hits))


def _path_through(night: TrailNight, seed: int, hit: _Hit) -> Path:
    """Return the path through the middle of a trail and one other."""
    config, trails = night.config, night.trails
    here = float(trails.mjd[seed])
    along, across = (float(np.hypot(e / np.sqrt(2.0), config.error_floor_arcsec)) for e in night.errors(seed))
    if hit.is_trail:
        there, place = float(trails.mjd[hit.row]), night.middle[hit.row]
        errors = tuple(float(np.hypot(e / np.sqrt(2.0), config.error_floor_arcsec)) for e in night.errors(hit.row))
    else:
        there, place = float(night.points.mjd[hit.row]), night.at[hit.row]
        errors = (float(night.point_error[hit.row]),) * 2
    one, two = (night.middle[seed], here, along, across), (place, there, *errors)
    (a, t_a, along_a, across_a), (b, t_b, along_b, across_b) = (one, two) if here < there else (two, one)
    return Path(a, b, t_a, t_b, (along_a, along_b), (across_a, across_b), config.bending_per_min)


def _judged(night: TrailNight, members: _Members) -> TrailLink | None:
    """Return the link if the motion is straight and even and hardly chance, else None; the worst member may go."""
    motion = _motion(night, members)
    while motion.probability < night.config.min_probability:
        smaller = [members._replace(hits=members.hits[:k] + members.hits[k + 1 :]) for k in range(1, len(members.hits))]
        if not smaller:
            return None
        motion, members = min(((_motion(night, left), left) for left in smaller), key=lambda pair: pair[0].chi2)
    if members.chance > -np.log1p(-night.config.max_false_probability):
        return None
    trails = sorted((members.seed, *members.trails), key=lambda row: (night.trails.mjd_begin[row], row))
    points = sorted(members.points, key=lambda row: (night.points.mjd[row], row))
    senses = tuple(_is_forward(night, members, row) for row in trails)
    return TrailLink(tuple(trails), senses, tuple(points), motion, float(-np.expm1(-members.chance)))


def _is_forward(night: TrailNight, members: _Members, row: int) -> bool:
    """Return whether another trail was drawn from its first end, if the seed was so as `members` says."""
    agree = (night.second[row] - night.first[row]) @ (night.second[members.seed] - night.first[members.seed]) > 0
    return bool(agree) == members.is_forward


def _motion(night: TrailNight, members: _Members) -> Motion:
    """Fit even motion to both ends of each trail, at the times they were passed, and to the points."""
    trails, points = np.array((members.seed, *members.trails)), np.array(members.points, dtype=np.intp)
    forward = np.array([_is_forward(night, members, int(row)) for row in trails])
    begin = np.where(forward[:, None], night.first[trails], night.second[trails])
    end = np.where(forward[:, None], night.second[trails], night.first[trails])
    vectors = np.concatenate([begin, end, night.at[points]])
    mjd = np.concatenate([night.trails.mjd_begin[trails], night.trails.mjd_end[trails], night.points.mjd[points]])
    floor = _floor(night, members, mjd)
    along, across = (
        np.hypot(np.concatenate([error[trails], error[trails], night.point_error[points]]), floor)
        for error in (night.trails.along_err, night.trails.across_err)
    )
    return fit_motion(vectors, mjd, along, across, along_deg=_angle_of(begin[0], end[0]))


def _floor(night: TrailNight, members: _Members, mjd: Floats) -> float:
    """Return what is added to errors, arcsec: the solution's, and how far a bent path leaves its chord."""
    minutes = float(np.ptp(mjd)) * MINUTES
    bend = night.config.bending_per_min * float(night.rates[members.seed]) * minutes**2 / 16.0
    return 0.0 if not members.hits else float(np.hypot(night.config.error_floor_arcsec, bend))


def _angle_of(begin: Floats, end: Floats) -> float:
    """Return the position angle of the direction from one unit vector to another at the place between, degrees."""
    middle = (begin + end) / np.linalg.norm(begin + end)
    flat = max(float(np.hypot(middle[0], middle[1])), 1e-12)
    east = np.array([-middle[1] / flat, middle[0] / flat, 0.0])
    north = np.cross(middle, east)
    return float(np.degrees(np.arctan2((end - begin) @ east, (end - begin) @ north)))


def _no_points() -> MovingSources:
    nothing = np.zeros(0)
    return MovingSources(nothing, nothing, nothing, nothing, nothing, nothing, nothing, np.zeros(0, dtype=np.int64))
