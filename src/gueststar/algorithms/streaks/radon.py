"""Sums along all straight segments of dyadic lengths: a fast Radon transform read at every level.

The transform (Brady 1998, SIAM J. Comput. 27, 107) joins strips of rows in pairs, so that each of its levels holds the
sums along all digital lines through strips of 2, 4, 8... rows. Nir, Zackay & Ofek (2018, AJ 156, 229) read the levels
in between to find streaks that do not cross the image. Here strips that begin half a strip later are read as well:
the worst streak then keeps three quarters of its signal to noise.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

Float32Image = NDArray[np.float32]
Floats = NDArray[np.float64]
Cell = TypeVar("Cell", np.float32, np.int16)

N_QUADRANTS = 4
"""Ranges of directions, each of 45 degrees."""
_BLOCK = 32
"""Columns of which only the largest sum is looked at."""
_LONGEST_MEASURED = 128
"""Rows up to which the noise of sums is measured; beyond, sums are too few, and it is carried on."""
_FINEST_STEP = 1.0 / 16.0
"""Cells are summed as whole numbers of steps no finer than this, sigma: rounding adds 0.03 % to their variance."""
_COARSEST_STEP = 0.25
"""Where some cells are so large that steps would be coarser than this, sigma, they are cut off."""
_MOST_STEPS = 127
_LOWEST_SUMMED = 4
"""Strips of up to so many rows are summed at once; only higher ones are joined from two."""
_SHORT_HEIGHT = 256
"""Rows of cells of `_MOST_STEPS` whose sums 16 bits hold: twice as many at once as of 32."""
_LARGEST_SHORT = 2**15 - 1
"""Largest sum that 16 bits hold: strips are joined further in them as long as no sum can become larger."""


class Segments(NamedTuple):
    """Digital segments with a sum beyond the threshold, in cells of the image searched; the most significant first."""

    quadrant: NDArray[np.int64]
    """Range of directions, see `turned`."""
    height: NDArray[np.int64]
    """Rows of the turned image that the segment crosses, a power of two."""
    row: NDArray[np.int64]
    """First of these."""
    column: NDArray[np.int64]
    """Column in that row; negative where the segment enters the image from the side."""
    shift: NDArray[np.int64]
    """Columns by which it moves within its rows."""
    significance: Floats
    """Sum over the noise of such sums, signed."""
    total: Floats
    """The sum itself."""
    n_dropped: int
    """Segments beyond the threshold for which there was no room."""

    @property
    def n(self) -> int:
        """How many."""
        return int(self.significance.size)


def find_segments(
    cells: Float32Image, *, threshold: float, min_height: int = 8, max_segments: int = 200_000
) -> Segments:
    """Return the segments of an image of unit noise whose sums are beyond ``threshold`` sigma, of either sign.

    Of lines of one strip and slope that begin within 32 cells of each other only the strongest is returned. Noise that
    neighbouring cells share is measured, level by level, from the sums themselves. Cells without data are 0; they
    make a sum less significant than it is. ``min_height``, a power of two, is the shortest strip that is read.
    Cells are summed in steps of a sixteenth of a sigma, coarser where there are some beyond 8 sigma; those beyond 32
    count as 32.
    """
    parts: list[NDArray[np.float64]] = []
    n_dropped = 0
    most = max(cells.max(initial=np.float32(0)), -cells.min(initial=np.float32(0)))
    step = float(np.clip(most / _MOST_STEPS, _FINEST_STEP, _COARSEST_STEP))
    whole = _in_steps(cells, np.float32(step))
    rooms = np.empty((2, max(_most_sums(*cells.shape), _most_sums(*cells.shape[::-1]))), np.int16)
    for quadrant in range(N_QUADRANTS):
        image = np.ascontiguousarray(turned(whole, quadrant))
        found, n = _transform(image, threshold, step, min_height, max_segments // N_QUADRANTS, rooms)
        n_dropped += max(0, n - found.shape[0])
        parts.append(np.column_stack([np.full(found.shape[0], quadrant), found]))
    table = np.concatenate(parts)
    table = table[np.argsort(-np.abs(table[:, 5]), kind="stable")]
    place = table[:, :5].astype(np.int64).T
    return Segments(place[0], place[1], place[2], place[3], place[4], table[:, 5], table[:, 6], n_dropped)


def turned(cells: NDArray[Cell], quadrant: int) -> NDArray[Cell]:
    """Return a view in which the directions of a quadrant lean by 0 to 45 degrees from the columns, to the right."""
    upright = cells if quadrant < 2 else cells.T
    return upright if quadrant % 2 == 0 else upright[:, ::-1]


def to_cells(quadrant: int, row: float, column: float, shape: tuple[int, int]) -> tuple[float, float]:
    """Return x and y in the image of ``shape`` of a place in its turned view."""
    width = shape[1] if quadrant < 2 else shape[0]
    along = column if quadrant % 2 == 0 else width - 1 - column
    return (along, row) if quadrant < 2 else (row, along)


def segment_ends(segments: Segments, k: int, shape: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return x1, y1, x2, y2 of segment ``k`` in cells, cut at the borders of the image."""
    height, column, shift = int(segments.height[k]), float(segments.column[k]), float(segments.shift[k])
    ny, nx = shape if segments.quadrant[k] < 2 else (shape[1], shape[0])
    row = float(segments.row[k])
    first, last = 0.0, min(height - 1.0, ny - 1.0 - row)
    slope = shift / (height - 1.0)
    if slope > 0:
        first = max(first, -column / slope)
        last = min(last, (nx - 1 - column) / slope)
    ends = [to_cells(int(segments.quadrant[k]), row + t, column + slope * t, shape) for t in (first, max(last, first))]
    return (*ends[0], *ends[1])


