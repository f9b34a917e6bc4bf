"""A straight line of even brightness as the PSF shows it, and its slopes, from tables along and across the line."""

from __future__ import annotations

import math
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
    spread: NDArray[np.float32]
    """``[node, o]``: the profile across an endless line."""
    reach: float
    """Largest distance across the line at which the model is used, pixels."""


def make_tables(psf: FinePsf, segment: Segment, *, reach: float) -> LineTables:
    """Return the tables of a line of the direction of ``segment``, with a node of its own per few hundred pixels."""
    n_nodes = max(1, math.ceil(segment.length / NODE_DISTANCE))
    half_o = math.ceil(min(reach + 2.0, float(psf.half)) / STEP)
    half_t = int(psf.half / STEP)
    ux, uy = segment.direction
    ny, nx = psf.stamps.shape[0] * psf.cell[0], psf.stamps.shape[1] * psf.cell[1]
    point = np.empty((n_nodes, 2 * half_t + 1, 2 * half_o + 1), np.float32)
    for node in range(n_nodes):
        s = (node + 0.5) / n_nodes
        x = min(max(segment.x1 + s * (segment.x2 - segment.x1), 0.0), nx - 1.0)
        y = min(max(segment.y1 + s * (segment.y2 - segment.y1), 0.0), ny - 1.0)
        _turn(stamp_of(psf, x=x, y=y), ux, uy, half_t, half_o, point[node])
    edge = np.cumsum(point, axis=1, dtype=np.float32)
    edge = (edge - 0.5 * point) * np.float32(STEP)  # the trapezium rule
    return LineTables(point, np.ascontiguousarray(edge), np.ascontiguousarray(edge[:, -1]), (half_o - 4) * STEP)


@njit(cache=True, error_model="numpy")
def _turn(fine, ux, uy, half_t, half_o, out):  # type: ignore[no-untyped-def]
    middle, m = fine.shape[0] // 2, fine.shape[0]
    for k in range(2 * half_t + 1):
        t = (k - half_t) * STEP
        for j in range(2 * half_o + 1):
            o = (j - half_o) * STEP
            px, py = middle + (t * ux - o * uy) * FACTOR, middle + (t * uy + o * ux) * FACTOR
            i, k_y = int(np.floor(px)), int(np.floor(py))
            out[k, j] = 0.0
            if 0 <= i < m - 1 and 0 <= k_y < m - 1:
                fx, fy = px - i, py - k_y
                out[k, j] = (1 - fy) * ((1 - fx) * fine[k_y, i] + fx * fine[k_y, i + 1]) + fy * (
                    (1 - fx) * fine[k_y + 1, i] + fx * fine[k_y + 1, i + 1]
                )


@njit(cache=True, error_model="numpy")
def edge_at(edge, point, t, o):  # type: ignore[no-untyped-def]
    """Return (edge, its slope across, point) at a place relative to an end, from the tables of one node."""
    n_t, n_o = edge.shape
    u, v = t / STEP + n_t // 2, o / STEP + n_o // 2
    j = min(max(int(v), 0), n_o - 2)
    fv = v - j
    if u <= 0.0:
        return 0.0, 0.0, 0.0
    if u >= n_t - 1.0:
        a, b = edge[n_t - 1, j], edge[n_t - 1, j + 1]
        return a + fv * (b - a), _slope(edge[n_t - 1], j, fv), 0.0
    i = int(u)
    fu = u - i
    a = edge[i, j] + fu * (edge[i + 1, j] - edge[i, j])
    b = edge[i, j + 1] + fu * (edge[i + 1, j + 1] - edge[i, j + 1])
    p = point[i, j] + fu * (point[i + 1, j] - point[i, j])
    q = point[i, j + 1] + fu * (point[i + 1, j + 1] - point[i, j + 1])
    slope = (1 - fu) * _slope(edge[i], j, fv) + fu * _slope(edge[i + 1], j, fv)
    return a + fv * (b - a), slope, p + fv * (q - p)


@njit(cache=True, error_model="numpy")
def endless_at(spread, o):  # type: ignore[no-untyped-def]
    """Return the profile across an endless line, and its slope."""
    v = o / STEP + spread.size // 2
    j = min(max(int(v), 0), spread.size - 2)
    f = v - j
    return spread[j] + f * (spread[j + 1] - spread[j]), _slope(spread, j, f)


@njit(cache=True, error_model="numpy")
def _slope(row, j, f):  # type: ignore[no-untyped-def]
    """Return the slope of a table between entries j and j + 1, from differences about both."""
    n = row.size
    here = (row[j + 1] - row[max(j - 1, 0)]) / (STEP * (j + 1 - max(j - 1, 0)))
    there = (row[min(j + 2, n - 1)] - row[j]) / (STEP * (min(j + 2, n - 1) - j))
    return here + f * (there - here)


@njit(cache=True, error_model="numpy")
def spread_at(spread, o):  # type: ignore[no-untyped-def]
    """Return the profile across an endless line."""
    v = o / STEP + spread.size // 2
    j = int(np.floor(v))
    if j < 0 or j >= spread.size - 1:
        return 0.0
    return spread[j] + (v - j) * (spread[j + 1] - spread[j])
