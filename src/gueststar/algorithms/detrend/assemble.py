"""From the amplifiers' raw counts to one image of the detector in electrons."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

from gueststar.core.bits import MaskPlane


def place_amplifier_in_place(
    image: NDArray[np.float32],
    mask: NDArray[np.int32],
    *,
    data: NDArray[np.float32],
    row_level: NDArray[np.float32],
    target: tuple[slice, slice],
    flip_x: bool,
    flip_y: bool,
    gain: float,
    saturation: float,
    linear_below: float | None = None,
    counts: NDArray[np.float32] | None = None,
) -> None:
    """Write one amplifier's pixels, less the zero level of their row, into the detector image.

    ``data`` and ``row_level`` are ADU in the orientation of the raw file; ``target`` is the (y, x) part of
    the detector that the amplifier fills, mirrored as the flips say. The image receives
    electrons; the mask, SATURATED where the raw count reaches ``saturation`` (ADU, before any subtraction), SUSPECT
    where it is below that but reaches ``linear_below``, and NO_DATA (value 0) where it is not finite.
    ``counts``, if given, are what the image gets in the place of ``data`` less ``row_level`` (ADU above zero).
    """
    _place(
        image[target], mask[target], data, row_level, flip_x, flip_y, np.float32(gain), np.float32(saturation),
        np.float32(np.inf if linear_below is None else linear_below),
        np.zeros((0, 0), np.float32) if counts is None else counts,
        int(MaskPlane.SATURATED), int(MaskPlane.SUSPECT), int(MaskPlane.NO_DATA),
    )  # fmt: skip


@numba.njit(cache=True)
def _place(  # type: ignore[no-untyped-def]
    image, mask, data, row_level, flip_x, flip_y, gain, saturation, linear_below, counts, saturated, suspect, no_data
):
    ny, nx = data.shape
    has_counts = counts.size > 0
    for row in range(ny):
        y = ny - 1 - row if flip_y else row
        level = row_level[row]
        start, step = (nx - 1, -1) if flip_x else (0, 1)
        for column in range(nx):
            x = start + step * column
            value = data[row, column]
            if math.isfinite(value):
                image[y, x] = (counts[row, column] if has_counts else value - level) * gain
                mask[y, x] = saturated if value >= saturation else (suspect if value >= linear_below else 0)
            else:
                image[y, x] = np.float32(0.0)
                mask[y, x] = no_data
