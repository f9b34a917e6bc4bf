"""Link a night's isolated detections and trails into tracklets of moving objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.moving.motion import Motion
from gueststar.algorithms.moving.tracklets import LinkConfig, MovingSources, link_sources
from gueststar.algorithms.moving.trail_links import link_trails, motions_of_trails
from gueststar.algorithms.moving.trail_night import TrailLinkConfig
from gueststar.algorithms.moving.trails import TrailedSources
from gueststar.core.bits import SourceFlag
from gueststar.core.ids import content_id
from gueststar.model.catalog import Catalog
from gueststar.model.columns import TRACKLET
from gueststar.model.photocal import NJY_ZERO_POINT
from gueststar.pipelines.moving.trailed import asteroid_streaks, is_piece, trailed_sources


@dataclass(frozen=True)
class TrackletConfig:
    """Which detections are linked, and how."""

    min_reliability: float = 0.3
    """Detections of lower score are left out (unscored ones are not)."""
    isolation_arcsec: float = 2.0
    """A detection with a reference source this near is left out: it is more likely a variable."""
    never_link: SourceFlag = SourceFlag.SATELLITE | SourceFlag.COSMIC_RAY | SourceFlag.BAD_PIXEL | SourceFlag.DIPOLE
    """Flags with which a detection is left out."""
    link: LinkConfig = field(default_factory=LinkConfig)
    """Of detections that are points."""
    trail: TrailLinkConfig = field(default_factory=TrailLinkConfig)
    """Of trails with each other and with points."""
    min_streak_reliability: float = 0.6
    """Streaks of lower score are no trails."""
    max_streak_rate: float = 5.0
    """Faster streaks are no trails of asteroids, arcsec/s."""
    is_lone_trail_kept: bool = True
    """Whether one trail that nothing goes with is a tracklet by itself."""


class Members(NamedTuple):
    """What a tracklet is made of."""

    dia_source_ids: tuple[int, ...]
    """Detections, by time."""
    streak_ids: tuple[int, ...] = ()
    """Trails, by time."""
    is_forward: tuple[bool, ...] = ()
    """Whether each trail was drawn from its first end to its second."""


@dataclass(frozen=True, eq=False)
class Tracklets:
    """Moving objects of one night."""

    tracklets: Catalog
    """`TRACKLET` rows."""
    members: tuple[Members, ...]
    """Of each tracklet."""
    metrics: dict[str, Any]
    """How many detections were linked from how many exposures, and in how many of them density bounded the search."""


class LinkTracklets:
    """Find things that move among a night's detections and streaks."""

    def __init__(self, config: TrackletConfig = TrackletConfig()) -> None:
        self.config = config

    def run(
        self, dia_sources: Catalog, *, streaks: Sequence[Mapping[str, Any]] = (),
        tracks: Sequence[Mapping[str, Any]] = (), earlier_objects: NDArray[np.int64] | None = None,
    ) -> Tracklets:  # fmt: skip
        """Return the tracklets among `DIA_SOURCE` rows of one night and the streaks of that night.

        ``streaks`` are rows of `streak_tracks.listed` and ``tracks`` what `LinkStreaks` made of them. Trails come
        first, alone a tracklet already; what they do not claim is linked by itself. ``earlier_objects`` are
        dia_object_ids that were seen on nights before: they do not move.
        """
        config = self.config
        trails = asteroid_streaks(
            streaks, tracks, min_reliability=config.min_streak_reliability, max_rate=config.max_streak_rate
        )
        is_chosen = self.is_candidate(dia_sources, earlier_objects) & ~is_piece(dia_sources, trails)
        chosen = dia_sources.select(is_chosen)
        moving, trailed = _moving_sources(chosen), trailed_sources(trails)
        trail_links = link_trails(trailed, moving, config=config.trail)
        is_free = np.ones(chosen.n_rows, dtype=bool)
        is_free[[row for link in trail_links for row in link.points]] = False
        free = np.flatnonzero(is_free)
        found = link_sources(_moving_sources(chosen.select(free)), config=config.link)
        made = [_Made(k.points, k.trails, k.is_forward, k.motion, k.false_probability) for k in trail_links]
        if config.is_lone_trail_kept:
            made += _lone(trailed, trails, {row for link in trail_links for row in link.trails})
        made += [_Made(tuple(free[list(k.rows)]), (), (), k.motion, k.false_probability) for k in found.links]
        members = tuple(_members(chosen, trails, one) for one in made)
        rows = [_row(moving, trailed, one, number) for one, number in zip(made, members, strict=True)]
        table = {column.name: [row[column.name] for row in rows] for column in TRACKLET.columns}
        is_bounded = found.n_bounded > 0
        metrics = {
            "n_candidates": chosen.n_rows,
            "n_trails": len(trails),
            "n_exposures": found.n_exposures,
            "n_bounded_exposures": found.n_bounded,
            "least_reach_arcsec": found.least_reach_arcsec if is_bounded else None,
        }
        return Tracklets(TRACKLET.catalog(table), members, metrics)

    def is_candidate(self, dia_sources: Catalog, earlier_objects: NDArray[np.int64] | None = None) -> NDArray[np.bool_]:
        """Return which detections may belong to something that moves."""
        is_isolated = ~(dia_sources["reference_distance"] < self.config.isolation_arcsec)
        is_clean = (dia_sources["flags"] & int(self.config.never_link)) == 0
        is_likely = ~(dia_sources["reliability"] < self.config.min_reliability)
        is_candidate = dia_sources["is_positive"].astype(bool) & is_isolated & is_clean & is_likely
        if earlier_objects is not None:
            is_candidate &= ~np.isin(dia_sources["dia_object_id"], earlier_objects)
        return np.asarray(is_candidate)


