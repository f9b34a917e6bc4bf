"""Point sources among the candidates for streaks: what ends within two FWHM in every direction is no line."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.streaks.trace import Segment, score_at

Float32Image = NDArray[np.float32]

LEAST_PEAK = 8.0
"""Score of a peak that noise cannot have made longer or shorter by much, sigma."""
LONGEST = 2.0
"""Extent at half of the peak that a point source stays below, FWHM: its score is a PSF filtered with itself (1.4)."""
N_DIRECTIONS = 8
STEP = 0.5
"""Pixels from one look at the score to the next."""


def is_point(score: Float32Image, segment: Segment, *, sign: float, reach: float, fwhm: float) -> bool:
    """Return whether the brightest place within ``reach`` pixels of a segment is a point source for certain.

    A line of 3 FWHM or more stands above half of its peak for longer than `LONGEST`, noise or not.
    """
    peak, extent = _peak_extent(score, *segment, sign, reach, LONGEST * fwhm)
    return bool(peak >= LEAST_PEAK and extent < LONGEST * fwhm)


@njit(cache=True, error_model="numpy")
def _peak_extent(score, x1, y1, x2, y2, sign, reach, enough):  # type: ignore[no-untyped-def]
    """Return the largest score near a segment, and how far it stays above half of that in the best direction."""
    length = max(np.hypot(x2 - x1, y2 - y1), 1e-6)
    ux, uy = (x2 - x1) / length, (y2 - y1) / length
    ny, nx = score.shape
    peak, px, py = 0.0, x1, y1
    across = -reach
    while across <= reach:
        along = -reach
        while along <= length + reach:
            i, j = int(np.rint(x1 + along * ux - across * uy)), int(np.rint(y1 + along * uy + across * ux))
            if 0 <= i < nx and 0 <= j < ny and sign * score[j, i] > peak:
                peak, px, py = sign * score[j, i], float(i), float(j)
            along += 1.0
        across += 1.0
    longest = 0.0
    for k in range(N_DIRECTIONS):
        angle = np.pi * k / N_DIRECTIONS
        dx, dy = np.cos(angle), np.sin(angle)
        extent = 0.0
        for way in (-1.0, 1.0):
            t = STEP
            while t <= enough and sign * score_at(score, px + way * t * dx, py + way * t * dy) > 0.5 * peak:
                t += STEP
            extent += t - STEP
        longest = max(longest, extent)
    return peak, longest
