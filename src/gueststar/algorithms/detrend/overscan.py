"""The electronic zero of every row, from the pixels that saw no light."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.stats.robust import MAD_TO_SIGMA, clipped_mean, median_and_sigma


@dataclass(frozen=True)
class OverscanConfig:
    """How overscans are read."""

    clip_sigma: float = 4.0
    """Pixels further than this from the median of their row are left out of its mean."""
    column_tolerance: float = 0.25
    """A column whose mean is off by more than this fraction of the noise is left out (settling, deferred charge)."""
    confidence: float = 2.5
    """Rows are averaged while means over wider and narrower windows agree within this many sigma."""
    max_half_window: int = 64
    """Widest smoothing: this many rows on either side."""
    jump_sigma: float = 8.0
    """Steps of the level above this many sigma of their error count as jumps."""
    jump_window: int = 32
    """Rows on either side that are compared for a jump."""


class OverscanStrip(NamedTuple):
    """One overscan or prescan region."""

    pixels: NDArray[np.float32]
    """ADU, rows as in the raw file."""
    first_row: int
    """Row of the light-sensitive pixels beside which its first row lies."""


class BiasJump(NamedTuple):
    """A sudden step of the zero level."""

    row: int
    """First row after the step."""
    step: float
    """Change, ADU."""


class OverscanLevel(NamedTuple):
    """What the overscan says of one amplifier."""

    row_level: NDArray[np.float32]
    """Level to subtract from each row of light-sensitive pixels, ADU."""
    level: float
    """Median level, ADU."""
    read_noise: float
    """Standard deviation of one overscan pixel within its row, ADU; NaN if it cannot be measured."""
    jumps: tuple[BiasJump, ...]


def measure_overscan(
    strips: Sequence[OverscanStrip], *, n_rows: int, config: OverscanConfig = OverscanConfig()
) -> OverscanLevel:
    """Measure the zero level of ``n_rows`` rows from one or more overscan regions.

    Rows are averaged with their neighbours as far as these agree (the intersection of confidence
    intervals, Goldenshluger & Nemirovski 1997), so that a quiet level is smooth and a settling or
    jumping one is followed row by row. Of several strips along the rows the one with the most quiet
    columns is used: prescans and overscans differ by a constant and in how they settle. Strips that
    do not run along the rows (parallel overscan) give a constant level, and only when no other
    exists. Raises ValueError if there is no strip.
    """
    serial = [s for s in strips if s.first_row <= 0 and s.first_row + s.pixels.shape[0] >= n_rows]
    if not serial:
        return _constant_level(strips, n_rows)
    measured = [_measure_strip(strip.pixels[-strip.first_row :][:n_rows], config) for strip in serial]
    best = max(measured, key=lambda strip: strip.n_columns)
    row_error = best.noise / math.sqrt(best.n_columns)
    jumps = find_jumps(best.rows, row_error, window=config.jump_window, n_sigma=config.jump_sigma)
    pieces = np.split(best.rows, [jump.row for jump in jumps])
    smooth = np.concatenate(
        [
            smooth_where_quiet(p, row_error, confidence=config.confidence, max_half_window=config.max_half_window)
            for p in pieces
        ]
    )
    return OverscanLevel(smooth.astype(np.float32), float(np.median(smooth)), best.noise, jumps)


def smooth_where_quiet(
    values: NDArray[np.float64], error: float, *, confidence: float = 2.5, max_half_window: int = 64
) -> NDArray[np.float64]:
    """Average each value over the widest symmetric window whose mean agrees with those of all narrower ones.

    ``error`` is the standard error of one value; ends use the part of the window that exists.
    """
    total = np.concatenate([[0.0], np.cumsum(values - values.mean())])
    index = np.arange(values.size)
    best = values.astype(np.float64).copy()
    low = values - confidence * error
    high = values + confidence * error
    is_growing = np.ones(values.size, dtype=bool)
    half = 1
    while half <= max_half_window and is_growing.any():
        first = np.maximum(index - half, 0)
        last = np.minimum(index + half + 1, values.size)
        mean = (total[last] - total[first]) / (last - first) + values.mean()
        margin = confidence * error / np.sqrt(last - first)
        low = np.maximum(low, mean - margin)
        high = np.minimum(high, mean + margin)
        is_growing &= low <= high
        best[is_growing] = mean[is_growing]
        half = max(half + 1, int(half * 1.5))
    return best


def find_jumps(
    values: NDArray[np.float64], error: float, *, window: int = 32, n_sigma: float = 8.0
) -> tuple[BiasJump, ...]:
    """Return the sudden steps in a series: where medians over ``window`` values before and after differ.

    A step must exceed ``n_sigma`` times its error and also ``n_sigma`` times the usual difference
    of such medians, so that a drifting level is not a series of jumps, and most of it must happen
    within a few rows.
    """
    if values.size < 4 * window:
        return ()
    windows = np.lib.stride_tricks.sliding_window_view(values, window)
    medians = np.median(windows, axis=1)
    steps = medians[window:] - medians[:-window]  # steps[i]: across the edge before value i + window
    usual = MAD_TO_SIGMA * float(np.median(np.abs(steps)))
    limit = n_sigma * max(1.25 * error * math.sqrt(2.0 / window), usual)
    jumps: list[BiasJump] = []
    remaining = np.abs(steps)
    while remaining.size and remaining.max() > limit:
        peak = int(np.argmax(remaining))
        row = _sharpest_edge(values, peak + window, window // 4)
        before, after = values[max(row - 5, 0) : row], values[row : row + 5]
        sharp = float(np.median(after) - np.median(before)) if before.size and after.size else 0.0
        if abs(sharp) > 0.7 * abs(steps[peak]):
            jumps.append(BiasJump(row, float(steps[peak])))
        remaining[max(peak - window, 0) : peak + window] = 0.0
    return tuple(sorted(jumps))


class _StripRows(NamedTuple):
    rows: NDArray[np.float64]
    noise: float
    n_columns: int


def _measure_strip(pixels: NDArray[np.float32], config: OverscanConfig) -> _StripRows:
    """Return the robust mean of each row of a strip, over the columns that agree with one another."""
    row_median = np.median(pixels, axis=1, keepdims=True)
    residual = pixels - row_median
    column_mean = np.array([clipped_mean(residual[:, i]).mean for i in range(residual.shape[1])])
    noise = clipped_mean(residual - column_mean).sigma
    tolerance = max(config.column_tolerance, 5.0 / math.sqrt(pixels.shape[0])) * noise
    is_quiet = np.abs(column_mean - np.median(column_mean)) <= tolerance
    if is_quiet.sum() < max(2, pixels.shape[1] // 4):
        is_quiet[:] = True
    pixels = pixels[:, is_quiet].astype(np.float64) - (column_mean - np.mean(column_mean[is_quiet]))[is_quiet]
    residual = pixels - np.median(pixels, axis=1, keepdims=True)
    is_kept = np.abs(residual) <= config.clip_sigma * max(noise, 0.5)
    n_kept = np.maximum(is_kept.sum(axis=1), 1)
    rows = (pixels * is_kept).sum(axis=1) / n_kept
    n_columns = int(is_quiet.sum())
    scatter = clipped_mean((pixels - rows[:, None])[is_kept]).sigma
    return _StripRows(rows, scatter * math.sqrt(n_columns / max(n_columns - 1, 1)), n_columns)


def _constant_level(strips: Sequence[OverscanStrip], n_rows: int) -> OverscanLevel:
    """Return one level for all rows, from strips that do not run along them."""
    values = [strip.pixels.ravel() for strip in strips]
    if not values or sum(v.size for v in values) == 0:
        raise ValueError("there is no overscan to measure")
    level = clipped_mean(np.concatenate(values))
    differences = np.concatenate([np.diff(strip.pixels, axis=1).ravel() for strip in strips])
    noise = median_and_sigma(differences)[1] / math.sqrt(2.0)
    return OverscanLevel(np.full(n_rows, level.mean, np.float32), level.mean, noise, ())


def _sharpest_edge(values: NDArray[np.float64], row: int, reach: int) -> int:
    """Return the row near ``row`` at which a step function fits best."""
    first = max(row - reach, 1)
    candidates = range(first, min(row + reach + 1, values.size - 1))
    span = slice(max(row - 2 * reach, 0), row + 2 * reach)
    left = span.start

    def gain(edge: int) -> float:
        before, after = values[left:edge], values[edge : span.stop]
        if before.size == 0 or after.size == 0:
            return -math.inf
        return float(before.size * after.size / (before.size + after.size) * (after.mean() - before.mean()) ** 2)

    return max(candidates, key=gain, default=row)
