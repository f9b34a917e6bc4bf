"""Compiled steps of the sky estimate: binning, statistics of meshes, marking of sources."""

from __future__ import annotations

import math

import numba
import numpy as np

MIN_VALUES = 8
"""Fewest values from which a mesh gets a level."""
N_BINS = 200
"""Bins of a mesh's histogram, over ten sigma."""


@numba.njit(cache=True)
def bin_pixels(image, is_masked, factor):  # type: ignore[no-untyped-def]
    """Return mean and variance of the unmasked finite pixels in cells of ``factor`` x ``factor``, and their number.

    Cells at the far edges may be smaller. Mean and variance of an empty cell are 0.
    """
    ny, nx = image.shape
    n_rows = (ny + factor - 1) // factor
    n_columns = (nx + factor - 1) // factor
    mean = np.zeros((n_rows, n_columns), np.float32)
    variance = np.zeros((n_rows, n_columns), np.float32)
    number = np.zeros((n_rows, n_columns), np.int32)
    for row in range(n_rows):
        last_y = min((row + 1) * factor, ny)
        for column in range(n_columns):
            last_x = min((column + 1) * factor, nx)
            origin = np.float32(image[row * factor, column * factor])
            if not math.isfinite(origin):
                origin = np.float32(0.0)
            n = 0
            total = np.float32(0.0)
            square = np.float32(0.0)
            for y in range(row * factor, last_y):
                for x in range(column * factor, last_x):
                    offset = image[y, x] - origin
                    if not is_masked[y, x] and math.isfinite(offset):
                        n += 1
                        total += offset
                        square += offset * offset
            number[row, column] = n
            if n > 0:
                average = total / n
                mean[row, column] = origin + average
                variance[row, column] = max(square - n * average * average, np.float32(0.0)) / max(n - 1, 1)
    return mean, variance, number


@numba.njit(cache=True)
def mesh_statistics(values, is_masked, edges_y, edges_x):  # type: ignore[no-untyped-def]
    """Return clipped median, sigma and number of the unmasked values in every mesh of a grid.

    ``edges_y`` and ``edges_x`` bound the meshes. Sigma is the distance from the median to the lower
    16 percent (which sources do not reach), iterated with clipping at 3 sigma. Meshes with
    fewer than `MIN_VALUES` values have sigma 0.
    """
    n_rows, n_columns = edges_y.size - 1, edges_x.size - 1
    level = np.zeros((n_rows, n_columns))
    sigma = np.zeros((n_rows, n_columns))
    number = np.zeros((n_rows, n_columns), np.int64)
    for row in range(n_rows):
        height = edges_y[row + 1] - edges_y[row]
        for column in range(n_columns):
            kept = np.empty(height * (edges_x[column + 1] - edges_x[column]), np.float32)
            n = 0
            for y in range(edges_y[row], edges_y[row + 1]):
                for x in range(edges_x[column], edges_x[column + 1]):
                    kept[n] = values[y, x]
                    n += not is_masked[y, x]
            number[row, column] = n
            if n >= MIN_VALUES:
                level[row, column], sigma[row, column] = _clipped_median(kept[:n])
    return level, sigma, number


