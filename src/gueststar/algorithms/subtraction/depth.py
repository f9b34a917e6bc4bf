"""How much shallower than usual a co-add is from place to place, as its variance tells."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.stats.select import median_of

Float32Image = NDArray[np.float32]
Bools = NDArray[np.bool_]

MOST = 100.0
"""Largest shallowness told: beyond it variances say other things than how many epochs there are."""


class UsualNoise(NamedTuple):
    """The variance of a pixel where an image is as deep as usual: ``sky + per_light * value``."""

    sky: float
    per_light: float


def usual_noise(image: Float32Image, variance: Float32Image, usable: Bools) -> UsualNoise:
    """Return the noise of the usual depth, from ``usable`` pixels of an image; bright ones tell the light's part."""
    part = np.s_[::7, ::3]
    value, noise = image[part][usable[part]], variance[part][usable[part]]
    if value.size < 16:
        return UsualNoise(median_of(variance), 0.0)
    sky = median_of(noise)
    is_bright = value > 20.0 * np.sqrt(sky)
    if np.count_nonzero(is_bright) < 16:
        return UsualNoise(sky, 0.0)
    return UsualNoise(sky, max(0.0, median_of((noise[is_bright] - np.float32(sky)) / value[is_bright])))


def shallowness(image: Float32Image, variance: Float32Image, usual: UsualNoise) -> Float32Image:
    """Return ``N / n - 1`` where ``n`` epochs contribute and usually ``N`` do: between one and ``MOST``.

    The noise of the light itself is known from the ``image``, so that stars do not count as shallow places. What the
    mean PSF (or flux) of ``n`` epochs is off that of all ``N`` has a variance in proportion to this figure, if epochs
    come and go at random: ``sigma^2 (1 / n - 1 / N)``.
    """
    return np.asarray(_shallowness(image, variance, np.float32(usual.sky), np.float32(usual.per_light)))


@njit(cache=True)
def _shallowness(image, variance, sky, per_light):  # type: ignore[no-untyped-def]
    out = np.empty(image.shape, np.float32)
    one, most = np.float32(1), np.float32(MOST)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            expected = sky + per_light * max(image[y, x], np.float32(0))
            out[y, x] = min(max(variance[y, x] / expected - one, one), most)
    return out
