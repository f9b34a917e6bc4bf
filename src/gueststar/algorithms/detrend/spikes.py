"""Diffraction spikes of saturated stars: sharp across, and no cosmic rays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label, median_filter

from gueststar.algorithms.detrend.groups import label_groups, pixels_with
from gueststar.algorithms.detrend.spike_tracing import enter_in_place, excess, follow_all_in_place
from gueststar.algorithms.stats.select import median_of_few_in_place

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


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
    is_spike = np.zeros(image.shape, np.bool_)
    how = (config.first_significance, config.segment_significance, config.contrast)
    n_stars = follow_all_in_place(is_spike, image, level, rms, is_excluded, *stars, angles, config.reach, *how)
    enter_in_place(is_spike, image, level, rms, is_excluded, angles, *how)
    y, x = pixels_with(is_spike, 1)
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
                value = excess(image, level, is_excluded, y[s] + (first + r) * d, x[s] + (first + r) * c)
                if not math.isnan(value):
                    values[n] = value
                    n += 1
            if n >= reach // 4:
                profiles[s, k] = median_of_few_in_place(values[:n]) / noise
    return profiles