@numba.njit(cache=True)
def _clipped_median(values):  # type: ignore[no-untyped-def]
    """Return median and lower-side sigma after clipping at 3 sigma, from a histogram of the values.

    The histogram is laid over five sigma on either side of the median of a sample.
    """
    sample = np.sort(values[:: max(values.size // 200, 1)])
    centre = float(sample[sample.size // 2])
    spread = centre - float(sample[int(0.15866 * sample.size)])
    if spread <= 0.0:
        return centre, max(float(sample[-1] - sample[0]), 0.0) / 4.0
    width = 10.0 * spread / N_BINS
    start = centre - 5.0 * spread
    cumulative = np.zeros(N_BINS + 1)
    scale = np.float32(1.0 / width)
    origin = np.float32(start)
    for value in values:
        place = (value - origin) * scale
        if 0.0 <= place < N_BINS:
            cumulative[int(place) + 1] += 1.0
    for i in range(N_BINS):
        cumulative[i + 1] += cumulative[i]
    low, high = 0.0, float(N_BINS)
    for _ in range(8):
        below = _interpolate(cumulative, low)
        inside = _interpolate(cumulative, high) - below
        if inside < MIN_VALUES:
            break
        middle = _quantile(cumulative, below + 0.5 * inside)
        centre = start + width * middle
        spread = width * (middle - _quantile(cumulative, below + 0.15866 * inside))
        new_low = min(max((centre - 3.0 * spread - start) / width, 0.0), float(N_BINS))
        new_high = min(max((centre + 3.0 * spread - start) / width, 0.0), float(N_BINS))
        if abs(new_low - low) + abs(new_high - high) < 0.02:
            break
        low, high = new_low, new_high
    return centre, spread


@numba.njit(cache=True)
def _interpolate(cumulative, place):  # type: ignore[no-untyped-def]
    """Return the cumulative count at a fractional bin."""
    i = min(int(place), N_BINS - 1)
    return cumulative[i] + (place - i) * (cumulative[i + 1] - cumulative[i])


@numba.njit(cache=True)
def _quantile(cumulative, count):  # type: ignore[no-untyped-def]
    """Return the fractional bin at which the cumulative count is reached."""
    i = min(max(int(np.searchsorted(cumulative, count)) - 1, 0), N_BINS - 1)
    step = cumulative[i + 1] - cumulative[i]
    return i + (count - cumulative[i]) / step if step > 0 else float(i)


@numba.njit(cache=True)
def mesh_noise(variance, number, is_masked, edges_y, edges_x):  # type: ignore[no-untyped-def]
    """Return the pixel noise in every mesh, from the variances within its unmasked cells; 0 where there are none.

    The median of the variances is used, times what makes it unbiased for Gaussian noise (Wilson &
    Hilferty 1931): cells with an undetected source are the minority.
    """
    n_rows, n_columns = edges_y.size - 1, edges_x.size - 1
    noise = np.zeros((n_rows, n_columns))
    for row in range(n_rows):
        for column in range(n_columns):
            size = (edges_y[row + 1] - edges_y[row]) * (edges_x[column + 1] - edges_x[column])
            kept = np.empty(size, np.float64)
            n = 0
            for y in range(edges_y[row], edges_y[row + 1]):
                for x in range(edges_x[column], edges_x[column + 1]):
                    if not is_masked[y, x] and number[y, x] > 2:
                        freedom = number[y, x] - 1.0
                        kept[n] = variance[y, x] / (1.0 - 2.0 / (9.0 * freedom)) ** 3
                        n += 1
            if n >= MIN_VALUES:
                noise[row, column] = math.sqrt(np.median(kept[:n]))
    return noise


@numba.njit(cache=True)
def mark_deviant(values, is_empty, level, sigma, threshold):  # type: ignore[no-untyped-def]
    """Return where values, smoothed by a 3 x 3 binomial, are off the level by more than ``threshold`` sigma.

    Both signs are marked, so that what is marked of plain noise does not shift the mean of the rest.
    ``sigma`` is that of single values; empty cells count as being at the level.
    """
    ny, nx = values.shape
    is_marked = np.zeros((ny, nx), np.bool_)
    limit = np.float32(threshold * 0.375)  # noise of the smoothed values: sum of squares of (1, 2, 1)/4 is 3/8
    rows = np.zeros((3, nx + 2), np.float32)
    for y in range(ny + 1):
        slot = y % 3
        if y < ny:
            for x in range(nx):
                deviation = np.float32(0.0)
                if not is_empty[y, x]:
                    deviation = (values[y, x] - level[y, x]) / sigma[y, x]
                rows[slot, x + 1] = deviation
        else:
            rows[slot, :] = 0.0
        if y == 0:
            continue
        above, here = rows[(y - 2) % 3], rows[(y - 1) % 3]
        below = rows[slot]
        for x in range(nx):
            smooth = (
                above[x] + below[x] + above[x + 2] + below[x + 2]
                + np.float32(2.0) * (here[x] + here[x + 2] + above[x + 1] + below[x + 1])
                + np.float32(4.0) * here[x + 1]
            ) * np.float32(0.0625)  # fmt: skip
            is_marked[y - 1, x] = abs(smooth) > limit
    return is_marked


@numba.njit(cache=True)
def grow_by_one(is_marked):  # type: ignore[no-untyped-def]
    """Return the mask with the eight neighbours of every marked cell marked too."""
    ny, nx = is_marked.shape
    across = np.zeros((ny, nx), np.bool_)
    grown = np.zeros((ny, nx), np.bool_)
    for y in range(ny):
        for x in range(nx):
            across[y, x] = is_marked[y, max(x - 1, 0)] | is_marked[y, x] | is_marked[y, min(x + 1, nx - 1)]
    for y in range(ny):
        for x in range(nx):
            grown[y, x] = across[max(y - 1, 0), x] | across[y, x] | across[min(y + 1, ny - 1), x]
    return grown
