"""Tell the noise of the sky from the Poisson noise of the sources in a variance plane."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Float32Image = NDArray[np.float32]


class NoiseModel(NamedTuple):
    """``variance = sky + slope * signal``: what a smooth model of the signal needs to be weighted rightly."""

    sky_variance: Float32Image
    """Variance without the sources' own Poisson noise, ``[y, x]``; positive everywhere."""
    slope: float
    """Variance added per unit of signal (1 for electrons of a single exposure, less for co-adds)."""


def split_variance(
    image: Float32Image, variance: Float32Image, is_masked: NDArray[np.bool_], *, max_pixels: int = 1_500_000
) -> NoiseModel:
    """Return the sky's variance and the slope of variance with signal.

    A variance plane made from the data's own counts is as noisy as the data: low pixels get high weights
    and fluxes come out low by about one electron per pixel. Where the variance is linear in the signal, the
    ratio of differences between neighbouring pixels is the slope, whatever the sky; a plane without the
    sources' noise gives zero. ``is_masked`` pixels are left out; rows are passed over so that about ``max_pixels``
    are looked at.
    """
    step = max(1, image.size // max_pixels)
    slope = _slope(image[::step], variance[::step], is_masked[::step])
    good = variance[::step][~is_masked[::step]]
    floor = 0.2 * float(np.percentile(good[:: max(1, good.size // 50_000)], 5)) if good.size else 1.0
    if not floor > 0:
        floor = 1e-6
    sky = np.empty(image.shape, np.float32)
    _subtract_signal(image, variance, np.float32(slope), np.float32(floor), sky)
    return NoiseModel(sky, slope)


@njit(cache=True, error_model="numpy")
def _subtract_signal(
    image: Float32Image, variance: Float32Image, slope: float, floor: float, sky: Float32Image
) -> None:
    """Write ``variance - slope * image``, at least ``floor``; infinite where that is not a number."""
    infinite = np.float32(np.inf)
    for y in range(sky.shape[0]):
        noise, data, row = variance[y], image[y], sky[y]
        for x in range(row.size):
            value = noise[x] - slope * data[x]
            is_finite = abs(value) < infinite
            row[x] = max(value, floor) if is_finite else infinite


def _slope(image: Float32Image, variance: Float32Image, is_masked: NDArray[np.bool_]) -> float:
    n = _count_steps(image, variance, is_masked)
    if n < 30:
        return 0.0
    ratio = np.empty(-(-n // max(1, n // 100_000)), np.float32)
    _ratios_of_steps(image, variance, is_masked, max(1, n // 100_000), ratio)
    return float(np.clip(np.median(ratio), 0.0, 1e3))


@njit(cache=True, error_model="numpy")
def _count_steps(image: Float32Image, variance: Float32Image, is_masked: NDArray[np.bool_]) -> int:
    """Return how many pixels are a step in the signal, beyond their noise, from the one before them in the row."""
    n, zero = 0, np.float32(0)
    for y in range(image.shape[0]):
        data, noise, masked = image[y], variance[y], is_masked[y]
        before, dark, own, hidden, level = data[:-1], masked[:-1], data[1:], masked[1:], noise[1:]
        for x in range(own.size):
            step = own[x] - before[x]
            is_seen = (not (dark[x] | hidden[x])) & (min(own[x], before[x]) > zero)
            n += is_seen & (step * step > max(level[x], zero))
    return n


@njit(cache=True, error_model="numpy")
def _ratios_of_steps(
    image: Float32Image, variance: Float32Image, is_masked: NDArray[np.bool_], stride: int, ratio: NDArray[np.float32]
) -> None:
    """Write, of every ``stride``-th step, by how much the variance changes with the signal."""
    n, zero = 0, np.float32(0)
    for y in range(image.shape[0]):
        for x in range(1, image.shape[1]):
            own, before = image[y, x], image[y, x - 1]
            step = own - before
            is_seen = not (is_masked[y, x] or is_masked[y, x - 1]) and min(own, before) > zero
            if is_seen and step * step > max(variance[y, x], zero):
                if n % stride == 0:
                    ratio[n // stride] = (variance[y, x] - variance[y, x - 1]) / step
                n += 1
