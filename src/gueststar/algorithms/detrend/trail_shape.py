"""Where exactly a trail lies, how far it goes, how wide it is, and whether it is one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.detrend.line_sums import Line
from gueststar.algorithms.stats.select import median_of_line

N_PIECES = 24
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
    edge_brightness: float = 0.3
    """The trail is masked out to where its profile falls below this many sigma of a pixel of sky."""
    max_half_width: int = 20
    """Widest trail, pixels either side."""
    margin: int = 2
    """Pixels added to the measured half width."""
    faint_half_width: float = 0.0
    """Half width, pixels, of a trail that is too faint to be measured piece by piece, where the image has no stars that
    could line up; 0: such a line is no trail."""
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


class SkyView(NamedTuple):
    """An image with its sky, the noise of that, and the pixels that do not count."""

    image: NDArray[np.float32]
    level: NDArray[np.float32]
    rms: NDArray[np.float32]
    is_excluded: NDArray[np.bool_]

    def strip(self, line: Line, *, reach: int) -> NDArray[np.float32]:
        """Return the pixels around a line in units of the sky's noise, NaN where excluded or outside."""
        course = _course_of(line)
        strip = np.empty((2 * reach + 1, course.x.size), np.float32)
        _fill_strip(*self, *course, strip)
        return strip


def measure_trail(view: SkyView, line: Line, *, reach: int, config: TrailConfig) -> Trail | None:
    """Measure the trail that runs within ``reach`` pixels of a line; None if what is there is none.

    The line is laid on the ridge, cut to where there is one, and kept if the ridge is continuous and about evenly
    bright; ends near the edge of the image are carried to it.
    """
    line = _laid_on_ridge(line, view.strip(line, reach=reach), reach)
    line, ridges, noises = _cut_to_ridge(line, view.strip(line, reach=reach), reach)
    length = _length(line)
    is_short = length < config.min_length * min(view.image.shape)
    if length < 0.7 * config.min_corner_length * min(view.image.shape):
        return None
    if not _is_continuous(ridges, noises, config, min_evenness=config.min_evenness * (2.0 if is_short else 1.0)):
        return None
    line = _to_edges(line, view.image.shape, near=min(0.1 * max(view.image.shape), 0.5 * length))
    if is_short and not _ends_at_edges(line, view.image.shape):
        return None
    profile, noise = _profile(view.strip(line, reach=reach))
    peak = float(profile[reach - 2 : reach + 3].max())
    half, faintest = 0, max(3.0 * noise, config.edge_brightness)
    while half < config.max_half_width and max(profile[reach + half + 1], profile[reach - half - 1]) > faintest:
        half += 1
    x1, y1, x2, y2 = (float(value) for value in line[:4])
    return Trail(x1, y1, x2, y2, half + 0.5 + config.margin, peak)


