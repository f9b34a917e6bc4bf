"""Values for pixels that have none, from their neighbours."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray


def interpolate_in_place(
    image: NDArray[np.float32], is_unusable: NDArray[np.bool_], *, y: NDArray[np.int64], x: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Replace the pixels at ``y``, ``x`` by a Gaussian-weighted mean (sigma one pixel) of usable ones around.

    The nearest ring that holds enough usable pixels is used, out to four pixels. Returns which could be
    replaced; the others keep their value. All new values are computed from the old image.
    """
    values, is_done = _means_around(image, is_unusable, y, x)
    image[y[is_done], x[is_done]] = values[is_done]
    return np.asarray(is_done)


@numba.njit(cache=True)
def _means_around(image, is_unusable, y, x):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    values = np.zeros(y.size, np.float32)
    is_done = np.zeros(y.size, np.bool_)
    for i in range(y.size):
        for reach in range(1, 5):
            total = 0.0
            weight = 0.0
            n = 0
            for v in range(max(y[i] - reach, 0), min(y[i] + reach + 1, ny)):
                for u in range(max(x[i] - reach, 0), min(x[i] + reach + 1, nx)):
                    if not is_unusable[v, u]:
                        w = math.exp(-0.5 * ((v - y[i]) ** 2 + (u - x[i]) ** 2))
                        total += w * image[v, u]
                        weight += w
                        n += 1
            if n >= 3:
                values[i] = total / weight
                is_done[i] = True
                break
    return values, is_done
