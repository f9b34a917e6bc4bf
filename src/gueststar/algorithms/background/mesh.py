"""Compiled steps of the sky estimate: binning, statistics of meshes, marking of sources."""

from __future__ import annotations

import math

import numba
import numpy as np

MIN_VALUES = 8
"""Fewest values from which a mesh gets a level."""
N_BINS = 200
"""Bins of a mesh's histogram, over ten sigma."""


@numba.njit(cache=True, error_model="numpy")
def bin_pixels(image, is_masked, factor):  # type: ignore[no-untyped-def]
    """Return mean and variance of the unmasked finite pixels in cells of ``factor`` x ``factor``, and their number.

    Cells at the far edges may be smaller. Mean and variance of an empty cell are 0.
    """
    ny, nx = image.shape
    n_rows, n_columns = (ny + factor - 1) // factor, (nx + factor - 1) // factor
    mean = np.zeros((n_rows, n_columns), np.float32)
    variance = np.zeros((n_rows, n_columns), np.float32)
    number = np.zeros((n_rows, n_columns), np.int32)
    zero, one = np.float32(0.0), np.float32(1.0)
    sums = np.empty((3, nx), np.float32)  # number, sum and sum of squares down the rows of a cell
    origin = zero  # near the values, so that float32 sums of squares keep their digits
    for row in range(n_rows):
        sums[:] = zero
        counts, totals, squares = sums[0], sums[1], sums[2]
        for y in range(row * factor, min((row + 1) * factor, ny)):
            values, masks = image[y], is_masked[y]
            for x in range(nx):
                offset = values[x] - origin
                is_good = (not masks[x]) & (abs(offset) < np.float32(np.inf))
                counts[x] += one if is_good else zero
                totals[x] += offset if is_good else zero
                squares[x] += offset * offset if is_good else zero
        for column in range(n_columns):
            n, total, square = zero, zero, zero
            for x in range(column * factor, min((column + 1) * factor, nx)):
                n += counts[x]
                total += totals[x]
                square += squares[x]
            if n > 0:
                average = total / n
                number[row, column] = int(n)
                mean[row, column] = origin + average
                variance[row, column] = max(square - n * average * average, zero) / max(n - one, one)
        if row == 0 or number[row, n_columns // 2] > 0:
            origin = mean[row, n_columns // 2]
    return mean, variance, number


@numba.njit(cache=True, error_model="numpy")
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


@numba.njit(cache=True, error_model="numpy")
def _clipped_median(values):  # type: ignore[no-untyped-def]
    """Return median and lower-side sigma after clipping at 3 sigma, from a histogram of the values.

    The histogram is laid over five sigma on either side of the median of a sample.
    """
    sample = np.sort(values[:: max(values.size // 80, 1)])
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


@numba.njit(cache=True, error_model="numpy")
def _interpolate(cumulative, place):  # type: ignore[no-untyped-def]
    """Return the cumulative count at a fractional bin."""
    i = min(int(place), N_BINS - 1)
    return cumulative[i] + (place - i) * (cumulative[i + 1] - cumulative[i])


@numba.njit(cache=True, error_model="numpy")
def _quantile(cumulative, count):  # type: ignore[no-untyped-def]
    """Return the fractional bin at which the cumulative count is reached."""
    i = min(max(int(np.searchsorted(cumulative, count)) - 1, 0), N_BINS - 1)
    step = cumulative[i + 1] - cumulative[i]
    return i + (count - cumulative[i]) / step if step > 0 else float(i)


@numba.njit(cache=True, error_model="numpy")
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
                for x in range(edges_x[column] + y % 2, edges_x[column + 1], 2):  # every second cell is enough
                    if not is_masked[y, x] and number[y, x] > 2:
                        freedom = number[y, x] - 1.0
                        kept[n] = variance[y, x] / (1.0 - 2.0 / (9.0 * freedom)) ** 3
                        n += 1
            if n >= MIN_VALUES:
                noise[row, column] = math.sqrt(np.median(kept[:n]))
    return noise


@numba.njit(cache=True, error_model="numpy")
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


@numba.njit(cache=True, error_model="numpy")
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


@numba.njit(cache=True, error_model="numpy")
def with_margin(core, edges_y, edges_x, most):  # type: ignore[no-untyped-def]
    """Return the mask grown by one cell, except in meshes of which the grown one would mask more than ``most``."""
    out = grow_by_one(core)
    for row in range(edges_y.size - 1):
        for column in range(edges_x.size - 1):
            y0, y1, x0, x1 = edges_y[row], edges_y[row + 1], edges_x[column], edges_x[column + 1]
            n = 0
            for y in range(y0, y1):
                for x in range(x0, x1):
                    n += out[y, x]
            if n >= most * ((y1 - y0) * (x1 - x0)):
                out[y0:y1, x0:x1] = core[y0:y1, x0:x1]
    return out


@numba.njit(cache=True, error_model="numpy")
def expand_cells(cells, factor, ny, nx):  # type: ignore[no-untyped-def]
    """Return an image of ``ny`` x ``nx`` pixels by linear interpolation between the centres of cells."""
    image = np.empty((ny, nx), np.float32)
    n_rows, n_columns = cells.shape
    left, share_x = np.empty(nx, np.int32), np.empty(nx, np.float32)
    for x in range(nx):
        place = (x + 0.5) / factor - 0.5
        left[x] = min(max(math.floor(place), 0), max(n_columns - 2, 0))
        share_x[x] = place - left[x] if n_columns > 1 else 0.0
    held = -2
    lower_row, upper_row = np.empty(nx, np.float32), np.empty(nx, np.float32)
    for y in range(ny):
        place = (y + 0.5) / factor - 0.5
        lower = min(max(math.floor(place), 0), max(n_rows - 2, 0))
        if lower != held:
            if lower == held + 1:
                lower_row, upper_row = upper_row, lower_row
            else:
                _expand_row(cells[lower], left, share_x, lower_row)
            _expand_row(cells[min(lower + 1, n_rows - 1)], left, share_x, upper_row)
            held = lower
        share = np.float32(place - lower if n_rows > 1 else 0.0)
        row = image[y]
        for x in range(nx):
            row[x] = lower_row[x] + share * (upper_row[x] - lower_row[x])
    return image


@numba.njit(cache=True, error_model="numpy", _nrt=False)
def _expand_row(cells, left, share, row):  # type: ignore[no-untyped-def]
    """Fill a row of pixels by linear interpolation between a row of cells: from the ``left`` one, by a ``share``."""
    last = cells.size - 1
    for x in range(row.size):
        before, after = cells[left[x]], cells[min(left[x] + 1, last)]
        row[x] = before + share[x] * (after - before)
