"""Whether a line is part of an arc: edges of ghosts and of dust rings are bent, streaks are straight."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.streaks.line_fit import Pixels
from gueststar.algorithms.streaks.strips import measure_beside
from gueststar.algorithms.streaks.trace import Segment
from gueststar.algorithms.subtraction.fine_psf import FinePsf

Floats = NDArray[np.float64]

LONGER = 1.6
"""Arcs are looked for on the line made longer by this: where it was found, an arc is nearly straight."""
STEP = 0.5
"""Distance of the lines beside it that are measured, FWHM."""
FARTHEST = 4.0
"""Largest distance by which the ends of the longer line are bent away, FWHM."""
N_PIECES = 16


def bend_gain(pixels: Pixels, psf: FinePsf, segment: Segment, *, fwhm: float) -> float:
    """Return the significance that the best of a range of parabolas has more than the straight line.

    It is the root of the difference of the squares; 0 where none is better.
    """
    longer = segment.moved(start=0.5 * (1.0 - LONGER) * segment.length, end=0.5 * (1.0 + LONGER) * segment.length)
    reach = FARTHEST * (1.0 + 1.0 / 3.0)
    offsets: Floats = np.arange(-reach, reach + 0.5 * STEP, STEP)
    sums, weights = measure_beside(pixels, psf, longer, fwhm=fwhm, offsets=offsets * fwhm, n_pieces=N_PIECES)
    t = (np.arange(N_PIECES) + 0.5) / N_PIECES * 2.0 - 1.0
    # The straight line is the best on its own length: a parabola leaves it to both sides there.
    shape = t**2 - 1.0 / (3.0 * LONGER**2)
    deflections: Floats = np.arange(-FARTHEST, FARTHEST + 0.5 * STEP, STEP)
    rows = np.rint((deflections[:, None] * shape + reach) / STEP).astype(int)
    piece = np.arange(N_PIECES)
    sum_on, weight_on = sums[rows, piece].sum(axis=1), weights[rows, piece].sum(axis=1)
    significance = sum_on / np.sqrt(np.maximum(weight_on, 1e-300))
    straight = float(significance[deflections.size // 2])
    along = np.where(weight_on > 0.5 * weight_on.max(), np.sign(straight) * significance, 0.0)
    return float(np.sqrt(max(float(along.max()) ** 2 - straight**2, 0.0)))
