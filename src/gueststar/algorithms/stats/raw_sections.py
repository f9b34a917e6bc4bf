"""What raw pixels tell of an amplifier: level, noise, gain, and light where there should be none."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.stats.robust import clipped_mean

Pixels = NDArray[np.float32]

_LINE_SIGMAS = 8.0
_BLOCK = 64


class SectionStatistics(NamedTuple):
    """A section of raw pixels in numbers, ADU."""

    level: float
    """Clipped mean."""
    noise: float
    """Clipped standard deviation of a pixel."""
    highest: float
    n_at_highest: int
    """Pixels with just the highest value; many where the converter or the well ends."""


def measure_section(pixels: Pixels) -> SectionStatistics:
    """Return level, noise and highest value of a section [y, x]; non-finite pixels are left out."""
    mean, sigma, _ = clipped_mean(pixels)
    finite = pixels[np.isfinite(pixels)]
    highest = float(finite.max()) if finite.size else float("nan")
    return SectionStatistics(mean, sigma, highest, int(np.count_nonzero(finite == highest)))


def excess_of_lines(overscan: Pixels) -> NDArray[np.float64]:
    """Return by how much each line along an overscan's long side stands above the others, ADU; 0 where insignificant.

    A line is a column of an overscan that is taller than wide, else a row. Light in it means that the
    section is misplaced; a little in the first line is charge left behind by the transfer.
    """
    along = 0 if overscan.shape[0] >= overscan.shape[1] else 1
    lines = np.median(overscan, axis=along).astype(np.float64)
    _, sigma, _ = clipped_mean(overscan)
    excess = lines - np.median(lines)
    threshold = max(1.0, _LINE_SIGMAS * 1.25 * sigma / np.sqrt(overscan.shape[along]))
    return np.where(excess > threshold, excess, 0.0)


def unexposed_edges(lit: Pixels, *, least: float = 0.05) -> dict[str, int]:
    """Return how many lines at each edge ("left", "right", "bottom", "top") got no light.

    ``lit`` is bias-subtracted; no light is less than ``least`` of what the median pixel got. Edges without such
    lines are left out. Every fourth pixel of a line is looked at.
    """
    limit = least * float(np.median(lit[::4, ::4]))
    columns, rows = np.median(lit[::4], axis=0) < limit, np.median(lit[:, ::4], axis=1) < limit
    counts = {
        "left": _leading(columns), "right": _leading(columns[::-1]),
        "bottom": _leading(rows), "top": _leading(rows[::-1]),
    }  # fmt: skip
    return {edge: count for edge, count in counts.items() if count}


def _leading(is_dark: NDArray[np.bool_]) -> int:
    return int(is_dark.size if is_dark.all() else np.argmin(is_dark))


def photon_transfer_gain(first: Pixels, second: Pixels, *, noise: float) -> float:
    """Return electrons per ADU from two equally lit frames [y, x], bias-subtracted ADU.

    ``noise`` is the read noise in ADU. The variance of the difference, with the second frame scaled to the first,
    is compared with the level in blocks of 64 x 64 pixels; the median of the blocks is returned. NaN where none is lit.
    """
    ny, nx = (size // _BLOCK * _BLOCK for size in first.shape)
    gains = []
    for y in range(0, ny, _BLOCK):
        for x in range(0, nx, _BLOCK):
            a = first[y : y + _BLOCK, x : x + _BLOCK].astype(np.float64)
            b = second[y : y + _BLOCK, x : x + _BLOCK].astype(np.float64)
            gains.append(_block_gain(a, b, noise))
    finite = np.array([gain for gain in gains if np.isfinite(gain)])
    return float(np.median(finite)) if finite.size else float("nan")


def _block_gain(a: NDArray[np.float64], b: NDArray[np.float64], noise: float) -> float:
    mean_a, mean_b = float(np.median(a)), float(np.median(b))
    if min(mean_a, mean_b) < 20.0 * noise:
        return float("nan")
    ratio = mean_a / mean_b
    _, sigma, _ = clipped_mean(a - ratio * b)
    variance = sigma**2 - noise**2 * (1.0 + ratio**2)
    return (mean_a + ratio**2 * mean_b) / variance if variance > 0 else float("nan")
