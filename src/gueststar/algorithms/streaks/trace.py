"""A rough segment laid on what there is in the score image: its line, and how far it goes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Float32Image = NDArray[np.float32]


class Segment(NamedTuple):
    """A straight segment between two points, pixels."""

    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def length(self) -> float:
        """Pixels."""
        return float(np.hypot(self.x2 - self.x1, self.y2 - self.y1))

    @property
    def direction(self) -> tuple[float, float]:
        """Unit vector from the first end to the second."""
        length = max(self.length, 1e-9)
        return (self.x2 - self.x1) / length, (self.y2 - self.y1) / length

    def moved(self, *, start: float, end: float, across_start: float = 0.0, across_end: float = 0.0) -> Segment:
        """Return the segment with its ends moved along it (from the start) and across it, pixels."""
        ux, uy = self.direction
        return Segment(
            self.x1 + start * ux - across_start * uy, self.y1 + start * uy + across_start * ux,
            self.x1 + end * ux - across_end * uy, self.y1 + end * uy + across_end * ux,
        )  # fmt: skip


def trace(
    score: Float32Image, segment: Segment, *, sign: float, reach: float, clip: float = 5.0, least: float = 4.0
) -> Segment:
    """Return the segment that stands out most near a rough one: aligned to about a pixel, with its true extent.

    Its ends are moved across it by up to ``reach`` pixels, and along it as far as the image goes; score pixels count
    for at most ``clip``. ``least`` is the shortest extent, pixels.
    """
    coarse = max(1.0, reach / 4.0)
    for radius, step in ((reach, coarse), (coarse, 0.5)):
        segment = _aligned(score, segment, sign, radius, step, clip)
        for _ in range(6):
            longer = _extent(score, segment, sign, clip, least)
            is_settled = longer.length < 1.5 * segment.length
            segment = longer
            if is_settled:
                break
            segment = _aligned(score, segment, sign, min(reach, 3.0), 1.0, clip)
    return _aligned(score, segment, sign, 0.75, 0.25, clip)


def _aligned(score: Float32Image, segment: Segment, sign: float, reach: float, step: float, clip: float) -> Segment:
    offsets = np.arange(-reach, reach + 0.5 * step, step)
    best = _best_offsets(score, segment.x1, segment.y1, segment.x2, segment.y2, offsets, sign, clip)
    return segment.moved(start=0.0, end=segment.length, across_start=best[0], across_end=best[1])


def _extent(score: Float32Image, segment: Segment, sign: float, clip: float, least: float) -> Segment:
    length = segment.length
    margin = max(2.0 * length, 48.0)
    ux, uy = segment.direction
    step = max(1.0, (length + 2.0 * margin) / 512.0)
    n = int((length + 2.0 * margin) / step) + 1
    sums, counts = _along(score, segment.x1 - margin * ux, segment.y1 - margin * uy, ux, uy, step, n, sign, clip)
    first, last = _best_interval(sums, counts, max(1, int(least / step)))
    return segment.moved(start=first * step - margin, end=last * step - margin)


@njit(cache=True, error_model="numpy", inline="always")
def score_at(score, x, y):  # type: ignore[no-untyped-def]
    """Return the score between pixels, bilinear; 0 outside."""
    ny, nx = score.shape
    i, j = int(np.floor(x)), int(np.floor(y))
    if i < 0 or j < 0 or i + 1 >= nx or j + 1 >= ny:
        return 0.0
    fx, fy = x - i, y - j
    return (1 - fy) * ((1 - fx) * score[j, i] + fx * score[j, i + 1]) + fy * (
        (1 - fx) * score[j + 1, i] + fx * score[j + 1, i + 1]
    )


@njit(cache=True, error_model="numpy")
def _best_offsets(score, x1, y1, x2, y2, offsets, sign, clip):  # type: ignore[no-untyped-def]
    """Return by how much the ends are to move across the segment for the largest sum along it."""
    length = max(np.hypot(x2 - x1, y2 - y1), 1e-6)
    ux, uy = (x2 - x1) / length, (y2 - y1) / length
    n = max(int(length), 2)
    skip = max(1, n // 600)
    best, first, last = -np.inf, 0.0, 0.0
    for a in offsets:
        for b in offsets:
            total = 0.0
            for k in range(0, n + 1, skip):
                s = k / n
                across = a + s * (b - a)
                value = sign * score_at(score, x1 + s * length * ux - across * uy, y1 + s * length * uy + across * ux)
                total += min(max(value, -clip), clip)
            total -= 1e-6 * (a * a + b * b)
            if total > best:
                best, first, last = total, a, b
    return first, last


@njit(cache=True, error_model="numpy")
def _along(score, x, y, ux, uy, step, n, sign, clip):  # type: ignore[no-untyped-def]
    sums, counts = np.zeros(n), np.zeros(n)
    per = max(int(np.ceil(step)), 1)
    for k in range(n):
        for j in range(per):
            t = (k + (j + 0.5) / per) * step
            value = sign * score_at(score, x + t * ux, y + t * uy)
            if value != 0.0:
                sums[k] += min(max(value, -clip), clip) / per
                counts[k] += 1.0 / per
    return sums, counts


@njit(cache=True, error_model="numpy")
def _best_interval(sums, counts, least):  # type: ignore[no-untyped-def]
    """Return the half-open interval with the largest sum over the root of its number of known pixels."""
    n = sums.size
    total, known = np.zeros(n + 1), np.zeros(n + 1)
    for k in range(n):
        total[k + 1] = total[k] + sums[k]
        known[k + 1] = known[k] + counts[k]
    best, first, last = -np.inf, 0, n
    for a in range(n):
        if sums[a] <= 0.0:
            continue
        most = -1.0
        for b in range(a + least, n + 1):  # without a jump, so that several are looked at at once
            gain = total[b] - total[a]
            significance = gain * gain / max(known[b] - known[a], 1.0)
            is_one = (sums[b - 1] > 0.0) & (gain > 0.0)
            most = max(most, significance if is_one else -1.0)
        if most <= best:
            continue
        for b in range(a + least, n + 1):
            gain = total[b] - total[a]
            if sums[b - 1] > 0.0 and gain > 0.0 and gain * gain / max(known[b] - known[a], 1.0) == most:
                best, first, last = most, a, b
                break
    return first, last
