"""The noise of what two images leave of their sources: registration, and power that residuals scatter about them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.subtraction.convolve import add_convolved_in_place, gaussian
from gueststar.algorithms.subtraction.depth import UsualNoise

Float32Image = NDArray[np.float32]
Spread = tuple[float, float, float]
"""Width (pixels) over which power is spread, the share of it everywhere, and that where the reference is poor."""

_WIDE = 1.5
"""Width, pixels, from which on power is spread on pixels twice as large."""
_SMOOTHED = 1.0
"""Mean square, pixels, by which the way to such pixels and back spreads by itself."""
_ROOM = 8
"""Least pixels around the part that is wanted for that."""


class MismatchNoise(NamedTuple):
    """How much worse than photon noise the two images match, at one place of the image."""

    shift_x: float
    """Rms residual shift between the images, pixels."""
    shift_y: float
    widths: tuple[float, ...]
    """Widths (sigma, pixels) of the Gaussians over which a source's residual power is spread."""
    powers: tuple[float, ...]
    """Their weights: residual power as a fraction of the power of the filtered reference."""


class RegionNoise(NamedTuple):
    """Mismatch over an image: the common one, and more where the reference is poor (few epochs)."""

    common: MismatchNoise
    poor: MismatchNoise | None = None
    """Residual power, of the same widths, beyond the common one where the reference is poor, to be multiplied by its
    shallowness there."""
    is_poor: NDArray[np.bool_] | None = None
    """``[y, x]``; None: nowhere."""
    usual: UsualNoise = UsualNoise(1.0, 0.0)
    """Noise of the reference where it is not poor."""


def mismatch_variance(
    s_r: Float32Image,
    noise: RegionNoise,
    times: Float32Image | None,
    *,
    corner: tuple[int, int],
    shape: tuple[int, int],
) -> Float32Image:
    """Return the variance of the score by registration noise and residual power, for the part that is wanted.

    That part has ``shape`` and begins at ``corner`` (y, x) of the filtered reference ``s_r``, whose square is the power
    that is spread. Where the reference is poor, ``times`` as much of its own residual power is added (None: nowhere).
    Power that is spread widely is spread on pixels twice as large.
    """
    common = noise.common
    own = (0.0,) * len(common.powers) if noise.poor is None or times is None else noise.poor.powers
    spreads = [row for row in zip(common.widths, common.powers, own, strict=True) if max(row[1:]) > 0]
    is_wide = [row[0] >= _WIDE and min(corner) >= _ROOM for row in spreads]
    often = np.zeros((0, 0), np.float32) if times is None else times
    variance = np.zeros(shape, np.float32)
    narrow = [row for row, far in zip(spreads, is_wide, strict=True) if row[0] > 0 and not far]
    for width, share, more in narrow:
        spread = np.zeros(shape, np.float32)
        add_convolved_in_place(spread, s_r * s_r, gaussian(width, 1.0, min(corner)), corner)
        _add_weighted_in_place(variance, spread, often, np.float32(share), np.float32(more))
    wide = _spread_widely(s_r, [row for row, far in zip(spreads, is_wide, strict=True) if far], corner, shape)
    at_place = np.array([sum(row[k] for row in spreads if row[0] == 0) for k in (1, 2)], np.float32)
    shifts = np.array([common.shift_x**2, common.shift_y**2], np.float32)
    _add_rest_in_place(variance, s_r, *corner, shifts, at_place, often, *wide)
    return variance