def next_standing(cells: Float32Image, segments: Segments, start: int, *, threshold: float) -> tuple[int, float]:
    """Return the first segment from ``start`` on that still stands out of cells of which some were erased.

    With it comes what significance it has left; its number is that of all segments where there is none.
    """
    s = segments
    return _next_standing(
        cells, s.quadrant, s.height, s.row, s.column, s.shift, s.significance, s.total, start, threshold
    )


@njit(cache=True)
def _next_standing(cells, quadrant, height, row, column, shift, significance, total, start, threshold):  # type: ignore[no-untyped-def]
    path = np.empty(height.max() if height.size else 1, np.int64)
    for k in range(start, significance.size):
        now = _sum_along(cells, quadrant[k], height[k], row[k], column[k], shift[k], path)
        left = significance[k] * now / total[k]
        if left * significance[k] > 0.0 and abs(left) >= threshold:
            return k, left
    return significance.size, 0.0


@njit(cache=True)
def _sum_along(cells, quadrant, height, row, column, shift, path):  # type: ignore[no-untyped-def]
    """Return the sum along one digital line, as the transform makes it; ``path`` is room for its columns."""
    is_upright, is_mirrored = quadrant < 2, quadrant % 2 == 1
    ny, nx = cells.shape if is_upright else (cells.shape[1], cells.shape[0])
    _walk(height, shift, path)
    total = 0.0
    for r in range(min(height, ny - row)):
        x = column + path[r]
        if 0 <= x < nx:
            along = nx - 1 - x if is_mirrored else x
            total += cells[row + r, along] if is_upright else cells[along, row + r]
    return total


