"""Saturated stars and the charge that bled out of them."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.detrend.groups import label_groups, pixels_with
from gueststar.core.bits import MaskPlane

MIN_RUN = 6
"""Pixels in a row that make a trail, if they do not touch the saturated ones: neighbour stars are shorter."""


def mark_bleeding_in_place(
    mask: NDArray[np.int32],
    image: NDArray[np.float32],
    sky: NDArray[np.float32],
    rms: NDArray[np.float32],
    *,
    readout_axis: str = "y",
    margin: int = 1,
) -> int:
    """Mark bleed trails of saturated pixels and give all saturated pixels a margin; return how many were saturated.

    The heart of a saturated star is where its saturated pixels lie widest across the readout axis; whatever is
    saturated further along that axis than it is wide has bled there. From both ends of each
    saturated run the trail is followed as long as it is twice as bright as the star is at the same
    distance across the axis (its profile, or a spike, would be as bright there) and five sigma above the sky:
    full wells below digital saturation bleed too. BLEED pixels keep SATURATED if they are.

    ``image`` is in electrons with the sky in, ``rms`` its noise; ``readout_axis`` is x or y.
    """
    y, x = pixels_with(mask, int(MaskPlane.SATURATED))
    if y.size == 0:
        return 0
    groups = label_groups(y, x, shape=(mask.shape[0], mask.shape[1]))
    order = np.argsort(groups, kind="stable")
    bounds = np.searchsorted(groups[order], np.arange(groups.max() + 2))
    if readout_axis == "y":
        bled_y, bled_x = _trace_bleeding(image, sky, rms, y[order], x[order], bounds)
    else:
        bled_x, bled_y = _trace_bleeding(image.T, sky.T, rms.T, x[order], y[order], bounds)
    _spread_in_place(mask, y, x, margin, int(MaskPlane.SATURATED))
    _spread_in_place(mask, bled_y, bled_x, margin, int(MaskPlane.BLEED))
    return int(y.size)


@numba.njit(cache=True)
def _trace_bleeding(image, sky, rms, along, across, bounds):  # type: ignore[no-untyped-def]
    """Return the pixels (along, across) onto which charge bled, for groups of saturated pixels."""
    found_along, found_across = [0 for _ in range(0)], [0 for _ in range(0)]
    for g in range(bounds.size - 1):
        a, c = along[bounds[g] : bounds[g + 1]], across[bounds[g] : bounds[g + 1]]
        first, length = a.min(), a.max() - a.min() + 1
        width = np.zeros(length, np.int64)
        for value in a:
            width[value - first] += 1
        widest = np.flatnonzero(width == width.max())
        heart = first + widest[widest.size // 2]
        reach = width.max() // 2 + 2
        for i in range(a.size):
            if abs(a[i] - heart) > reach:
                found_along.append(a[i])
                found_across.append(c[i])
        axis = int(np.median(c[a == heart]))
        for column in range(max(axis - 2, 0), min(axis + 3, image.shape[1])):
            inside = a[c == column]
            if inside.size == 0:
                continue
            for step, start in ((1, inside.max()), (-1, inside.min())):
                for place in _follow(image, sky, rms, start, step, column, heart, axis):
                    found_along.append(place)
                    found_across.append(column)
    return np.array(found_along, np.int64), np.array(found_across, np.int64)


@numba.njit(cache=True)
def _follow(image, sky, rms, start, step, column, heart, axis):  # type: ignore[no-untyped-def]
    """Return the pixels of one column beyond a saturated run that are brighter than the star can make them."""
    followed, run = [0 for _ in range(0)], [0 for _ in range(0)]
    n_missed = 0
    place = start + step
    while 0 <= place < image.shape[0] and n_missed < 3:
        excess = image[place, column] - sky[place, column]
        limit = 5.0 * rms[place, column]
        distance = abs(place - heart)
        beside = np.inf  # the fainter side, lest another star hides the trail
        for side in (axis - distance, axis + distance):
            if 0 <= side < image.shape[1]:
                # Three pixels along: readouts undershoot right behind a saturated pixel.
                brightest = np.max(image[max(heart - 1, 0) : heart + 2, side])
                beside = min(beside, brightest - sky[heart, side])
        if beside == np.inf:
            beside = 0.0
        if excess > limit and excess > 2.0 * beside:
            run.append(place)
            n_missed = 0
        else:
            if excess <= limit or beside <= limit:  # within the star's own light a trail may hide and come out
                n_missed += 1
            if len(run) >= MIN_RUN or (len(run) > 0 and abs(run[0] - start) == 1):
                followed.extend(run)
            run.clear()
        place += step
    if len(run) >= MIN_RUN or (len(run) > 0 and abs(run[0] - start) == 1):
        followed.extend(run)
    return followed


@numba.njit(cache=True)
def _spread_in_place(mask, y, x, margin, bit):  # type: ignore[no-untyped-def]
    """Set a bit on the listed pixels and on those within ``margin`` of them."""
    ny, nx = mask.shape
    for i in range(y.size):
        for v in range(max(y[i] - margin, 0), min(y[i] + margin + 1, ny)):
            for u in range(max(x[i] - margin, 0), min(x[i] + margin + 1, nx)):
                mask[v, u] |= bit