def _spread_widely(
    s_r: Float32Image, spreads: list[Spread], corner: tuple[int, int], shape: tuple[int, int]
) -> tuple[Float32Image, Float32Image]:
    """Return the power spread, common and own, on pixels twice as large; of size 0 if there is none.

    The wanted part begins in the second row and column.
    """
    none = np.zeros((0, 0), np.float32)
    if not spreads:
        return none, none
    begin, size = (corner[0] // 2 - 1, corner[1] // 2 - 1), ((shape[0] + 1) // 2 + 2, (shape[1] + 1) // 2 + 2)
    power = _mean_power(s_r, corner[0] % 2, corner[1] % 2)
    room = min(*begin, power.shape[0] - begin[0] - size[0], power.shape[1] - begin[1] - size[1])
    common, own = np.zeros(size, np.float32), np.zeros(size, np.float32)
    for width, share, more in spreads:
        spread = np.zeros(size, np.float32)
        kernel = gaussian(0.5 * float(np.sqrt(width**2 - _SMOOTHED)), 1.0, room)
        add_convolved_in_place(spread, power, kernel, begin)
        common += np.float32(share) * spread
        own += np.float32(more) * spread
    return common, own


@njit(cache=True, error_model="numpy")
def _mean_power(s_r, y0, x0):  # type: ignore[no-untyped-def]
    """Return the mean squares of 2 x 2 pixels, the first of them at (y0, x0)."""
    ny, nx, quarter = (s_r.shape[0] - y0) // 2, (s_r.shape[1] - x0) // 2, np.float32(0.25)
    out = np.empty((ny, nx), np.float32)
    for j in range(ny):
        low, high, row = s_r[y0 + 2 * j, x0:], s_r[y0 + 2 * j + 1, x0:], out[j]
        for i in range(nx):
            a, b, c, d = low[2 * i], low[2 * i + 1], high[2 * i], high[2 * i + 1]
            row[i] = quarter * (a * a + b * b + c * c + d * d)
    return out


@njit(cache=True)
def _add_weighted_in_place(variance, spread, times, share, more):  # type: ignore[no-untyped-def]
    """Add ``share`` of a plane and ``more`` of it so many ``times``."""
    for y in range(variance.shape[0]):
        row, plane = variance[y], spread[y]
        for x in range(row.size):
            row[x] += share * plane[x]
        if times.size > 0:
            often = times[y]
            for x in range(row.size):
                row[x] += more * often[x] * plane[x]


@njit(cache=True, error_model="numpy")
def _add_rest_in_place(variance, s_r, y0, x0, shifts, at_place, times, wide, wide_own):  # type: ignore[no-untyped-def]
    """Add what shifts make of the gradient of S_r, the power that stays in its place, and what is spread widely.

    ``variance`` begins at (y0, x0) of S_r.
    """
    half, n = np.float32(0.5), variance.shape[1]
    vx, vy, share, more = shifts[0], shifts[1], at_place[0], at_place[1]
    line, extra = np.empty(wide.shape[1], np.float32), np.zeros(n, np.float32)
    for y in range(variance.shape[0]):
        row, own = variance[y], s_r[y0 + y, x0 : x0 + n]
        left, right = s_r[y0 + y, x0 - 1 : x0 - 1 + n], s_r[y0 + y, x0 + 1 : x0 + 1 + n]
        above, below = s_r[y0 + y + 1, x0 : x0 + n], s_r[y0 + y - 1, x0 : x0 + n]
        for x in range(n):
            gx, gy = half * (right[x] - left[x]), half * (above[x] - below[x])
            row[x] += vx * gx * gx + vy * gy * gy + share * own[x] * own[x]
        if wide.size > 0:
            _blend_rows(wide, y, line)
            _add_doubled(line, row)
        if times.size > 0:
            often = times[y]
            for x in range(n):
                extra[x] = more * own[x] * own[x]
            if wide.size > 0:
                _blend_rows(wide_own, y, line)
                _add_doubled(line, extra)
            for x in range(n):
                row[x] += often[x] * extra[x]


@njit(cache=True)
def _blend_rows(wide, y, line):  # type: ignore[no-untyped-def]
    """Write what pixels twice as large hold at row ``y``, which begins in the second of them, linear between them."""
    near, far = wide[y // 2 + 1], wide[y // 2 + 2 * (y % 2)]
    for i in range(line.size):
        line[i] = np.float32(0.75) * near[i] + np.float32(0.25) * far[i]


@njit(cache=True)
def _add_doubled(line, row):  # type: ignore[no-untyped-def]
    """Add a line of pixels twice as large, linear between them; the row begins in the second of them."""
    near, far = np.float32(0.75), np.float32(0.25)
    for i in range(row.size // 2):
        middle = near * line[i + 1]
        row[2 * i] += middle + far * line[i]
        row[2 * i + 1] += middle + far * line[i + 2]
    if row.size % 2:
        last = row.size // 2
        row[2 * last] += near * line[last + 1] + far * line[last]
