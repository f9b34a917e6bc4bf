"""Artificial streaks: lines as the PSF shows them, as bright as wanted, even or not, sharp or out of focus."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.streaks.line_model import edge_at, make_tables
from gueststar.algorithms.streaks.trace import Segment
from gueststar.algorithms.subtraction.fine_psf import FinePsf

Float32Image = NDArray[np.float32]


class Flicker(NamedTuple):
    """How brightness changes along a streak: a sine."""

    amplitude: float = 0.0
    """Over the mean."""
    period: float = 1.0
    """Pixels."""
    phase: float = 0.0
    """Radians."""


EVEN = Flicker()
"""No change of brightness."""


def render_streak(
    psf: FinePsf, segment: Segment, *, shape: tuple[int, int], half_width: float = 0.0, flicker: Flicker = EVEN
) -> Float32Image:
    """Return an image of a streak of one unit of flux per pixel of length.

    ``half_width`` (pixels) is that of a box profile across the line, before the PSF: what an object out of focus shows.
    """
    n = 1 if half_width <= 0 else int(2 * np.ceil(2.0 * half_width)) + 1
    image = np.zeros(shape, np.float32)
    tables = make_tables(psf, segment, reach=float(psf.half))
    for offset in np.linspace(-half_width, half_width, n):
        line = segment.moved(start=0.0, end=segment.length, across_start=float(offset), across_end=float(offset))
        _add_line(image, tables.point, tables.edge, tables.slope, tables.reach, *line, *flicker, 1.0 / n)
    return image


@njit(cache=True, error_model="numpy")
def _add_line(  # type: ignore[no-untyped-def]
    image, point, edge, slope, reach, x1, y1, x2, y2, amplitude, period, phase, factor
):
    ny, nx = image.shape
    length = np.hypot(x2 - x1, y2 - y1)
    ux, uy = (x2 - x1) / length, (y2 - y1) / length
    n_nodes = edge.shape[0]
    wide = reach + 1.0
    for y in range(max(int(min(y1, y2) - wide), 0), min(int(max(y1, y2) + wide) + 1, ny - 1) + 1):
        left, right = min(x1, x2) - wide, max(x1, x2) + wide
        if abs(uy) > 1e-6:
            middle = x1 + (y - y1) * ux / uy
            left, right = max(left, middle - (wide + 1.0) / abs(uy)), min(right, middle + (wide + 1.0) / abs(uy))
        for x in range(max(int(left), 0), min(int(right) + 1, nx - 1) + 1):
            t = (x - x1) * ux + (y - y1) * uy
            o = -(x - x1) * uy + (y - y1) * ux
            if abs(o) > reach or t < -reach or t > length + reach:
                continue
            node = min(max(int(t / length * n_nodes), 0), n_nodes - 1)
            begin = edge_at(point, edge, slope, node, t, o)[0]
            end = edge_at(point, edge, slope, node, t - length, o)[0]
            bright = 1.0 + amplitude * np.sin(2.0 * np.pi * t / period + phase)
            image[y, x] += factor * bright * (begin - end)
