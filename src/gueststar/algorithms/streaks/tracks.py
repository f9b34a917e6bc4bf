"""Streaks that belong together: pieces of one path across detectors, one body in several exposures, one place on the
detector in several exposures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.streaks.search import share_on
from gueststar.algorithms.streaks.trace import Segment

Floats = NDArray[np.float64]
Link = Literal["continued", "seen again", "same pixels"]


@dataclass(frozen=True)
class TrackConfig:
    """When two streaks are one path, or one body."""

    distance_arcsec: float = 3.0
    """How far from a streak's great circle another may lie, besides its error."""
    n_sigma: float = 4.0
    """The same, errors of the great circle."""
    angle_deg: float = 1.0
    """How far directions of pieces of one path may differ, besides errors: paths of satellites are bent."""
    max_gap_deg: float = 3.0
    """Farthest apart that pieces of one path may be."""
    max_hours: float = 2.0
    """Longest time between two exposures that show one body."""
    rate_tolerance: float = 0.2
    """By which fraction rates of one body may differ, besides errors."""
    same_pixels: float = 4.0
    """How far beside one streak another of another exposure may lie to be the same defect or ghost, pixels."""
    same_share: float = 0.6
    """Which fraction of either must lie on the other for that."""


class SkyStreak(NamedTuple):
    """What of a streak its links depend on."""

    streak_id: int
    visit: int
    mjd_begin: float
    mjd_end: float
    ra: tuple[float, float]
    """Both ends, degrees."""
    dec: tuple[float, float]
    angle_err: float
    """Error of its direction, radians."""
    across_err: float
    """Error of its place across, arcsec."""
    is_complete: bool
    """Whether both ends are seen."""
    detector: int = 0
    pixels: Segment | None = None
    """Where it lies on the detector; None where that is not known."""


class StreakTrack(NamedTuple):
    """Streaks that belong together."""

    streak_ids: tuple[int, ...]
    """By time, then by id."""
    link: Link
    rate: float
    """arcsec/s: from the times, if it was seen again; else length of all pieces over exposure time, at least."""
    is_forward: bool | None
    """Whether the first streak was drawn from its first end to its second; None where that is not known."""


def link_streaks(streaks: Sequence[SkyStreak], *, config: TrackConfig | None = None) -> list[StreakTrack]:
    """Return groups of streaks of one night that are one path in one exposure, or one body in two or more.

    Pieces of one path lie on one great circle. A body seen again moved along its own streak, at the rate that its
    length tells; that order of exposures also tells which end came first. Streaks on the same pixels of several
    exposures are ghosts, dust or defects: what moves on the sky moved on. They take part in no other track.
    """
    config = config or TrackConfig()
    fixed = _groups([(a, b) for a, b in _pairs(len(streaks)) if is_same_place(streaks[a], streaks[b], config)])
    bound = {k for group in fixed for k in group}
    left = [k for k in range(len(streaks)) if k not in bound]
    tracks = [_fixed_track(streaks, group) for group in fixed]
    return _moving_tracks([streaks[k] for k in left], config) + tracks


def is_same_place(a: SkyStreak, b: SkyStreak, config: TrackConfig) -> bool:
    """Return whether two streaks of different exposures lie on the same pixels of a detector."""
    if a.visit == b.visit or a.detector != b.detector or a.pixels is None or b.pixels is None:
        return False
    return all(
        share_on(one, other, width=config.same_pixels) > config.same_share
        for one, other in ((a.pixels, b.pixels), (b.pixels, a.pixels))
    )


def _moving_tracks(streaks: Sequence[SkyStreak], config: TrackConfig) -> list[StreakTrack]:
    continued = [
        (a, b) for a, b in _pairs(len(streaks))
        if streaks[a].visit == streaks[b].visit and is_continued(streaks[a], streaks[b], config)
    ]  # fmt: skip
    again = [
        (a, b) for a, b in _pairs(len(streaks))
        if streaks[a].visit != streaks[b].visit and _displacement(streaks[a], streaks[b], config) is not None
    ]  # fmt: skip
    tracks = [_continued_track(streaks, group) for group in _groups(continued)]
    return tracks + [_repeated_track(streaks, group, config) for group in _groups(again)]


def is_continued(a: SkyStreak, b: SkyStreak, config: TrackConfig) -> bool:
    """Return whether two streaks of one exposure are pieces of one path."""
    if a.is_complete and b.is_complete:
        return False  # both are all that there was
    gap = np.degrees(min(_angle(p, q) for p in _ends(a) for q in _ends(b)))
    if gap > config.max_gap_deg:
        return False
    bend = np.arcsin(min(1.0, float(np.linalg.norm(np.cross(_pole(a), _pole(b))))))
    if bend > np.radians(config.angle_deg) + config.n_sigma * np.hypot(a.angle_err, b.angle_err):
        return False
    return all(_is_on(one, other, config) for one, other in ((a, b), (b, a)))


