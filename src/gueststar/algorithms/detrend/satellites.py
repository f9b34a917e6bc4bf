"""Trails of satellites and aircraft: straight, long, and as bright at one end as at the other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gueststar.algorithms.detrend.line_sums import Line, strongest_line
from gueststar.algorithms.stats.robust import median_and_sigma

_N_PIECES = 24
"""A candidate line is judged in this many pieces."""


@dataclass(frozen=True)
class TrailConfig:
    """How trails are found and told from stars in a row, galaxies and spikes."""

    cells: int = 512
    """The search image is binned to at most this many cells a side..."""
    min_cell: int = 6
    """...of at least this many pixels, so that most stars are one cell."""
    clip: float = 3.0
    """Cells count for at most this many sigma: a star on the line is one cell among many."""
    significance: float = 7.0
    """Sum along the whole line, sigma, for a candidate."""
    min_length: float = 0.2
    """Fraction of the shorter side of the image; shorter streaks are left for the search for movers."""
    min_corner_length: float = 0.06
    """The same for trails that go from edge to edge across a corner."""
    min_covered: float = 0.75
    """Fraction of the pieces of the trail that must be brighter than what lies beside them."""
    min_evenness: float = 0.15
    """Faintest third over brightest third; spikes of stars fade. Twice that across a corner."""
    max_half_width: int = 20
    """Widest trail, pixels either side."""
    margin: int = 2
    """Pixels added to the measured half width."""
    max_trails: int = 12
    """Most trails looked for in one image."""


class Trail(NamedTuple):
    """A straight trail: end points and half width in pixels."""

    x1: float
    y1: float
    x2: float
    y2: float
    half_width: float
    brightness: float
    """Peak over the noise of the sky in one pixel."""


def find_trails(
    image: NDArray[np.float32],
    level: NDArray[np.float32],
    rms: NDArray[np.float32],
    is_excluded: NDArray[np.bool_],
    *,
    config: TrailConfig = TrailConfig(),
) -> list[Trail]:
    """Find trails that cross at least ``min_length`` of the image, or a corner of it.

    The image, less sky and in units of its noise, is binned, freed of what is broad, and clipped;
    all lines are summed; the strongest is followed piece by piece against strips beside it, and kept if most
    pieces are brighter and none outshines the others. It is then taken out and the search goes
    on until the strongest is no trail. Excluded pixels (saturated, bled, bad) count as sky.
    """
    factor = max(config.min_cell, math.ceil(max(image.shape) / config.cells))
    cells = _flattened(_binned_significance(image, level, rms, is_excluded, factor), config.clip)
    side = min(image.shape) / factor
    trails: list[Trail] = []
    for _ in range(config.max_trails):
        line = strongest_line(cells, min_length=config.min_corner_length * side)
        if line is None or line.significance < config.significance:
            break
        stretch = _stretch_of(cells, line, side, config)
        if stretch is not None:
            trail = _refined(image, level, rms, is_excluded, stretch, factor, config)
            if trail is not None:
                trails.append(trail)
        _erase_in_place(cells, line, half_width=config.max_half_width / factor + 2.0)
    return trails


def trail_pixels(trail: Trail, *, shape: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return y and x of the pixels within the half width of a trail."""
    return _paint(trail.x1, trail.y1, trail.x2, trail.y2, trail.half_width, shape[0], shape[1])


def _flattened(cells: NDArray[np.float32], clip: float) -> NDArray[np.float32]:
    """Return cells of unit noise around zero, clipped, without what is broader than a few tens of cells."""
    for _ in range(2):
        centre, sigma = median_and_sigma(cells[cells != 0])
        cells = np.where(cells == 0, 0.0, np.clip((cells - centre) / max(sigma, 1e-6), -clip, clip))
    broad = ndimage.uniform_filter(cells, 41, mode="nearest")
    flat = np.where(cells == 0, 0.0, cells - broad)
    return np.asarray(flat / max(float(np.std(flat)), 1e-6), np.float32)


