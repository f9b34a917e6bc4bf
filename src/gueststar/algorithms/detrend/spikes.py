"""Diffraction spikes of saturated stars: sharp across, and no cosmic rays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label, median_filter

from gueststar.algorithms.detrend.groups import label_groups

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_SEGMENT = 8
"""Pixels of a spike that are judged together."""
_BESIDE = (4.0, 6.0)
"""Pixels from a spike's axis where the light beside it is measured."""


@dataclass(frozen=True)
class SpikeConfig:
    """How diffraction spikes are found."""

    min_area: int = 9
    """Stars with fewer saturated pixels (their margin included) are not looked at."""
    max_stars: int = 400
    """Most stars that are looked at, those with most saturated pixels first."""
    reach: int = 48
    """Pixels beyond the saturated ones over which the directions of spikes are measured."""
    significance: float = 8.0
    """Directions count that stand out by this many sigma among all directions, in the sum over the stars."""
    segment_significance: float = 3.0
    """A spike is followed as long as a piece of eight pixels stands out by this many sigma."""
    first_significance: float = 4.5
    """By how many sigma its first two pieces must stand out."""
    contrast: float = 3.0
    """Pixels on a spike that are brighter than this many times the spike may be cosmic rays all the same."""


class Spikes(NamedTuple):
    """Where the light of a star's image is sharper than a star."""

    y: Integers
    """Pixels on spikes."""
    x: Integers
    angles_deg: Floats
    """Directions of the spikes, counter-clockwise from +x."""
    n_stars: int
    """Stars of which at least one spike was followed."""


_MOST_FOR_DIRECTIONS = 30
"""Saturated places, the largest first, on which the directions are measured."""
_MOST_MISSED = 3
"""Pieces of a spike in a row that may not stand out before it has ended."""

_LATEST = 6
"""Pieces from a saturated star on that may be hidden before a spike is seen."""

NONE = Spikes(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), 0)


def find_spikes(
    image: NDArray[np.float32],
    level: NDArray[np.float32],
    rms: NDArray[np.float32],
    is_excluded: NDArray[np.bool_],
    *,
    saturated_y: Integers,
    saturated_x: Integers,
    readout_axis: str = "y",
    config: SpikeConfig = SpikeConfig(),
) -> Spikes:
    """Return the pixels on diffraction spikes of the stars whose saturated pixels are given.

    The vanes of the telescope give all stars of an image spikes of the same directions: those in which the
    median light between the saturated pixels and ``reach`` stands out, summed over the stars. Each star's spikes
    are then followed outwards, piece by piece, as long as they stand out from the light on both sides. Pixels that
    are far brighter than the spike there are left out: a ray may have hit it.

    ``image`` holds the sky (``level``), ``rms`` is its noise; ``is_excluded`` pixels (saturated, bad) are not looked
    at. Charge bleeds along ``readout_axis``. Spikes that come in from stars beyond the image are followed too, once the
    directions are known.
    """
    stars, n_groups = _centres(saturated_y, saturated_x, (image.shape[0], image.shape[1]), readout_axis, config)
    if stars.shape[1] == 0:
        return NONE
    brightest = stars[:, : min(n_groups, _MOST_FOR_DIRECTIONS)]
    angles = _directions(_profiles(image, level, rms, is_excluded, *brightest, config.reach), config.significance)
    if angles.size == 0:
        return NONE
    y, x, n_stars = _follow_all(
        image, level, rms, is_excluded, *stars, angles, config.reach,
        config.first_significance, config.segment_significance, config.contrast,
    )  # fmt: skip
    border_y, border_x = _enter(
        image, level, rms, is_excluded, angles, config.first_significance, config.segment_significance, config.contrast
    )
    flat = np.unique(np.concatenate([y, border_y]) * image.shape[1] + np.concatenate([x, border_x]))
    y, x = np.divmod(flat, image.shape[1])
    return Spikes(y, x, np.degrees(angles), int(n_stars))


