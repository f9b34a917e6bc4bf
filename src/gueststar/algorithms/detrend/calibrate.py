"""Removal of bias structure, dark current and unequal response, and the variance that is left."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

from gueststar.core.bits import MaskPlane


def subtract_in_place(image: NDArray[np.float32], structure: NDArray[np.float32], *, factor: float) -> None:
    """Subtract ``factor`` times a calibration frame: bias (factor: gain) or dark rate (factor: exposure time)."""
    _subtract(image, structure, np.float32(factor))


def divide_by_flat_in_place(
    image: NDArray[np.float32], mask: NDArray[np.int32], flat: NDArray[np.float32], *, min_response: float = 0.05
) -> None:
    """Divide by the relative response; where it is below ``min_response`` or not finite the pixel is marked BAD.

    Such pixels keep their undivided value.
    """
    _divide(image, mask, flat, np.float32(min_response), int(MaskPlane.BAD))


def model_variance(
    image: NDArray[np.float32],
    sky: NDArray[np.float32],
    *,
    read_variance: float,
    dark_electrons: NDArray[np.float32] | None = None,
    flat: NDArray[np.float32] | None = None,
    calibration_variance: NDArray[np.float32] | None = None,
    flat_variance: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Return the variance of a calibrated image (electrons squared): read noise, counts and calibrations.

    The counts that make the Poisson part are not the noisy pixel's own, which would give low pixels more
    weight than high ones and pull every weighted flux down. They are the sky level where
    the 3 x 3 binomial mean shows nothing above it (2.5 sigma), that mean where it does, and the pixel itself where it
    stands out by 10 sigma, for there a mean would blur the cores of stars. Never less than the sky.

    ``image`` and ``sky`` are flat-fielded electrons with the sky in; ``read_variance`` is in electrons
    squared; ``dark_electrons`` were subtracted and add their noise; ``calibration_variance`` is that of
    bias and dark, in electrons squared before flat-fielding; ``flat_variance`` that of the flat.
    """
    nothing = np.zeros((0, 0), np.float32)
    return _variance(
        image, sky, np.float32(read_variance),
        nothing if dark_electrons is None else dark_electrons,
        nothing if flat is None else flat,
        nothing if calibration_variance is None else calibration_variance,
        nothing if flat_variance is None else flat_variance,
    )  # fmt: skip


@numba.njit(cache=True)
def _subtract(image, structure, factor):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    for y in range(ny):
        for x in range(nx):
            image[y, x] -= factor * structure[y, x]


@numba.njit(cache=True)
def _divide(image, mask, flat, min_response, bad):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    for y in range(ny):
        for x in range(nx):
            response = flat[y, x]
            if response >= min_response and math.isfinite(response):
                image[y, x] /= response
            else:
                mask[y, x] |= bad


@numba.njit(cache=True)
def _variance(image, sky, read_variance, dark, flat, calibration, flat_variance):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    has_dark, has_flat = dark.size > 0, flat.size > 0
    has_calibration, has_flat_variance = calibration.size > 0, flat_variance.size > 0
    variance = np.empty((ny, nx), np.float32)
    one = np.float32(1.0)
    for y in range(ny):
        above, below = max(y - 1, 0), min(y + 1, ny - 1)
        for x in range(nx):
            left, right = max(x - 1, 0), min(x + 1, nx - 1)
            smooth = np.float32(0.0625) * (
                image[above, left] + image[above, right] + image[below, left] + image[below, right]
                + np.float32(2.0) * (image[above, x] + image[below, x] + image[y, left] + image[y, right])
                + np.float32(4.0) * image[y, x]
            )  # fmt: skip
            level = max(sky[y, x], np.float32(0.0))
            floor = max(level + read_variance, one)  # of one pixel; its root is near enough the noise
            counts = level
            excess = smooth - sky[y, x]
            if excess > 0 and excess * excess > np.float32(0.879) * floor:  # (2.5 x 0.375)^2
                counts = max(smooth, level)
            excess = image[y, x] - sky[y, x]
            if excess > 0 and excess * excess > np.float32(100.0) * floor:
                counts = max(image[y, x], level)
            response = one
            if has_flat and flat[y, x] > np.float32(0.05):
                response = flat[y, x]
            total = read_variance + counts * response
            if has_dark:
                total += max(dark[y, x], np.float32(0.0))
            if has_calibration:
                total += calibration[y, x]
            if has_flat_variance:
                total += counts * counts * flat_variance[y, x]
            variance[y, x] = max(total, np.float32(1e-6)) / (response * response)
    return variance
