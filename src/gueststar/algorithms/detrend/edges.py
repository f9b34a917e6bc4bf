"""Where the detector's own edge, or vignetting, makes pixels doubtful: measured from the flat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.stats.select import median_of

Bools = NDArray[np.bool_]
Float32Image = NDArray[np.float32]

_MIN_LINES = 8
"""Lines farther in that a side needs to be judged by."""


@dataclass(frozen=True)
class EdgeConfig:
    """What counts as too near to the edge, or too dark, to be trusted."""

    max_lines: int = 32
    """Farthest from a side that its edge can reach, pixels."""
    tolerance: float = 0.03
    """Lines whose median response is off what those farther in foretell by more than this belong to the edge."""
    min_illumination: float = 0.5
    """Where the response, smoothed, is below this fraction of the detector's best the field is vignetted."""
    block: int = 16
    """Side of the blocks in which the illumination is measured, pixels."""


class EdgeLines(NamedTuple):
    """Doubtful rows and columns along the four sides."""

    bottom: int
    """From y = 0."""
    top: int
    left: int
    """From x = 0."""
    right: int


def measure_edge_lines(flat: Float32Image, is_bad: Bools, *, config: EdgeConfig = EdgeConfig()) -> EdgeLines:
    """Return how many lines along each side respond unlike what the lines farther in foretell.

    The fields at a thick detector's rim bend, so that its outer pixels collect from a larger or smaller area
    (Plazas et al. 2014, PASP 126, 750). In the flat the response changes there, steeply against
    any illumination. Bad pixels and those that are not finite are left out.
    """
    n = config.max_lines
    found = []
    for turned, bad in ((flat, is_bad), (flat[::-1], is_bad[::-1]), (flat.T, is_bad.T), (flat.T[::-1], is_bad.T[::-1])):
        strip, is_out = turned[: 3 * n], bad[: 3 * n]
        strip = np.where(is_out | ~np.isfinite(strip), np.nan, strip)
        found.append(_doubtful(strip, min(n, turned.shape[0] // 4), config))
    return EdgeLines(*found)


def _doubtful(strip: NDArray[np.floating], n: int, config: EdgeConfig) -> int:
    """Return the number of doubtful lines of a strip whose first line is the edge."""
    if n < 1 or np.isnan(strip).all():
        return 0
    known = ~np.isnan(strip).all(axis=1)
    level = np.full(strip.shape[0], np.nan)
    level[known] = [median_of(line[~np.isnan(line)]) for line in strip[known]]
    inside = np.arange(n, min(3 * n, level.size))
    inside = inside[np.isfinite(level[inside]) & (level[inside] > 0)]
    if inside.size < _MIN_LINES:
        return 0
    foretold = np.polynomial.Polynomial.fit(inside, level[inside], 2)(np.arange(n))
    with np.errstate(invalid="ignore", divide="ignore"):
        is_off = ~(np.abs(level[:n] / foretold - 1.0) <= config.tolerance)
    # The edge ends before the first two lines in a row that are as foretold.
    is_end = ~is_off & ~np.append(is_off[1:], False)
    return int(np.argmax(is_end)) if is_end.any() else n


def find_vignetted(flat: Float32Image, is_bad: Bools, *, config: EdgeConfig = EdgeConfig()) -> Bools:
    """Return the pixels of blocks that get less than ``min_illumination`` of the light of the best blocks (95 %)."""
    ny, nx = flat.shape
    side = config.block
    rows, columns = -(-ny // side), -(-nx // side)
    step = max(1, side // 4)
    sample = np.full((rows * side // step, columns * side // step), np.nan)
    part = np.where(is_bad[::step, ::step] | ~np.isfinite(flat[::step, ::step]), np.nan, flat[::step, ::step])
    sample[: part.shape[0], : part.shape[1]] = part
    per = side // step
    blocks = np.moveaxis(sample.reshape(rows, per, columns, per), 2, 1).reshape(rows * columns, per * per)
    level = np.full(blocks.shape[0], np.nan)
    known = ~np.isnan(blocks).all(axis=1)
    level[known] = np.nanmedian(blocks[known], axis=1)
    if not known.any():
        return np.zeros(flat.shape, dtype=bool)
    is_dark = level < config.min_illumination * np.nanpercentile(level, 95)
    grid = is_dark.reshape(rows, columns)
    return np.asarray(np.repeat(np.repeat(grid, side, axis=0), side, axis=1)[:ny, :nx])


def mark_edges_in_place(mask: NDArray[np.int32], lines: EdgeLines, bit: int) -> None:
    """Set ``bit`` on the outer lines of each side."""
    ny, nx = mask.shape
    mask[: lines.bottom] |= bit
    mask[ny - lines.top :] |= bit
    mask[:, : lines.left] |= bit
    mask[:, nx - lines.right :] |= bit


@njit(cache=True)
def find_uncertain(flat: Float32Image, variance: Float32Image, max_error: float) -> Bools:
    """Return where the flat is known no better than the fraction ``max_error``."""
    found, limit = np.empty(flat.shape, np.bool_), np.float32(max_error * max_error)
    for y in range(flat.shape[0]):
        own, noise, into = flat[y], variance[y], found[y]
        for x in range(own.size):
            into[x] = noise[x] > limit * own[x] * own[x]
    return found


@njit(cache=True)
def mark_where_in_place(mask: NDArray[np.int32], where: Bools, bit: int) -> None:
    """Set ``bit`` (of the mask's type) in some pixels."""
    none = np.int32(0)
    for y in range(mask.shape[0]):
        own, is_here = mask[y], where[y]
        for x in range(own.size):
            own[x] |= bit if is_here[x] else none