def _centres(
    y: Integers, x: Integers, shape: tuple[int, int], readout_axis: str, config: SpikeConfig
) -> tuple[Floats, int]:
    """Return ``[3, n]``: x, y and half width of places where saturated stars may be, and the number of groups.

    The widest place of each group of pixels comes first, that of the largest group before all.
    """
    if y.size == 0:
        return np.zeros((3, 0)), 0
    groups = label_groups(y, x, shape=shape)
    area = np.bincount(groups)
    order = np.argsort(groups, kind="stable")
    bounds = np.searchsorted(groups[order], np.arange(area.size + 1))
    largest = np.argsort(-area, kind="stable")[: config.max_stars]
    along, across = (y, x) if readout_axis == "y" else (x, y)
    hearts: list[tuple[float, float, float]] = []
    others: list[tuple[float, float, float]] = []
    for group in largest[area[largest] >= config.min_area]:
        rows = order[bounds[group] : bounds[group + 1]]
        widest, *rest = _hearts(along[rows], across[rows])
        hearts.append(widest)
        others += rest
    a, c, half = np.array(hearts + others, dtype=np.float64).reshape(-1, 3).T
    return np.stack([c, a, half] if readout_axis == "y" else [a, c, half]), len(hearts)


def _hearts(along: Integers, across: Integers) -> list[tuple[float, float, float]]:
    """Return (along, across, half width) of the places in one group of pixels where a star may be.

    The widest place is one. Charge that bled joins stars of the same columns: in a long group they may be anywhere.
    """
    first = int(along.min())
    width = np.bincount(along - first)
    middle = np.bincount(along - first, across) / np.maximum(width, 1)
    widest = np.flatnonzero(width == width.max())
    heart, half = int(widest[widest.size // 2]), 0.5 * float(width.max())
    step = max(int(2.0 * half), 6)
    places = [heart, *range(heart - step, -1, -step), *range(heart + step, width.size, step)]
    return [(first + place, float(middle[place]), half) for place in places if width[place] > 0]


def _directions(profiles: Floats, significance: float) -> Floats:
    """Return the angles (radians) at which the stars' profiles ``[star, angle]``, summed, stand out."""
    n = profiles.shape[1]
    ring = median_filter(profiles, size=(1, 2 * (n // 30) + 1), mode="wrap")
    sharp = profiles - ring
    sigma = 1.4826 * np.median(np.abs(sharp), axis=1, keepdims=True) + 1e-6
    # A star counts no more than others, however bright: a neighbour lies in some direction of each.
    summed = np.clip(sharp / sigma, -5.0, 10.0).sum(axis=0)
    score = (summed - np.median(summed)) / (1.4826 * np.median(np.abs(summed - np.median(summed))) + 1e-6)
    angle = 2.0 * np.pi * np.arange(n) / n
    labels, _ = label(score > significance)
    if labels[0] and labels[-1]:
        labels[labels == labels[-1]] = labels[0]
    weighted = [np.sum(np.where(labels == k, score, 0.0) * np.exp(1j * angle)) for k in np.unique(labels[labels > 0])]
    return np.sort(np.angle(np.array(weighted, dtype=np.complex128)) % (2.0 * np.pi))


@numba.njit(cache=True)
def _excess(image, level, is_excluded, y, x):  # type: ignore[no-untyped-def]
    """Return the light above the sky at a place between pixels; NaN where it cannot be known."""
    ny, nx = image.shape
    v, u = math.floor(y), math.floor(x)
    if v < 0 or u < 0 or v >= ny - 1 or u >= nx - 1:
        return np.nan
    if is_excluded[v, u] or is_excluded[v, u + 1] or is_excluded[v + 1, u] or is_excluded[v + 1, u + 1]:
        return np.nan
    b, a = y - v, x - u
    below = (1.0 - a) * image[v, u] + a * image[v, u + 1]
    above = (1.0 - a) * image[v + 1, u] + a * image[v + 1, u + 1]
    return (1.0 - b) * below + b * above - level[v, u]


@numba.njit(cache=True)
def _profiles(image, level, rms, is_excluded, x, y, radius, reach, n_angles=720):  # type: ignore[no-untyped-def]
    """Return ``[star, angle]`` the median light, in units of the sky's noise, between a star's core and ``reach``."""
    profiles = np.zeros((x.size, n_angles))
    values = np.empty(reach)
    for s in range(x.size):
        first = 1.5 * radius[s] + 3.0
        noise = rms[min(max(int(y[s]), 0), rms.shape[0] - 1), min(max(int(x[s]), 0), rms.shape[1] - 1)]
        for k in range(n_angles):
            c, d = math.cos(2.0 * math.pi * k / n_angles), math.sin(2.0 * math.pi * k / n_angles)
            n = 0
            for r in range(0, reach, 2):
                value = _excess(image, level, is_excluded, y[s] + (first + r) * d, x[s] + (first + r) * c)
                if not math.isnan(value):
                    values[n] = value
                    n += 1
            if n >= reach // 4:
                profiles[s, k] = np.median(values[:n]) / noise
    return profiles


@numba.njit(cache=True)
def _aligned(image, level, rms, is_excluded, x, y, radius, angle, reach):  # type: ignore[no-untyped-def]
    """Return the angle and the offset across, near those given, at which a spike is brightest.

    The centre of saturated pixels may be off the star's by much of their ``radius``: charge bled, or stars merged.
    """
    best, best_angle, best_offset = -np.inf, angle, 0.0
    widest = int(2.0 * min(max(radius, 1.5), 15.0))
    for i in range(-2, 3):
        turned = angle + math.radians(0.5 * i)
        c, d = math.cos(turned), math.sin(turned)
        for j in range(-widest, widest + 1):
            offset, total = 0.5 * j, 0.0
            for r in range(0, reach, 2):
                u = x + (radius + 2.0 + r) * c - offset * d
                v = y + (radius + 2.0 + r) * d + offset * c
                value = _excess(image, level, is_excluded, v, u)
                if not math.isnan(value):
                    total += min(value / rms[int(v), int(u)], 20.0)  # the far end tells the angle; no pixel may rule
            if total > best:
                best, best_angle, best_offset = total, turned, offset
    return best_angle, best_offset


@numba.njit(cache=True)
def _segment(image, level, rms, is_excluded, x, y, start, c, d, offset):  # type: ignore[no-untyped-def]
    """Return median light along a piece of a spike, and by how many sigma it exceeds that on its brighter side."""
    along, left, right = np.empty(_SEGMENT), np.empty(2 * _SEGMENT), np.empty(2 * _SEGMENT)
    n, m, k = 0, 0, 0
    noise = np.inf
    for r in range(_SEGMENT):
        for across in (0.0, *_BESIDE, -_BESIDE[0], -_BESIDE[1]):
            u = x + (start + r) * c - (offset + across) * d
            v = y + (start + r) * d + (offset + across) * c
            value = _excess(image, level, is_excluded, v, u)
            if math.isnan(value):
                continue
            noise = rms[int(v), int(u)]
            if across == 0.0:
                along[n] = value
                n += 1
            elif across > 0.0:
                left[m] = value
                m += 1
            else:
                right[k] = value
                k += 1
    if n < _SEGMENT // 2 or m == 0 or k == 0:
        return np.nan, 0.0
    middle = np.median(along[:n])
    beside = max(np.median(left[:m]), np.median(right[:k]))
    return middle, (middle - beside) / (1.2533 * math.sqrt((noise**2 + max(middle, 0.0)) / n))


@numba.njit(cache=True)
def _follow_all(  # type: ignore[no-untyped-def]
    image, level, rms, is_excluded, x, y, radius, angles, reach, first_significance, significance, contrast
):
    """Return the pixels (y, x) on the spikes of all stars, some more than once, and how many stars have spikes."""
    found_y, found_x = [0 for _ in range(0)], [0 for _ in range(0)]
    n_stars = 0
    for s in range(x.size):
        n_before = len(found_y)
        for angle in angles:
            turned, offset = _aligned(image, level, rms, is_excluded, x[s], y[s], radius[s], angle, reach)
            # A neighbour may have drawn the alignment to itself: then straight out from the centre is tried.
            for trial, across in ((turned, offset), (angle, 0.0), (angle, -1.0), (angle, 1.0)):
                n_known = len(found_y)
                _follow(
                    image, level, rms, is_excluded, x[s], y[s], radius[s] + 2.0, trial, across, _LATEST,
                    first_significance, significance, contrast, found_y, found_x,
                )  # fmt: skip
                if len(found_y) > n_known:
                    break
        if len(found_y) > n_before:
            n_stars += 1
    return np.array(found_y, np.int64), np.array(found_x, np.int64), n_stars


@numba.njit(cache=True)
def _enter(  # type: ignore[no-untyped-def]
    image, level, rms, is_excluded, angles, first_significance, significance, contrast
):
    """Return the pixels (y, x) on spikes that come in over the border, some more than once."""
    found_y, found_x = [0 for _ in range(0)], [0 for _ in range(0)]
    ny, nx = image.shape
    for angle in angles:
        for k in range(nx + ny):
            x, y = float(k), 0.0 if math.sin(angle) > 0.0 else ny - 1.0
            if k >= nx:
                x, y = 0.0 if math.cos(angle) > 0.0 else nx - 1.0, float(k - nx)
            _follow(
                image, level, rms, is_excluded, x, y, 2.0, angle, 0.0, 0,
                first_significance, significance, contrast, found_y, found_x,
            )  # fmt: skip
    return np.array(found_y, np.int64), np.array(found_x, np.int64)


@numba.njit(cache=True)
def _follow(  # type: ignore[no-untyped-def]
    image, level, rms, is_excluded, x, y, first, angle, offset, n_late,
    first_significance, significance, contrast, found_y, found_x,
):  # fmt: skip
    """List the pixels on one spike, from the distance ``first`` outwards.

    Two pieces in a row must stand out clearly, no more than ``n_late`` pieces later, for it to begin.
    """
    c, d = math.cos(angle), math.sin(angle)
    n_seen, n_missed, inner, start = 0, 0, np.inf, first
    while n_missed <= (_MOST_MISSED if n_seen > 1 else n_late):
        middle, height = _segment(image, level, rms, is_excluded, x, y, start, c, d, offset)
        is_lit = height > (significance if n_seen > 1 else first_significance)
        if is_lit and (n_seen < 2 or n_missed == 0 or middle < inner):  # what is brighter again is something else
            # Pieces that another star hid count too; light falls outwards, by no more than four times a piece.
            brightest = contrast * min(inner, 4.0 * middle)
            back = n_missed if n_seen > 1 else n_seen - 1  # the first waits for the second
            for k in range(back + (n_seen == 1), -1, -1):
                _mark(image, level, rms, x, y, start - k * _SEGMENT, c, d, offset, brightest, found_y, found_x)
            n_seen, n_missed, inner = n_seen + 1, 0 if n_seen > 0 else n_missed, middle
            for shifted in (offset - 0.5, offset + 0.5):  # its angle may be a little off
                light, _ = _segment(image, level, rms, is_excluded, x, y, start, c, d, shifted)
                if light > middle:
                    middle, offset = light, shifted
        else:
            n_missed += 1
            if n_seen == 1:
                n_seen, inner = 0, np.inf
        start += _SEGMENT


@numba.njit(cache=True)
def _mark(image, level, rms, x, y, start, c, d, offset, brightest, found_y, found_x):  # type: ignore[no-untyped-def]
    """List the pixels within 1.5 of a piece of a spike that are no brighter than it can be."""
    ny, nx = image.shape
    for i in range(2 * _SEGMENT):
        for j in range(-3, 4):
            u = round(x + (start + 0.5 * i) * c - (offset + 0.5 * j) * d)
            v = round(y + (start + 0.5 * i) * d + (offset + 0.5 * j) * c)
            if 0 <= v < ny and 0 <= u < nx and image[v, u] - level[v, u] < brightest + 5.0 * rms[v, u]:
                found_y.append(v)
                found_x.append(u)
