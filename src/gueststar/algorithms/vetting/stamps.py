"""What the network sees of a triplet: two views of each cut-out, in units of its noise, alike on every camera.

The near view is the pixels themselves, so that what is sharper than the PSF shows. The wide view has two samples per
FWHM, so that a point source looks the same whatever the seeing and the size of pixels. A fading source is
turned into a brightening one: the difference changes its sign, science and reference change places.
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

INPUT_VERSION = 1
"""Rises when the views change their meaning; networks name the version that they were trained on."""

NEAR_SIDE = 15
"""Pixels of the near view."""
WIDE_SIDE = 21
"""Samples of the wide view, ten FWHM across."""
SAMPLES_PER_FWHM = 2.0
N_PLANES = 4
"""Science, reference, difference, and where the difference has no data."""

_FALLBACK_FWHM = 3.0
_NOISE_STEP = 3
_NEAR = N_PLANES * NEAR_SIDE**2
_WIDE = N_PLANES * WIDE_SIDE**2
N_INPUTS = _NEAR + _WIDE + 2
"""Numbers that describe one candidate: near view, wide view, facts."""

Stamps = NDArray[np.float32]


class StampViews(NamedTuple):
    """Views of ``n`` candidates."""

    near: NDArray[np.float32]
    """``[n, 4, 15, 15]``."""
    wide: NDArray[np.float32]
    """``[n, 4, 21, 21]``."""
    facts: NDArray[np.float32]
    """``[n, 2]``: binary logarithm of the FWHM over three pixels; 1 for a brightening, 0 for a fading source."""

    @property
    def n(self) -> int:
        """Number of candidates."""
        return int(self.facts.shape[0])

    def select(self, index: NDArray[np.bool_] | NDArray[np.intp] | slice) -> StampViews:
        """Return the candidates that an array or slice picks."""
        return StampViews(self.near[index], self.wide[index], self.facts[index])


def stamp_views(
    stamps: Stamps, *, dx: NDArray[np.float64], dy: NDArray[np.float64], fwhm: float, is_positive: NDArray[np.bool_]
) -> StampViews:
    """Return views of stamps ``[n, 3, side, side]`` (science, reference, difference; NaN: no data).

    The candidate lies ``dx``, ``dy`` pixels from the middle of the stamp. ``fwhm`` is that of the difference's PSF,
    pixels; NaN: not known. Each plane is taken over its own noise (robust, about its median), by inverse
    hyperbolic sine; the unit of the pixels does not matter. Without data there is 0.
    """
    n = stamps.shape[0]
    fwhm = fwhm if np.isfinite(fwhm) and fwhm > 0 else _FALLBACK_FWHM
    near = np.zeros((n, N_PLANES, NEAR_SIDE, NEAR_SIDE), dtype=np.float32)
    wide = np.zeros((n, N_PLANES, WIDE_SIDE, WIDE_SIDE), dtype=np.float32)
    positive = np.ascontiguousarray(is_positive, dtype=np.bool_)
    if n:
        offsets = np.stack([dx, dy], axis=1).astype(np.float64)
        _fill_views(
            np.ascontiguousarray(stamps, dtype=np.float32), offsets, positive, fwhm / SAMPLES_PER_FWHM, near, wide
        )
    facts = np.stack([np.full(n, np.log2(fwhm / 3.0)), positive], axis=1).astype(np.float32)
    return StampViews(near, wide, facts)


def packed(views: StampViews) -> NDArray[np.float16]:
    """Return ``[n, N_INPUTS]`` half-precision numbers, to be stored."""
    parts = (views.near.reshape(views.n, _NEAR), views.wide.reshape(views.n, _WIDE), views.facts)
    return np.concatenate(parts, axis=1).astype(np.float16)


def unpacked(rows: NDArray[np.float16]) -> StampViews:
    """Return the views that `packed` packed."""
    n = rows.shape[0]
    near = rows[:, :_NEAR].astype(np.float32).reshape(n, N_PLANES, NEAR_SIDE, NEAR_SIDE)
    wide = rows[:, _NEAR : _NEAR + _WIDE].astype(np.float32).reshape(n, N_PLANES, WIDE_SIDE, WIDE_SIDE)
    return StampViews(near, wide, rows[:, _NEAR + _WIDE :].astype(np.float32))


@nb.njit(cache=True)
def _fill_views(stamps, offsets, is_positive, step, near, wide):  # type: ignore[no-untyped-def]
    n, n_planes, side, _ = stamps.shape
    level, noise = np.empty(n_planes), np.empty(n_planes)
    plane = np.empty((side, side))
    for k in range(n):
        for p in range(n_planes):
            level[p], noise[p] = _level_and_noise(stamps[k, p])
        for p in range(n_planes):
            sign = 1.0
            source = p
            if not is_positive[k]:
                sign = -1.0 if p == 2 else 1.0
                source = 1 - p if p < 2 else p
            for y in range(side):
                for x in range(side):
                    plane[y, x] = sign * (stamps[k, source, y, x] - level[source]) / noise[source]
            _crop(plane, near[k, p], near[k, 3], p == 2)
            _resample(plane, offsets[k, 0], offsets[k, 1], step, wide[k, p], wide[k, 3], p == 2)


@nb.njit(cache=True)
def _level_and_noise(stamp):  # type: ignore[no-untyped-def]
    """Median and 1.4826 times the median absolute deviation of every third pixel of every third row."""
    side = stamp.shape[0]
    values = np.empty(((side + 2) // _NOISE_STEP) ** 2)
    n = 0
    for y in range(0, side, _NOISE_STEP):
        for x in range(0, side, _NOISE_STEP):
            if np.isfinite(stamp[y, x]):
                values[n] = stamp[y, x]
                n += 1
    if n == 0:
        return 0.0, 1.0
    level = np.median(values[:n])
    noise = 1.4826 * np.median(np.abs(values[:n] - level))
    if not noise > 0.0:
        noise = np.std(values[:n])
    return level, noise if noise > 0.0 else 1.0


@nb.njit(cache=True)
def _squeezed(value):  # type: ignore[no-untyped-def]
    return np.arcsinh(value) / 3.0


@nb.njit(cache=True)
def _crop(plane, out, missing, is_difference):  # type: ignore[no-untyped-def]
    side, width = plane.shape[0], out.shape[0]
    first = side // 2 - width // 2
    for j in range(width):
        for i in range(width):
            y, x = first + j, first + i
            value = np.nan
            if 0 <= y < side and 0 <= x < side:
                value = plane[y, x]
            if np.isfinite(value):
                out[j, i] = _squeezed(value)
            elif is_difference:
                missing[j, i] = 1.0


@nb.njit(cache=True)
def _resample(plane, dx, dy, step, out, missing, is_difference):  # type: ignore[no-untyped-def]
    """Sample at steps about (dx, dy) with a triangle as wide as the step (at least a pixel): no aliasing.

    First along x, then along y. Pixels without data have no weight; a sample needs a quarter of the weight of the whole
    triangle. Averaging ``step**2`` pixels lowers the noise of a sample, which is multiplied back.
    """
    side, width, reach = plane.shape[0], out.shape[0], max(step, 1.0)
    total, weights = np.zeros((side, width)), np.zeros((side, width))
    for i in range(width):
        x = side // 2 + dx + (i - width // 2) * step
        x0, x1 = max(int(np.ceil(x - reach)), 0), min(int(np.floor(x + reach)), side - 1)
        for column in range(x0, x1 + 1):
            weight = 1.0 - abs(column - x) / reach
            for row in range(side):
                value = plane[row, column]
                if np.isfinite(value):
                    total[row, i] += weight * value
                    weights[row, i] += weight
    for j in range(width):
        y = side // 2 + dy + (j - width // 2) * step
        y0, y1 = max(int(np.ceil(y - reach)), 0), min(int(np.floor(y + reach)), side - 1)
        for i in range(width):
            sample, known = 0.0, 0.0
            for row in range(y0, y1 + 1):
                weight = 1.0 - abs(row - y) / reach
                sample += weight * total[row, i]
                known += weight * weights[row, i]
            if known > 0.25 * reach**2:
                out[j, i] = _squeezed(sample / known * reach)
            elif is_difference:
                missing[j, i] = 1.0