def _strip(
    values: NDArray[np.float32], line: Line, *, reach: int, step: float = 1.0
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    """Return values along a line at perpendicular offsets -reach..reach (NaN outside), and the line's x and y."""
    length = math.hypot(line.x2 - line.x1, line.y2 - line.y1)
    n = max(int(length / step), 2)
    t = np.linspace(0.0, 1.0, n)
    x = line.x1 + t * (line.x2 - line.x1)
    y = line.y1 + t * (line.y2 - line.y1)
    normal_x, normal_y = -(line.y2 - line.y1) / length, (line.x2 - line.x1) / length
    offsets = np.arange(-reach, reach + 1)[:, None]
    column = np.rint(x + offsets * normal_x).astype(int)
    row = np.rint(y + offsets * normal_y).astype(int)
    is_inside = (column >= 0) & (column < values.shape[1]) & (row >= 0) & (row < values.shape[0])
    strip = np.full(column.shape, np.nan, np.float32)
    strip[is_inside] = values[row[is_inside], column[is_inside]]
    return strip, x, y


def _stretch_of(cells: NDArray[np.float32], line: Line, side: float, config: TrailConfig) -> Line | None:
    """Return the part of a line along which it is brighter than the strips beside it; None if it is no trail."""
    strip, x, y = _strip(np.where(cells == 0, np.nan, cells), line, reach=9)
    inside = np.flatnonzero(np.isfinite(strip[8:11]).any(axis=0))
    if inside.size < 8:
        return None
    first, last = inside[0], inside[-1]
    pieces = np.array_split(np.arange(first, last + 1), min(_N_PIECES, inside.size // 3 + 1))
    on, off = strip[8:11], np.vstack([strip[:5], strip[14:]])
    pulls = np.array([_pull(on[:, p], off[:, p]) for p in pieces])
    # A piece counts for the trail if it has half of what the brighter pieces have; stars count for one piece.
    ordinary = float(np.clip(0.5 * np.percentile(pulls, 80.0), 1.0, 2.0))
    start, end = _best_run(np.minimum(pulls, 4.0) - ordinary)
    if end == start:
        return None
    run = pulls[start:end]
    a, b = pieces[start][0], pieces[end - 1][-1]
    is_whole = start == 0 and end == len(pieces)
    is_trail = (
        (b - a + 1 >= config.min_length * side or is_whole)
        and np.mean(run > 1.0) >= config.min_covered
        and float(np.median(run)) > max(1.5, 6.0 / math.sqrt(run.size))
    )
    return Line(float(x[a]), float(y[a]), float(x[b]), float(y[b]), line.significance) if is_trail else None


def _pull(on: NDArray[np.float32], off: NDArray[np.float32]) -> float:
    """Return by how many sigma the pixels on a line are brighter than those beside it."""
    on, off = on[np.isfinite(on)], off[np.isfinite(off)]
    if on.size < 3 or off.size < 3:
        return 0.0
    return float((on.mean() - off.mean()) / (off.std() * math.sqrt(1.0 / on.size + 1.0 / off.size) + 1e-6))


def _best_run(scores: NDArray[np.float64]) -> tuple[int, int]:
    """Return start and end of the contiguous part with the largest sum."""
    best, best_start, best_end = 0.0, 0, 0
    total, start = 0.0, 0
    for i, score in enumerate(scores):
        if total <= 0:
            total, start = 0.0, i
        total += float(score)
        if total > best:
            best, best_start, best_end = total, start, i + 1
    return best_start, best_end


def _refined(
    image: NDArray[np.float32],
    level: NDArray[np.float32],
    rms: NDArray[np.float32],
    is_excluded: NDArray[np.bool_],
    stretch: Line,
    factor: int,
    config: TrailConfig,
) -> Trail | None:
    """Measure position and width of a trail on the pixels; None if it is not evenly bright."""
    centre = (factor - 1) / 2.0
    x1, y1, x2, y2 = (value * factor + centre for value in stretch[:4])
    coarse = Line(x1, y1, x2, y2, stretch.significance)
    reach = config.max_half_width + 2 * factor
    strip = _normalised_strip(image, level, rms, is_excluded, coarse, reach)
    line = _recentred(coarse, strip, reach)
    line = _to_edges(
        line,
        image.shape,
        near=min(0.1 * max(image.shape), 0.5 * math.hypot(line.x2 - line.x1, line.y2 - line.y1)),
    )
    strip = _normalised_strip(image, level, rms, is_excluded, line, reach)
    is_short = math.hypot(line.x2 - line.x1, line.y2 - line.y1) < config.min_length * min(image.shape)
    evenness = config.min_evenness * (2.0 if is_short else 1.0)
    if not _is_continuous(strip, reach, min_covered=config.min_covered, min_evenness=evenness):
        return None
    profile, noise = _profile(strip)
    peak = float(profile[reach - 2 : reach + 3].max())
    half = 0
    while half < config.max_half_width and max(profile[reach + half + 1], profile[reach - half - 1]) > max(
        3.0 * noise, 0.02 * peak
    ):
        half += 1
    return Trail(line.x1, line.y1, line.x2, line.y2, half + 0.5 + config.margin, peak)


def _is_continuous(strip: NDArray[np.float32], reach: int, *, min_covered: float, min_evenness: float) -> bool:
    """Return whether nearly all pieces of a strip have a ridge in the middle, none of them outshining the others.

    Medians are compared, so that a star on the line does not count for the piece it is in; their noise is the scatter
    between those of the rows beside, so that crowding does not count either.
    """
    ridges, noises = [], []
    n_pieces = min(_N_PIECES // 2, max(strip.shape[1] // 16, 3))
    for piece in np.array_split(strip, n_pieces, axis=1):
        profile, noise = _profile(piece)
        ridges.append(float(profile[reach - 1 : reach + 2].mean()))
        noises.append(noise)
    covered = np.mean(np.array(ridges) > 2.0 * np.array(noises))
    thirds = [float(np.mean(part)) for part in np.array_split(ridges, 3)]
    return bool(covered >= min_covered and min(thirds) > min_evenness * max(thirds) > 0)


def _normalised_strip(
    image: NDArray[np.float32],
    level: NDArray[np.float32],
    rms: NDArray[np.float32],
    is_excluded: NDArray[np.bool_],
    line: Line,
    reach: int,
) -> NDArray[np.float32]:
    """Return the pixels around a line in units of the sky's noise, NaN where excluded."""
    values = _strip(image, line, reach=reach)[0] - _strip(level, line, reach=reach)[0]
    is_bad = _strip(is_excluded.view(np.uint8), line, reach=reach)[0] > 0
    return np.where(is_bad, np.nan, values / _strip(rms, line, reach=reach)[0])


def _profile(strip: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    """Return the median across a strip, less that of its borders, and its noise."""
    with np.errstate(invalid="ignore"):
        medians = np.array([np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else 0.0 for row in strip])
    border = max(strip.shape[0] // 8, 2)
    outside = np.concatenate([medians[:border], medians[-border:]])
    noise = max(float(np.std(outside)), 1.25 / math.sqrt(max(strip.shape[1], 1)))
    return medians - float(np.median(outside)), noise


def _recentred(line: Line, strip: NDArray[np.float32], reach: int) -> Line:
    """Shift and turn a line onto the ridge that runs near it."""
    length = math.hypot(line.x2 - line.x1, line.y2 - line.y1)
    positions, centres = [], []
    offsets = np.arange(-reach, reach + 1)
    for number, part in enumerate(np.array_split(strip, 8, axis=1)):
        profile, noise = _profile(part)
        weight = np.where(profile > 3.0 * noise, profile, 0.0)
        if weight.sum() > 0:
            peak = int(np.argmax(weight))
            near = np.abs(np.arange(weight.size) - peak) <= 6
            centres.append(float(np.sum((weight * offsets)[near]) / np.sum(weight[near])))
            positions.append((number + 0.5) / 8.0)
    if len(centres) < 3:
        return line
    slope, start = np.polyfit(positions, centres, 1)
    normal_x, normal_y = -(line.y2 - line.y1) / length, (line.x2 - line.x1) / length
    end = start + slope
    return Line(
        line.x1 + start * normal_x, line.y1 + start * normal_y, line.x2 + end * normal_x, line.y2 + end * normal_y,
        line.significance,
    )  # fmt: skip


def _to_edges(line: Line, shape: tuple[int, ...], near: float) -> Line:
    """Lengthen a line by up to ``near`` pixels at an end from which the image's edge is that close."""
    length = math.hypot(line.x2 - line.x1, line.y2 - line.y1)
    ux, uy = (line.x2 - line.x1) / length, (line.y2 - line.y1) / length

    def to_edge(x: float, y: float, ux: float, uy: float) -> float:
        free = [math.inf]
        if abs(ux) > 1e-9:
            free.append(((shape[1] - 1 if ux > 0 else 0.0) - x) / ux)
        if abs(uy) > 1e-9:
            free.append(((shape[0] - 1 if uy > 0 else 0.0) - y) / uy)
        return min(free)

    ahead, behind = to_edge(line.x2, line.y2, ux, uy), to_edge(line.x1, line.y1, -ux, -uy)
    ahead = ahead if ahead <= near else near / 10.0
    behind = behind if behind <= near else near / 10.0
    return Line(
        line.x1 - behind * ux, line.y1 - behind * uy, line.x2 + ahead * ux, line.y2 + ahead * uy, line.significance
    )


def _erase_in_place(cells: NDArray[np.float32], line: Line, *, half_width: float) -> None:
    """Set the cells within ``half_width`` of a line to zero."""
    y, x = _paint(line.x1, line.y1, line.x2, line.y2, half_width, cells.shape[0], cells.shape[1])
    cells[y, x] = 0.0


@numba.njit(cache=True)
def _binned_significance(image, level, rms, is_excluded, factor):  # type: ignore[no-untyped-def]
    """Return the excess over the noise of cells (that of their central pixel); 0 in cells more than half excluded."""
    ny, nx = image.shape
    n_rows, n_columns = (ny + factor - 1) // factor, (nx + factor - 1) // factor
    cells = np.zeros((n_rows, n_columns), np.float32)
    excess, count = np.empty(nx, np.float32), np.empty(nx, np.float32)
    zero, one = np.float32(0.0), np.float32(1.0)
    for row in range(n_rows):
        excess[:] = zero
        count[:] = zero
        last = min((row + 1) * factor, ny)
        for y in range(row * factor, last):
            values, sky, masks = image[y], level[y], is_excluded[y]
            for x in range(nx):
                excess[x] += zero if masks[x] else values[x] - sky[x]
                count[x] += zero if masks[x] else one
        noise = rms[(row * factor + last - 1) // 2]
        for column in range(n_columns):
            total, n = zero, zero
            stop = min((column + 1) * factor, nx)
            for x in range(column * factor, stop):
                total += excess[x]
                n += count[x]
            if 2 * n > factor * factor:
                cells[row, column] = total / (np.float32(math.sqrt(n)) * noise[(column * factor + stop - 1) // 2])
    return cells


@numba.njit(cache=True)
def _paint(x1, y1, x2, y2, half_width, ny, nx):  # type: ignore[no-untyped-def]
    """Return the pixels within ``half_width`` of the segment between two points."""
    found_y, found_x = [0 for _ in range(0)], [0 for _ in range(0)]
    length = math.hypot(x2 - x1, y2 - y1)
    ux, uy = (x2 - x1) / length, (y2 - y1) / length
    first = max(math.floor(min(y1, y2) - half_width), 0)
    last = min(math.ceil(max(y1, y2) + half_width), ny - 1)
    for y in range(first, last + 1):
        left, right = min(x1, x2) - half_width, max(x1, x2) + half_width
        if abs(uy) > 1e-6:  # where the strip crosses this row
            middle = x1 + (y - y1) * ux / uy
            left = max(left, middle - (half_width + 1.0) / abs(uy))
            right = min(right, middle + (half_width + 1.0) / abs(uy))
        for x in range(max(int(left), 0), min(int(right) + 1, nx - 1) + 1):
            along = (x - x1) * ux + (y - y1) * uy
            across = (y - y1) * ux - (x - x1) * uy
            if abs(across) <= half_width and -half_width <= along <= length + half_width:
                found_y.append(y)
                found_x.append(x)
    return np.array(found_y, np.int64), np.array(found_x, np.int64)
