"""A picture of a streak, turned so that it lies along the rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.streaks.trace import Segment

Float32Image = NDArray[np.float32]


class StripPicture(NamedTuple):
    """Pixels about a streak."""

    stamp: Float32Image
    """``[across, along]``, NaN where there is no pixel."""
    pixels_per_column: float
    """Image pixels along the streak that are averaged in one column."""


def strip_picture(
    image: Float32Image, segment: Segment, *, half_width: int = 15, margin: float = 15.0, max_columns: int = 512
) -> StripPicture:
    """Return an image resampled (bilinear) along a segment and ``margin`` pixels beyond both ends, and across it."""
    total = segment.length + 2.0 * margin
    per_column = max(1.0, total / max_columns)
    n = max(int(np.ceil(total / per_column)), 1)
    ux, uy = segment.direction
    start_x, start_y = segment.x1 - margin * ux, segment.y1 - margin * uy
    return StripPicture(_resampled(image, start_x, start_y, ux, uy, per_column, n, half_width), per_column)


@njit(cache=True, error_model="numpy")
def _resampled(image, x0, y0, ux, uy, per_column, n, half):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    out = np.full((2 * half + 1, n), np.nan, np.float32)
    fine = max(int(np.ceil(per_column)), 1)
    for column in range(n):
        for row in range(2 * half + 1):
            total, count = 0.0, 0
            for k in range(fine):
                t, o = (column + (k + 0.5) / fine) * per_column, float(row - half)
                x, y = x0 + t * ux - o * uy, y0 + t * uy + o * ux
                i, j = int(np.floor(x)), int(np.floor(y))
                if i < 0 or j < 0 or i + 1 >= nx or j + 1 >= ny:
                    continue
                fx, fy = x - i, y - j
                value = (1 - fy) * ((1 - fx) * image[j, i] + fx * image[j, i + 1]) + fy * (
                    (1 - fx) * image[j + 1, i] + fx * image[j + 1, i + 1]
                )
                if np.isfinite(value):
                    total += value
                    count += 1
            if count > 0:
                out[row, column] = total / count
    return out