def _moving_sources(sources: Catalog) -> MovingSources:
    flux = np.where(sources["psf_flux"] > 0, sources["psf_flux"], np.nan)
    return MovingSources(
        sources["mjd_tai"], sources["ra"], sources["dec"],
        sources["ra_err"].astype(np.float64), sources["dec_err"].astype(np.float64),
        NJY_ZERO_POINT - 2.5 * np.log10(flux), 2.5 / np.log(10.0) * sources["psf_flux_err"] / flux,
        sources["band_id"].astype(np.int64),
    )  # fmt: skip


class _Made(NamedTuple):
    points: tuple[int, ...]
    """Rows of the candidates."""
    trails: tuple[int, ...]
    """Rows of the trails."""
    is_forward: tuple[bool, ...]
    motion: Motion
    false_probability: float
    is_sense_known: bool = True


def _lone(trailed: TrailedSources, rows: Sequence[Mapping[str, Any]], linked: set[int]) -> list[_Made]:
    """Return what single trails tell, as if each moved from its first end to its second."""
    left = [row for row in range(len(rows)) if row not in linked]
    return [
        _Made((), (row,), (True,), motion, 1.0 - float(rows[row]["reliability"]), False)
        for row, motion in zip(left, motions_of_trails(trailed, left) if left else [], strict=True)
    ]


def _members(sources: Catalog, trails: Sequence[Mapping[str, Any]], made: _Made) -> Members:
    ids = sources["dia_source_id"]
    streak_ids = tuple(int(trails[row]["streak_id"]) for row in made.trails)
    return Members(tuple(int(ids[row]) for row in made.points), streak_ids, made.is_forward)


def _row(moving: MovingSources, trailed: TrailedSources, made: _Made, members: Members) -> dict[str, float]:
    points, trails, motion = list(made.points), list(made.trails), made.motion
    mjd = np.concatenate([moving.mjd[points], trailed.mjd_begin[trails], trailed.mjd_end[trails]])
    mag = np.concatenate([moving.mag[points], trailed.mag[trails]])
    known = mag[np.isfinite(mag)]
    return {
        "tracklet_id": content_id("tracklet", *sorted(members.dia_source_ids), *sorted(members.streak_ids)),
        "n_detections": len(points) + len(trails),
        "mjd_tai": motion.mjd,
        "ra": motion.ra,
        "dec": motion.dec,
        "rate_arcsec_per_min": motion.rate,
        "rate_err": motion.rate_err,
        "position_angle_deg": motion.position_angle,
        "position_angle_err": motion.position_angle_err,
        "span_min": float(np.ptp(mjd)) * 1440.0,
        "mag": float(np.median(known)) if known.size else np.nan,
        "mag_scatter": float(np.std(known)) if known.size else np.nan,
        "chi2": motion.chi2 / max(motion.n_dof, 1),
        "false_probability": made.false_probability,
        "n_trailed": len(trails),
        "is_sense_known": made.is_sense_known,
    }