def strip_along(
    values: NDArray[np.float32], line: Line, *, reach: int, step: float = 1.0
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    """Return values along a line at perpendicular offsets -reach..reach (NaN outside), and the line's x and y."""
    x, y, normal_x, normal_y = _course_of(line, step=step)
    offsets = np.arange(-reach, reach + 1)[:, None]
    column = np.rint(x + offsets * normal_x).astype(int)
    row = np.rint(y + offsets * normal_y).astype(int)
    is_inside = (column >= 0) & (column < values.shape[1]) & (row >= 0) & (row < values.shape[0])
    strip = np.full(column.shape, np.nan, np.float32)
    strip[is_inside] = values[row[is_inside], column[is_inside]]
    return strip, x, y


class _Course(NamedTuple):
    """Places along a line, and the unit vector across it."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    normal_x: float
    normal_y: float


def _course_of(line: Line, *, step: float = 1.0) -> _Course:
    """Return places ``step`` pixels from one to the next."""
    length = _length(line)
    t = np.linspace(0.0, 1.0, max(int(length / step), 2))
    x = line.x1 + t * (line.x2 - line.x1)
    y = line.y1 + t * (line.y2 - line.y1)
    return _Course(x, y, -(line.y2 - line.y1) / length, (line.x2 - line.x1) / length)


@njit(cache=True, error_model="numpy")
def _fill_strip(image, level, rms, is_excluded, x, y, normal_x, normal_y, strip):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    reach = strip.shape[0] // 2
    for j in range(strip.shape[0]):
        for i in range(strip.shape[1]):
            u, v = int(np.rint(x[i] + (j - reach) * normal_x)), int(np.rint(y[i] + (j - reach) * normal_y))
            is_known = 0 <= u < nx and 0 <= v < ny and not is_excluded[v, u]
            strip[j, i] = (image[v, u] - level[v, u]) / rms[v, u] if is_known else np.float32(np.nan)


def best_run(scores: NDArray[np.float64]) -> tuple[int, int]:
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


def _profile(strip: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    """Return the median across a strip, less that of its borders, and its noise.

    The noise is the scatter between the rows at the borders: crowding is in it. Medians, so that a star
    on the line does not count.
    """
    medians = _row_medians(strip)
    border = max(strip.shape[0] // 8, 2)
    outside = np.concatenate([medians[:border], medians[-border:]])
    noise = max(float(np.std(outside)), 1.25 / math.sqrt(max(strip.shape[1], 1)))
    return medians - float(np.median(outside)), noise


@njit(cache=True)
def _row_medians(strip: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the median of the finite values of each row; 0 where there are none."""
    medians = np.zeros(strip.shape[0])
    for k in range(strip.shape[0]):
        known = strip[k][np.isfinite(strip[k])]
        if known.size:
            medians[k] = median_of_line(known)
    return medians


def _pieces(strip: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Return a strip cut across into pieces of at least sixteen pixels, three at least."""
    return np.array_split(strip, min(N_PIECES, max(strip.shape[1] // 16, 3)), axis=1)


def _laid_on_ridge(line: Line, strip: NDArray[np.float32], reach: int) -> Line:
    """Shift and turn a line onto the ridge near it: through the medians of the slopes and offsets of its pieces."""
    offsets = np.arange(-reach, reach + 1)
    pieces = _pieces(strip)
    positions, centres = [], []
    for number, piece in enumerate(pieces):
        profile, noise = _profile(piece)
        weight = np.where(profile > 3.0 * noise, profile, 0.0)
        if weight.sum() > 0:
            near = np.abs(np.arange(weight.size) - int(np.argmax(weight))) <= 6
            centres.append(float(np.sum((weight * offsets)[near]) / np.sum(weight[near])))
            positions.append((number + 0.5) / len(pieces))
    if len(centres) < 3:
        return line
    t, c = np.array(positions), np.array(centres)
    i, j = np.triu_indices(t.size, k=1)
    slope = float(np.median((c[j] - c[i]) / (t[j] - t[i])))  # Theil & Sen: stars beside the trail do not turn it
    start = float(np.median(c - slope * t))
    normal_x, normal_y = -(line.y2 - line.y1) / _length(line), (line.x2 - line.x1) / _length(line)
    end = start + slope
    return Line(
        line.x1 + start * normal_x, line.y1 + start * normal_y, line.x2 + end * normal_x, line.y2 + end * normal_y,
        line.significance,
    )  # fmt: skip


def _cut_to_ridge(
    line: Line, strip: NDArray[np.float32], reach: int
) -> tuple[Line, NDArray[np.float64], NDArray[np.float64]]:
    """Return the part of a line on which there is a ridge, with its height and noise in pieces."""
    measured = [_profile(piece) for piece in _pieces(strip)]
    ridges = np.array([profile[reach - 1 : reach + 2].mean() for profile, _ in measured])
    noises = np.array([noise for _, noise in measured])
    first, last = best_run(np.minimum(ridges / noises, 5.0) - 2.0)
    n = ridges.size
    dx, dy = (line.x2 - line.x1) / n, (line.y2 - line.y1) / n
    cut = Line(line.x1 + first * dx, line.y1 + first * dy, line.x1 + last * dx, line.y1 + last * dy, line.significance)
    return cut, ridges[first:last], noises[first:last]


def _is_continuous(
    ridges: NDArray[np.float64], noises: NDArray[np.float64], config: TrailConfig, *, min_evenness: float
) -> bool:
    """Return whether nearly all pieces have a ridge, none of the thirds outshining the others."""
    if ridges.size < 3:
        return False
    covered = np.mean(ridges > 2.0 * noises)
    thirds = [float(np.mean(part)) for part in np.array_split(ridges, 3)]
    return bool(covered >= config.min_covered and min(thirds) > min_evenness * max(thirds) > 0)


def _length(line: Line) -> float:
    return math.hypot(line.x2 - line.x1, line.y2 - line.y1)


def _ends_at_edges(line: Line, shape: tuple[int, ...]) -> bool:
    """Return whether both ends lie within a pixel of the edge of the image."""
    return all(min(x, y, shape[1] - 1 - x, shape[0] - 1 - y) < 1.0 for x, y in ((line.x1, line.y1), (line.x2, line.y2)))


def carried_to_edges(line: Line, shape: tuple[int, ...]) -> Line:
    """Lengthen a line to the edges of the image that its ends are near to."""
    return _to_edges(line, shape, near=min(0.1 * max(shape), 0.5 * _length(line)))


def _to_edges(line: Line, shape: tuple[int, ...], near: float) -> Line:
    """Lengthen a line by up to ``near`` pixels at an end from which the image's edge is that close."""
    length = _length(line)
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
