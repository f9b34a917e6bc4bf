"""What whole rows or columns of an image share: remains of overscan and bias, which look like lines."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Float32Image = NDArray[np.float32]

_CLIP = 1.5
"""Values count for at most this many sigma: a streak or a star on a row is not shared by it."""


def shared_by_lines(
    image: Float32Image, usable: NDArray[np.bool_], *, scale: float, axis: int
) -> NDArray[np.float32] | None:
    """Return the level that each row (axis 0) or column (axis 1) has of its own, as far as it is above noise.

    ``scale`` is the noise of a pixel. How far parts of a row scatter tells the noise of its mean; means are shrunk by
    the share of noise in them. None where rows scatter no more than by chance.
    """
    n_parts = int(np.clip(image.shape[1 - axis] // 16, 4, 24))
    sums, counts = _part_sums(image, usable, np.float32(_CLIP * scale), n_parts, axis)
    enough = counts > 4
    known = enough.sum(axis=1) >= 4
    if np.count_nonzero(known) < 16:
        return None
    parts = np.where(enough, sums / np.maximum(counts, 1), np.nan)[known]
    means, n = np.nanmean(parts, axis=1), np.count_nonzero(np.isfinite(parts), axis=1)
    noise = float(np.median(np.nanvar(parts, axis=1) / (n - 1)))
    excess = (float(np.median(np.abs(means))) / 0.6745) ** 2 - noise
    # The excess that chance alone makes in so many rows.
    if excess <= 3.0 * noise / np.sqrt(means.size):
        return None
    # Clipping takes away a part of what is shared: of a shift of Gaussian noise this fraction is left.
    left = 0.866
    shared = np.zeros(image.shape[axis], np.float32)
    shared[known] = means / left * excess / (excess + noise)
    return shared


def without_shared(image: Float32Image, usable: NDArray[np.bool_], *, scale: float) -> Float32Image:
    """Return an image without what its rows and columns share; the same image where they share nothing."""
    changed = image
    for axis in (0, 1):
        shared = shared_by_lines(changed, usable, scale=scale, axis=axis)
        if shared is not None:
            own = None if changed is image else changed
            changed = np.subtract(changed, np.expand_dims(shared, 1 - axis), out=own)
    return changed


@njit(cache=True)
def _part_sums(image, usable, most, n_parts, axis):  # type: ignore[no-untyped-def]
    """Return sums of clipped values and counts of parts of each row (axis 0) or column (axis 1)."""
    ny, nx = image.shape
    if axis == 1:  # row by row all the same, so that memory is read in its order
        sums, counts = np.zeros((n_parts, nx)), np.zeros((n_parts, nx))
        for y in range(ny):
            part = y * n_parts // ny
            _add_line(image[y], usable[y], most, sums[part], counts[part])
        return sums.T.copy(), counts.T.copy()
    sums, counts = np.zeros((ny, n_parts)), np.zeros((ny, n_parts))
    for y in range(ny):
        for part in range(n_parts):
            # Pixel k lies in part k n // nx.
            some = slice(-(-part * nx // n_parts), -(-(part + 1) * nx // n_parts))
            sums[y, part], counts[y, part] = _sum_line(image[y, some], usable[y, some], most)
    return sums, counts


@njit(cache=True)
def _add_line(values, usable, most, sums, counts):  # type: ignore[no-untyped-def]
    for x in range(values.size):
        value = min(max(values[x], -most), most)
        sums[x] += value if usable[x] else np.float32(0)
        counts[x] += 1.0 if usable[x] else 0.0


@njit(cache=True, fastmath={"reassoc", "nsz"})
def _sum_line(values, usable, most):  # type: ignore[no-untyped-def]
    total, count = 0.0, 0
    for x in range(values.size):
        value = min(max(values[x], -most), most)
        total += np.float64(value if usable[x] else np.float32(0.0))
    for x in range(values.size):  # apart: sums of either kind are made many at once, both together are not
        count += usable[x]
    return total, float(count)
