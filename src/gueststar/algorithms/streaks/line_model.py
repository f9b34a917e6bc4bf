"""A straight line of even brightness as the PSF shows it, and its slopes, from tables along and across the line."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.streaks.trace import Segment
from gueststar.algorithms.subtraction.fine_psf import FACTOR, FinePsf, stamp_of

STEP = 0.25
"""Pixels between entries of the tables."""
NODE_DISTANCE = 400.0
"""The PSF is taken anew along a line every so many pixels."""


class LineTables(NamedTuple):
    """The PSF seen from a line: along it (t) and across it (o), every `STEP` pixels, at places along the line.

    With ``point`` the PSF turned into the line, ``edge`` is its integral over t from far back: a line from t1 to t2 is
    ``edge(t - t1, o) - edge(t - t2, o)`` times its flux per pixel of length.
    """

    point: NDArray[np.float32]
    """``[node, t, o]``."""
    edge: NDArray[np.float32]
    slope: NDArray[np.float64]
    """Of ``edge`` across the line, at its entries."""
    reach: float
    """Largest distance across the line at which the model is used, pixels."""


class LineProfile(NamedTuple):
    """The PSF summed along a line, at places along it."""

    spread: NDArray[np.float32]
    """``[node, o]``, every `STEP` pixels: the profile across an endless line."""
    reach: float
    """Largest distance across the line at which it is used, pixels."""


def make_tables(psf: FinePsf, segment: Segment, *, reach: float) -> LineTables:
    """Return the tables of a line of the direction of ``segment``, with a node of its own per few hundred pixels."""
    half_t, half_o = _halves(psf, reach)
    ux, uy = segment.direction
    stamps = list(_stamps_along(psf, segment))
    shape = (len(stamps), 2 * half_t + 1, 2 * half_o + 1)
    point, edge, slope = np.empty(shape, np.float32), np.empty(shape, np.float32), np.empty(shape, np.float64)
    for node, stamp in enumerate(stamps):
        _turn(stamp, ux, uy, half_t, half_o, point[node], edge[node])
    _fill_slopes(edge, slope)
    return LineTables(point, edge, slope, (half_o - 4) * STEP)


def make_profile(psf: FinePsf, segment: Segment, *, reach: float) -> LineProfile:
    """Return the profile across a line of the direction of ``segment``, with a node per few hundred pixels."""
    half_t, half_o = _halves(psf, reach)
    ux, uy = segment.direction
    stamps = list(_stamps_along(psf, segment))
    spread = np.empty((len(stamps), 2 * half_o + 1), np.float32)
    for node, stamp in enumerate(stamps):
        _sum_along(stamp, ux, uy, half_t, spread[node])
    return LineProfile(spread, (half_o - 4) * STEP)


def _halves(psf: FinePsf, reach: float) -> tuple[int, int]:
    """Return the entries of tables from the middle to the end, along and across a line."""
    return int(psf.half / STEP), math.ceil(min(reach + 2.0, float(psf.half)) / STEP)


def _stamps_along(psf: FinePsf, segment: Segment) -> Iterator[NDArray[np.float32]]:
    """Yield the PSF at the places along a line at which it is taken anew."""
    n_nodes = max(1, math.ceil(segment.length / NODE_DISTANCE))
    ny, nx = psf.stamps.shape[0] * psf.cell[0], psf.stamps.shape[1] * psf.cell[1]
    for node in range(n_nodes):
        s = (node + 0.5) / n_nodes
        x = min(max(segment.x1 + s * (segment.x2 - segment.x1), 0.0), nx - 1.0)
        y = min(max(segment.y1 + s * (segment.y2 - segment.y1), 0.0), ny - 1.0)
        yield stamp_of(psf, x=x, y=y)


@njit(cache=True, error_model="numpy", inline="always")
def _between(fine, px, py):  # type: ignore[no-untyped-def]
    """Return a fine stamp between its samples, bilinear; 0 outside."""
    m = fine.shape[0]
    i, j = int(np.floor(px)), int(np.floor(py))
    value = np.float32(0.0)
    if 0 <= i < m - 1 and 0 <= j < m - 1:
        fx, fy = px - i, py - j
        value = np.float32(
            (1 - fy) * ((1 - fx) * fine[j, i] + fx * fine[j, i + 1])
            + fy * ((1 - fx) * fine[j + 1, i] + fx * fine[j + 1, i + 1])
        )
    return value


@njit(cache=True, error_model="numpy")
def _turn(fine, ux, uy, half_t, half_o, point, edge):  # type: ignore[no-untyped-def]
    """Fill one node's tables: the stamp turned into the line, and its sum along it by the trapezium rule."""
    middle, half, step = fine.shape[0] // 2, np.float32(0.5), np.float32(STEP)
    total = np.zeros(2 * half_o + 1, np.float32)
    for k in range(2 * half_t + 1):
        t = (k - half_t) * STEP
        for j in range(2 * half_o + 1):
            o = (j - half_o) * STEP
            px, py = middle + (t * ux - o * uy) * FACTOR, middle + (t * uy + o * ux) * FACTOR
            value = _between(fine, px, py)
            total[j] += value
            point[k, j], edge[k, j] = value, (total[j] - half * value) * step


