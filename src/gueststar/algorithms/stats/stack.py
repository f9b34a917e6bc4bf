"""Robust averages of many frames, a band of rows at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

ReadBand = Callable[[int, slice], NDArray[np.float32]]
"""Returns the given rows of the frame of the given number."""


class FrameNoise(NamedTuple):
    """Variance of a pixel of one frame as a function of its true value: ``constant + slope * max(value, 0)``."""

    constant: float
    """Variance at zero light (read noise squared), in the square of the frame's unit."""
    slope: float = 0.0
    """Poisson term: variance per unit of value (1 / gain for counts, over the scale for scaled frames)."""
    relative: float = 0.0
    """Scatter in proportion to the value that is no noise (scaling, twilight gradients); widens the clipping only."""


class Stack(NamedTuple):
    """Average of frames."""

    mean: NDArray[np.float32]
    variance: NDArray[np.float32]
    """Of the mean; where less than half of the frames agree, from their scatter."""
    n_used: NDArray[np.int16]
    n_rejected: NDArray[np.int16]

    def put(self, part: tuple[slice, slice], piece: Stack) -> None:
        """Write the stack of a part of the image into this one."""
        self.mean[part], self.variance[part] = piece.mean, piece.variance
        self.n_used[part], self.n_rejected[part] = piece.n_used, piece.n_rejected


def stack_frames(
    read_band: ReadBand,
    *,
    shape: tuple[int, int],
    noise: list[FrameNoise],
    n_sigma: float = 4.0,
    memory_mb: float = 512.0,
) -> Stack:
    """Average frames pixel by pixel, leaving out values too far from the median for their noise.

    ``noise`` has one entry a frame and sets both the weights and the limit of clipping: ``n_sigma`` times
    the frame's noise at the pixel's typical value (the median, then the mean of what was kept), so that bright
    pixels are not clipped for being bright and no value sets its own weight. Non-finite values count as missing. Where
    fewer than half of the values agree with their median, that median is returned with the variance
    of their scatter. Pixels without any value are 0 with variance 0 and ``n_used`` 0.

    At most ``memory_mb`` of frames are held at once: each band of rows is read from all frames, then averaged.
    """
    if not noise:
        raise ValueError("there is no frame to stack")
    stack = empty_stack(shape)
    for band in row_bands(shape, n_frames=len(noise), memory_mb=memory_mb):
        values = np.stack([read_band(i, band) for i in range(len(noise))])
        stack.put((band, slice(None)), stack_values(values, noise=noise, n_sigma=n_sigma))
    return stack


def stack_values(values: NDArray[np.float32], *, noise: list[FrameNoise], n_sigma: float = 4.0) -> Stack:
    """Average frames that are in memory, ``[frame, y, x]``; otherwise as `stack_frames`."""
    stack = empty_stack((values.shape[1], values.shape[2]))
    _stack_in_place(values, np.array(noise, dtype=np.float64), n_sigma, *stack)
    return stack


def empty_stack(shape: tuple[int, int]) -> Stack:
    """Return a stack in which no frame has been used."""
    return Stack(
        np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.int16), np.zeros(shape, np.int16)
    )


def row_bands(shape: tuple[int, int], *, n_frames: int, memory_mb: float) -> list[slice]:
    """Divide the rows so that one band of ``n_frames`` float32 frames fits in ``memory_mb``."""
    ny, nx = shape
    rows = max(1, min(ny, int(memory_mb * 2**20 / (4 * nx * max(n_frames, 1)))))
    return [slice(first, min(first + rows, ny)) for first in range(0, ny, rows)]


@numba.njit(cache=True)
def _stack_in_place(values, noise, n_sigma, mean, variance, n_used, n_rejected):  # type: ignore[no-untyped-def]
    n_frames, ny, nx = values.shape
    kept_values, kept_weights = np.empty(n_frames), np.empty(n_frames)
    constants, slopes, relatives = noise[:, 0], noise[:, 1], noise[:, 2]
    for y in range(ny):
        for x in range(nx):
            n = 0
            for i in range(n_frames):
                value = values[i, y, x]
                if np.isfinite(value):
                    kept_values[n] = value
                    kept_weights[n] = 1.0 / max(constants[i] + slopes[i] * max(value, 0.0), 1e-30)
                    n += 1
            if n == 0:
                continue
            middle = _weighted_median(kept_values[:n], kept_weights[:n])
            centre, kept = middle, 0
            for _ in range(3):
                total, weights, weighted_variance, kept = 0.0, 0.0, 0.0, 0
                level = max(centre, 0.0)
                for i in range(n_frames):
                    value = values[i, y, x]
                    expected = max(constants[i] + slopes[i] * level, 1e-30)
                    limit = n_sigma**2 * (expected + (relatives[i] * level) ** 2)
                    if np.isfinite(value) and (value - centre) ** 2 <= limit:
                        weight = 1.0 / expected
                        total += weight * value
                        weights += weight
                        weighted_variance += weight * weight * expected
                        kept += 1
                if 2 * kept < n or kept == 0:
                    break
                moved = abs(total / weights - centre)
                centre = total / weights
                if moved < 1e-3 * np.sqrt(1.0 / weights):
                    break
            n_rejected[y, x] = n - kept
            n_used[y, x] = kept
            if 2 * kept >= n and kept > 0:
                mean[y, x] = centre
                variance[y, x] = weighted_variance / weights**2
            else:
                mean[y, x] = middle
                spread = 1.4826 * np.median(np.abs(kept_values[:n] - middle))
                variance[y, x] = 1.5708 * spread**2 / n


@numba.njit(cache=True)
def _weighted_median(values, weights):  # type: ignore[no-untyped-def]
    """Return the value below and above which half of the weight lies (the mean of two where they tie); sorts both."""
    for i in range(1, values.size):
        value, weight = values[i], weights[i]
        j = i - 1
        while j >= 0 and values[j] > value:
            values[j + 1], weights[j + 1] = values[j], weights[j]
            j -= 1
        values[j + 1], weights[j + 1] = value, weight
    half = 0.5 * np.sum(weights)
    below = 0.0
    for i in range(values.size):
        below += weights[i]
        if below > half * (1.0 + 1e-9):
            return values[i]
        if below > half * (1.0 - 1e-9) and i + 1 < values.size:
            return 0.5 * (values[i] + values[i + 1])
    return values[-1]
