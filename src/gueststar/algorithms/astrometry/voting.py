"""Pointing, rotation and scale by voting.

Every pair of a source and a catalog star votes for the shift between them; for the right rotation and
scale the true pairs vote alike. All rotations and scales within the tolerances are tried: an exhaustive form of
the two-dimensional cross-correlation of Kaiser et al. (1999) and Bertin (2006, SCAMP), which asks
nothing of the completeness of either list.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Hypothesis(NamedTuple):
    """A similarity from the sources' plane to the catalog's: ``q = scale R(rotation) p + shift``."""

    votes: int
    rotation: float
    """Radian."""
    scale: float
    shift_x: float
    shift_y: float
    is_mirrored: bool


_SECONDS_PER_PAIR, _SECONDS_PER_BIN = 2.5e-9, 2e-9


class SearchGrid(NamedTuple):
    """The orientations to try and the resolution of the shifts."""

    rotations: Floats
    """Radian."""
    scales: Floats
    bin_size: float
    """Side of a bin of the shift histogram, in the unit of the plane."""
    max_shift: float

    def cost_s(self, n_points: int, stars: Floats) -> float:
        """Return about how long the voting of so many points and these stars takes, seconds of a usual core.

        It is an estimate and not a measurement, so that what is tried is the same on every machine.
        """
        reach = min(1.0, 2.0 * self.max_shift / max(float(np.ptp(stars[:, 0])), 1e-9)) if stars.size else 0.0
        bins = (2.0 * self.max_shift / self.bin_size + 2.0) ** 2
        each = _SECONDS_PER_PAIR * n_points * stars.shape[0] * reach + _SECONDS_PER_BIN * bins
        return self.rotations.size * self.scales.size * each


def search_grid(
    *, radius: float, bin_size: float, max_shift: float, max_rotation: float, scale_tolerance: float
) -> SearchGrid:
    """Return a grid on which a point at ``radius`` moves by about a bin from step to step.

    ``max_rotation`` in radian; scales run from 1 - tolerance to 1 + tolerance.
    """
    step = bin_size / radius
    n_rotation = int(np.ceil(max_rotation / step))
    rotations = np.linspace(-max_rotation, max_rotation, 2 * n_rotation + 1)
    if max_rotation >= np.pi - step / 2:
        rotations = rotations[:-1]
    n_scale = int(np.ceil(scale_tolerance / step))
    scales = np.linspace(1.0 - scale_tolerance, 1.0 + scale_tolerance, 2 * n_scale + 1)
    return SearchGrid(rotations, scales, bin_size, max_shift)


def vote(
    points: Floats, stars: Floats, grid: SearchGrid, *, n_best: int, is_mirrored: bool = False
) -> list[Hypothesis]:
    """Return the hypotheses of most votes, most first, with near-duplicates left out.

    ``points`` and ``stars`` are ``[n, 2]`` in the same unit; points are turned and scaled about the origin.
    """
    if points.shape[0] == 0 or stars.shape[0] == 0:
        return []
    sorted_stars = np.ascontiguousarray(stars[np.argsort(stars[:, 0])])
    rotation, scale = (a.ravel() for a in np.meshgrid(grid.rotations, grid.scales, indexing="ij"))
    votes, shifts = _vote(np.ascontiguousarray(points), sorted_stars, rotation, scale, grid.bin_size, grid.max_shift)
    chosen: list[Hypothesis] = []
    angular = 1.6 * (grid.rotations[1] - grid.rotations[0] if grid.rotations.size > 1 else 1.0)
    radial = 1.6 * (grid.scales[1] - grid.scales[0] if grid.scales.size > 1 else 1.0)
    for k in np.argsort(-votes, kind="stable"):
        if len(chosen) == n_best or votes[k] < 2:
            break
        shift_x, shift_y = float(shifts[k, 0]), float(shifts[k, 1])
        item = Hypothesis(int(votes[k]), float(rotation[k]), float(scale[k]), shift_x, shift_y, is_mirrored)
        if not any(_is_near(item, other, angular, radial, 2.5 * grid.bin_size) for other in chosen):
            chosen.append(item)
    return chosen


def _is_near(a: Hypothesis, b: Hypothesis, angular: float, radial: float, shift: float) -> bool:
    turn = abs((a.rotation - b.rotation + np.pi) % (2 * np.pi) - np.pi)
    away = max(abs(a.shift_x - b.shift_x), abs(a.shift_y - b.shift_y))
    return bool(turn < angular and abs(a.scale - b.scale) < radial and away < shift)


@njit(cache=True)
def _vote(
    points: Floats, stars: Floats, rotation: Floats, scale: Floats, bin_size: float, max_shift: float
) -> tuple[NDArray[np.int64], Floats]:
    """Return per orientation the most votes in a square of 2 x 2 bins, and that square's centre."""
    n_bins = int(np.ceil(2.0 * max_shift / bin_size)) + 2
    histogram = np.zeros((n_bins, n_bins), dtype=np.int32)
    n = rotation.size
    votes, shifts = np.zeros(n, dtype=np.int64), np.zeros((n, 2))
    turned = np.empty_like(points)
    for k in range(n):
        c, s = scale[k] * np.cos(rotation[k]), scale[k] * np.sin(rotation[k])
        for i in range(points.shape[0]):
            turned[i, 0] = c * points[i, 0] - s * points[i, 1]
            turned[i, 1] = s * points[i, 0] + c * points[i, 1]
        _fill(histogram, turned, stars, bin_size, max_shift)
        best, ix, iy = _fullest_square(histogram)
        votes[k] = best
        shifts[k, 0] = (ix + 1) * bin_size - max_shift
        shifts[k, 1] = (iy + 1) * bin_size - max_shift
        histogram[:] = 0
    return votes, shifts


@njit(cache=True)
def _fill(histogram: NDArray[np.int32], points: Floats, stars: Floats, bin_size: float, max_shift: float) -> None:
    """Count the shifts of all pairs; stars are sorted along x."""
    column = np.ascontiguousarray(stars[:, 0])
    per_unit, reach = 1.0 / bin_size, 2.0 * max_shift
    for i in range(points.shape[0]):
        x, y = points[i, 0] - max_shift, points[i, 1] - max_shift
        first, after = np.searchsorted(column, x), np.searchsorted(column, x + reach)
        for j in range(first, after):
            dy = stars[j, 1] - y
            if 0.0 <= dy < reach:
                histogram[int((column[j] - x) * per_unit), int(dy * per_unit)] += 1


@njit(cache=True)
def _fullest_square(histogram: NDArray[np.int32]) -> tuple[int, int, int]:
    """Return the count and the lower bin of the fullest 2 x 2 square."""
    best, best_x, best_y = 0, 0, 0
    for ix in range(histogram.shape[0] - 1):
        before = histogram[ix, 0] + histogram[ix + 1, 0]
        for iy in range(histogram.shape[1] - 1):
            here = histogram[ix, iy + 1] + histogram[ix + 1, iy + 1]
            if before + here > best:
                best, best_x, best_y = before + here, ix, iy
            before = here
    return best, best_x, best_y