@njit(cache=True)
def _walk(height, shift, path):  # type: ignore[no-untyped-def]
    """Write by how many columns a digital line has moved in each of its ``height`` rows, a power of two."""
    path[0], n, fraction = 0, 1, height
    while n < height:  # the upper half of a strip moves as its lower half does, from where that ends
        fraction //= 2
        step = (shift // fraction + 1) // 2
        for r in range(n):
            path[n + r] = path[r] + step
        n *= 2


@njit(cache=True)
def _in_steps(cells, step):  # type: ignore[no-untyped-def]
    """Return cells as whole numbers of ``step``, no larger than `_MOST_STEPS`."""
    out, most = np.empty(cells.shape, np.int16), np.float32(_MOST_STEPS)
    for y in range(cells.shape[0]):
        own, into = cells[y], out[y]
        for x in range(own.size):
            into[x] = np.int16(np.rint(min(max(own[x] / step, -most), most)))
    return out


def _most_sums(ny: int, nx: int) -> int:
    """Return how many sums the largest level of a transform holds that is kept."""
    most, height = 0, 1
    while height < ny:
        most = max(most, (ny + height - 1) // height * height * (nx + height))
        height *= 2
    return most


@njit(cache=True)
def _transform(image, threshold, step, min_height, room, rooms):  # type: ignore[no-untyped-def]
    """Return ``[n, 6]`` (height, row, column, shift, significance, sum) and the number found, which may be larger.

    ``image`` holds whole numbers of ``step`` sigma; sums are returned in sigma. ``rooms`` is memory for two levels.
    """
    ny, nx = image.shape
    found = np.empty((room, 6))
    top = 1
    while top < ny:
        top *= 2
    lowest = max(min(_LOWEST_SUMMED, min_height // 2, top), 1)
    sums = _first_sums(image, lowest)
    middle = max(min(top, _SHORT_HEIGHT), lowest)
    unit = 1.0 / (step * step)
    short, share, n, turn = _climb(
        sums, ny, nx, lowest, middle, unit, unit, threshold, min_height, found, 0, middle == top, rooms, 0
    )
    if middle < top:
        most = 0
        for y in range(short.shape[0]):
            most = max(most, _largest(short[y]))
        if most * (top // middle) <= _LARGEST_SHORT:
            n = _climb(short, ny, nx, middle, top, unit, share, threshold, min_height, found, n, True, rooms, turn)[2]
        else:
            wide, wide_rooms = short.astype(np.int32), np.empty(rooms.shape, np.int32)
            n = _climb(wide, ny, nx, middle, top, unit, share, threshold, min_height, found, n, True, wide_rooms, 0)[2]
    found[:, 5] *= step
    return found[: min(n, room)], n


@njit(cache=True)
def _first_sums(image, height):  # type: ignore[no-untyped-def]
    """Return the sums of strips of a few rows, which are joined further: ``[strip and shift, start + height]``."""
    ny, nx = image.shape
    n_strips = (ny + height - 1) // height
    sums, path = np.zeros((n_strips * height, nx + height), image.dtype), np.empty(height, np.int64)
    for shift in range(height):
        _walk(height, shift, path)
        for strip in range(n_strips):
            out = sums[strip * height + shift]
            for r in range(min(height, ny - strip * height)):
                row, into = image[strip * height + r], out[height - path[r] : height - path[r] + nx]
                for x in range(nx):
                    into[x] += row[x]
    return sums


@njit(cache=True)
def _climb(  # type: ignore[no-untyped-def]
    sums, ny, nx, height, top, unit, share, threshold, min_height, found, n, is_last, rooms, turn
):
    """Join strips of ``height`` rows up to ``top``, noting what is significant; return sums, noise share, number, turn.

    ``unit`` is the variance of a cell of unit noise, ``share`` that of sums over their height. Where it ``is_last``,
    nobody needs the sums of the highest strips: they are not kept. Levels lie in ``rooms`` by turns (``turn``: the next
    one), so that memory new to the process is not asked for at each.
    """
    line = np.empty(nx + 2 * top + 1, sums.dtype)
    while height < top:
        n_strips = (ny + 2 * height - 1) // (2 * height)
        is_kept = not (is_last and 2 * height == top)
        n_lower, length = sums.shape[0] // height, nx + 2 * height
        n_rows = n_strips * 2 * height if is_kept else 0
        joined = rooms[turn][: n_rows * length].reshape(n_rows, length)
        turn = 1 - turn
        is_read = 2 * height >= min_height
        if is_read and 2 * height <= max(_LONGEST_MEASURED, min_height):
            share = _noise_share(sums, nx, ny, height, n_lower, unit, share, line[:length])
        for strip in range(n_strips):
            row = strip * 2 * height
            for shift in range(2 * height):
                out = joined[row + shift] if is_kept else line[:length]
                _join(sums, 2 * strip, height, shift, n_lower, out)
                if not is_read:
                    continue
                # While the sums are near the processor.
                n = _scan(out, nx, ny, 2 * height, row, shift, share, threshold, found, n)
                if row + 3 * height <= ny:
                    _join(sums, 2 * strip + 1, height, shift, n_lower, line[:length])
                    n = _scan(line[:length], nx, ny, 2 * height, row + height, shift, share, threshold, found, n)
        sums = joined
        height *= 2
    return sums, share, n, turn


@njit(cache=True)
def _join(sums, strip, height, shift, n_strips, out):  # type: ignore[no-untyped-def]
    """Write the sums of lines through two strips of ``height`` rows, by their start plus twice that height."""
    half, step = shift // 2, (shift + 1) // 2
    width = sums.shape[1]  # columns -height..nx-1 of the strips joined
    lower = sums[strip * height + half]
    if strip + 1 >= n_strips:
        out[:height] = 0
        out[height:] = lower
        return
    upper = sums[(strip + 1) * height + half]
    first = height - step  # where column -height of the upper strip is reached
    out[:first] = 0.0
    out[first:height] = upper[:step]
    both, own, other = out[height : first + width], lower[: width - step], upper[step:]
    for x in range(both.size):
        both[x] = own[x] + other[x]
    out[first + width :] = lower[width - step :]


@njit(cache=True)
def _noise_share(sums, nx, ny, half, n_lower, unit, before, line):  # type: ignore[no-untyped-def]
    """Return the variance of sums of twice ``half`` cells over their number, from the median of their sizes.

    ``sums`` are those of strips of ``half`` rows, which are joined into ``line`` for a sample of the lines.
    """
    height = 2 * half
    n_full = ny // height * height
    if n_full == 0 or nx < 2 * height:
        return before
    n_rows = min(n_full, 96)
    per_row = min(nx - height, 192)
    sample = np.empty(n_rows * per_row, np.float32)
    n = 0
    for k in range(n_rows):
        strip, shift = divmod(k * n_full // n_rows, height)
        _join(sums, 2 * strip, half, shift, n_lower, line)
        for i in range(per_row):
            value = line[height + i * (nx - height) // per_row]
            if value != 0:
                sample[n] = abs(value)
                n += 1
    if n < 100:
        return before
    sigma = np.median(sample[:n]) / 0.6745
    return max(sigma * sigma / height, 0.25 * unit)


@njit(cache=True)
def _largest(values):  # type: ignore[no-untyped-def]
    """Return the largest size of a value; both signs are sought by themselves, many values at once."""
    most, least = values[0], values[0]
    for x in range(1, values.size):
        most, least = max(most, values[x]), min(least, values[x])
    return max(np.int64(most), -np.int64(least))


@njit(cache=True)
def _scan(values, nx, ny, height, row, shift, share, threshold, found, n):  # type: ignore[no-untyped-def]
    """Note the largest sum of each block of columns that is significant for the cells it crosses."""
    first, last = height - shift, nx + height  # lines that touch the image
    least_cells, rows = max(4.0, 0.25 * height), min(height, ny - row)
    if rows < least_cells:
        return n
    # Blocks of lines that cross all rows lie in the middle: one look at all of them is nearly always enough.
    begin, end = first + (shift + _BLOCK - 1) // _BLOCK * _BLOCK, first + nx // _BLOCK * _BLOCK
    is_quiet = begin < end and _largest(values[begin:end]) < threshold * np.sqrt(share * rows)
    lowest = threshold * np.sqrt(share * least_cells)
    for start in range(first, last, _BLOCK):
        if is_quiet and begin <= start < end:
            continue
        stop = min(start + _BLOCK, last)
        largest = _largest(values[start:stop])
        if largest < lowest:
            continue
        # Within a block no line crosses fewer cells than at both of its ends: their number has no dip.
        fewest = _cells_crossed(start - height, shift, height, row, nx, ny)
        fewest = min(fewest, _cells_crossed(stop - 1 - height, shift, height, row, nx, ny))
        if largest < threshold * np.sqrt(share * max(fewest, least_cells)):
            continue
        best, at = 0.0, -1
        for x in range(start, stop):
            cells = _cells_crossed(x - height, shift, height, row, nx, ny)
            if cells < least_cells:
                continue
            value = values[x] / np.sqrt(share * cells)
            if abs(value) > abs(best):
                best, at = value, x
        if abs(best) >= threshold:
            if n < found.shape[0]:
                found[n, 0], found[n, 1], found[n, 2] = height, row, at - height
                found[n, 3], found[n, 4], found[n, 5] = shift, best, values[at]
            n += 1
    return n


@njit(cache=True)
def _cells_crossed(column, shift, height, row, nx, ny):  # type: ignore[no-untyped-def]
    """Return in how many rows a line lies within the image."""
    first, last = 0.0, float(min(height, ny - row) - 1)
    if shift > 0:
        slope = shift / (height - 1.0)
        first = max(first, -column / slope)
        last = min(last, (nx - 1 - column) / slope)
    elif column < 0 or column >= nx:
        return 0.0
    return max(last - first + 1.0, 0.0)