@njit(cache=True, error_model="numpy")
def _sum_along(fine, ux, uy, half_t, spread):  # type: ignore[no-untyped-def]
    """Fill the last row that `_turn` makes."""
    middle, half_o = fine.shape[0] // 2, spread.size // 2
    for j in range(spread.size):
        o = (j - half_o) * STEP
        total = last = np.float32(0.0)
        for k in range(2 * half_t + 1):
            t = (k - half_t) * STEP
            px, py = middle + (t * ux - o * uy) * FACTOR, middle + (t * uy + o * ux) * FACTOR
            last = _between(fine, px, py)
            total += last
        spread[j] = (total - np.float32(0.5) * last) * np.float32(STEP)


@njit(cache=True, error_model="numpy")
def _fill_slopes(edge, slope):  # type: ignore[no-untyped-def]
    """Write the slopes of tables along their last axis, from differences about each entry."""
    n = edge.shape[2]
    for node in range(edge.shape[0]):
        for k in range(edge.shape[1]):
            row, into = edge[node, k], slope[node, k]
            for j in range(n):
                low, high = max(j - 1, 0), min(j + 1, n - 1)
                into[j] = (row[high] - row[low]) / (STEP * (high - low))


@njit(cache=True, error_model="numpy", inline="always")
def edge_at(point, edge, slope, node, t, o):  # type: ignore[no-untyped-def]
    """Return (edge, its slope across, point) at a place relative to an end, from the tables of one node."""
    n_t, n_o = edge.shape[1], edge.shape[2]
    u, v = t / STEP + n_t // 2, o / STEP + n_o // 2
    if u <= 0.0:
        return 0.0, 0.0, 0.0
    j = min(max(int(v), 0), n_o - 2)
    fv = v - j
    if u >= n_t - 1.0:
        i = n_t - 1
        a, b = edge[node, i, j], edge[node, i, j + 1]
        return a + fv * (b - a), slope[node, i, j] + fv * (slope[node, i, j + 1] - slope[node, i, j]), 0.0
    i = int(u)
    fu = u - i
    a = edge[node, i, j] + fu * (edge[node, i + 1, j] - edge[node, i, j])
    b = edge[node, i, j + 1] + fu * (edge[node, i + 1, j + 1] - edge[node, i, j + 1])
    p = point[node, i, j] + fu * (point[node, i + 1, j] - point[node, i, j])
    q = point[node, i, j + 1] + fu * (point[node, i + 1, j + 1] - point[node, i, j + 1])
    here = slope[node, i, j] + fv * (slope[node, i, j + 1] - slope[node, i, j])
    next_row = slope[node, i + 1, j] + fv * (slope[node, i + 1, j + 1] - slope[node, i + 1, j])
    return a + fv * (b - a), (1 - fu) * here + fu * next_row, p + fv * (q - p)


@njit(cache=True, error_model="numpy", inline="always")
def spread_at(spread, o):  # type: ignore[no-untyped-def]
    """Return the profile across an endless line."""
    v = o / STEP + spread.size // 2
    j = int(np.floor(v))
    if j < 0 or j >= spread.size - 1:
        return 0.0
    return spread[j] + (v - j) * (spread[j + 1] - spread[j])