def _is_on(one: SkyStreak, other: SkyStreak, config: TrackConfig) -> bool:
    """Return whether the nearer end of a streak lies on the great circle of another."""
    pole, ends = _pole(one), _ends(other)
    near = min(ends, key=lambda p: min(_angle(p, q) for q in _ends(one)))
    away = min(_angle(near, q) for q in _ends(one))
    off = abs(np.arcsin(np.clip(near @ pole, -1.0, 1.0)))
    error = np.hypot(np.radians(np.hypot(one.across_err, other.across_err) / 3600.0), one.angle_err * away)
    bend = 0.5 * np.radians(config.angle_deg) * away  # a path that bends by that much on the way
    return bool(off < np.radians(config.distance_arcsec / 3600.0) + config.n_sigma * error + bend)


def _displacement(a: SkyStreak, b: SkyStreak, config: TrackConfig) -> tuple[float, bool] | None:
    """Return rate (radians a day) and sense of one body's motion from streak a to b; None if they are not of one."""
    if not (a.is_complete and b.is_complete):
        return None
    first, second = (a, b) if a.mjd_begin <= b.mjd_begin else (b, a)
    days = 0.5 * (second.mjd_begin + second.mjd_end - first.mjd_begin - first.mjd_end)
    exposure = first.mjd_end - first.mjd_begin
    if not 0.0 < days <= config.max_hours / 24.0 or exposure <= 0:
        return None
    length = _angle(*_ends(first))
    other = _angle(*_ends(second)) * exposure / max(second.mjd_end - second.mjd_begin, 1e-9)
    if abs(length - other) > config.rate_tolerance * max(length, other) + 2.0 * np.radians(first.across_err / 3600.0):
        return None
    moved = _angle(_middle(first), _middle(second))
    rate = moved / days
    if abs(rate * exposure - length) > config.rate_tolerance * length:
        return None
    pole = _pole(first)
    off = abs(np.arcsin(np.clip(_middle(second) @ pole, -1.0, 1.0)))
    error = np.hypot(np.radians(first.across_err / 3600.0), first.angle_err * moved)
    if off > np.radians(config.distance_arcsec / 3600.0) + config.n_sigma * error:
        return None
    ends = _ends(first)
    return rate, bool((_middle(second) - _middle(first)) @ (ends[1] - ends[0]) > 0)


def _fixed_track(streaks: Sequence[SkyStreak], group: list[int]) -> StreakTrack:
    ordered = sorted(group, key=lambda k: (streaks[k].mjd_begin, streaks[k].streak_id))
    return StreakTrack(tuple(streaks[k].streak_id for k in ordered), "same pixels", 0.0, None)


def _continued_track(streaks: Sequence[SkyStreak], group: list[int]) -> StreakTrack:
    ends = [end for k in group for end in _ends(streaks[k])]
    span = max(_angle(p, q) for p in ends for q in ends)
    exposure_s = (streaks[group[0]].mjd_end - streaks[group[0]].mjd_begin) * 86400.0
    rate = np.degrees(span) * 3600.0 / exposure_s if exposure_s > 0 else float("nan")
    return StreakTrack(tuple(sorted(streaks[k].streak_id for k in group)), "continued", float(rate), None)


def _repeated_track(streaks: Sequence[SkyStreak], group: list[int], config: TrackConfig) -> StreakTrack:
    ordered = sorted(group, key=lambda k: (streaks[k].mjd_begin, streaks[k].streak_id))
    first = streaks[ordered[0]]
    found = [_displacement(first, streaks[k], config) for k in ordered[1:]]
    known = [value for value in found if value is not None]
    rate = float(np.median([np.degrees(r) * 3600.0 / 86400.0 for r, _ in known])) if known else float("nan")
    forward = known[0][1] if known else None
    return StreakTrack(tuple(streaks[k].streak_id for k in ordered), "seen again", rate, forward)


def _pairs(n: int) -> list[tuple[int, int]]:
    return [(a, b) for a in range(n) for b in range(a + 1, n)]


def _groups(pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Return the connected groups of linked numbers, each sorted."""
    groups: list[set[int]] = []
    for a, b in pairs:
        touching = [group for group in groups if a in group or b in group]
        merged = {a, b}.union(*touching)
        groups = [group for group in groups if group not in touching] + [merged]
    return sorted(sorted(group) for group in groups)


def _ends(streak: SkyStreak) -> tuple[Floats, Floats]:
    ends = []
    for ra, dec in zip(np.radians(streak.ra), np.radians(streak.dec), strict=True):
        ends.append(np.array([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)]))
    return ends[0], ends[1]


def _middle(streak: SkyStreak) -> Floats:
    a, b = _ends(streak)
    return np.asarray((a + b) / np.linalg.norm(a + b))


def _pole(streak: SkyStreak) -> Floats:
    a, b = _ends(streak)
    normal = np.cross(a, b)
    return np.asarray(normal / max(float(np.linalg.norm(normal)), 1e-15))


def _angle(p: Floats, q: Floats) -> float:
    """Return the angle between two directions, radians."""
    return float(2.0 * np.arcsin(min(1.0, float(np.linalg.norm(p - q)) / 2.0)))
