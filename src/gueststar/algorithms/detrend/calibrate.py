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
    gain: float = 1.0,
    bias_variance: NDArray[np.float32] | None = None,
    exposure_s: float = 0.0,
    dark_rate: NDArray[np.float32] | None = None,
    dark_variance: NDArray[np.float32] | None = None,
    flat: NDArray[np.float32] | None = None,
    flat_variance: NDArray[np.float32] | None = None,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Return the variance of a calibrated image (electrons squared): read noise, counts and calibrations.

    The counts that make the Poisson part are not the noisy pixel's own, which would give low pixels more
    weight than high ones and pull every weighted flux down. They are the sky level where
    the 3 x 3 binomial mean shows nothing above it (2.5 sigma), that mean where it does, and the pixel itself where it
    stands out by 10 sigma, for there a mean would blur the cores of stars. Never less than the sky.

    ``image`` and ``sky`` are flat-fielded electrons with the sky in; ``read_variance`` is in electrons
    squared; the master bias is in counts of ``gain`` electrons, the master dark in electrons per second (its charge
    over ``exposure_s`` was subtracted and adds its own noise), the flat relative. The result is written to ``out`` if
    given.
    """
    variance = np.empty_like(image) if out is None else out
    none = np.zeros((0, 0), np.float32)
    _variance(
        variance, image, sky, np.float32(read_variance), np.float32(gain**2),
        none if bias_variance is None else bias_variance,
        np.float32(exposure_s), none if dark_rate is None else dark_rate,
        none if dark_variance is None else dark_variance,
        none if flat is None else flat, none if flat_variance is None else flat_variance,
    )  # fmt: skip
    return variance


@numba.njit(cache=True, error_model="numpy")
def _subtract(image, structure, factor):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    for y in range(ny):
        for x in range(nx):
            image[y, x] -= factor * structure[y, x]


@numba.njit(cache=True, error_model="numpy")
def _divide(image, mask, flat, min_response, bad):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    for y in range(ny):
        for x in range(nx):
            response = flat[y, x]
            if response >= min_response and math.isfinite(response):
                image[y, x] /= response
            else:
                mask[y, x] |= bad


@numba.njit(cache=True, error_model="numpy")
def _variance(  # type: ignore[no-untyped-def]
    variance,
    image,
    sky,
    read_variance,
    gain_squared,
    bias_variance,
    exposure_s,
    dark_rate,
    dark_variance,
    flat,
    flat_variance,
):
    ny, nx = image.shape
    counts, down = np.empty(nx, np.float32), np.empty(nx + 2, np.float32)
    zero, one = np.float32(0.0), np.float32(1.0)
    for y in range(ny):
        _model_counts(image, sky, y, read_variance, down, counts)
        row = variance[y]
        if flat.size > 0:
            for x in range(nx):
                response = flat[y, x] if flat[y, x] > np.float32(0.05) else one
                row[x] = read_variance + counts[x] * response
        else:
            for x in range(nx):
                row[x] = read_variance + counts[x]
        if bias_variance.size > 0:
            for x in range(nx):
                row[x] += gain_squared * bias_variance[y, x]
        if dark_rate.size > 0:
            for x in range(nx):
                row[x] += exposure_s * max(dark_rate[y, x], zero)
        if dark_variance.size > 0:
            for x in range(nx):
                row[x] += exposure_s * exposure_s * dark_variance[y, x]
        if flat_variance.size > 0:
            for x in range(nx):
                row[x] += counts[x] * counts[x] * flat_variance[y, x]
        if flat.size > 0:
            for x in range(nx):
                response = flat[y, x] if flat[y, x] > np.float32(0.05) else one
                row[x] /= response * response
        for x in range(nx):
            row[x] = max(row[x], np.float32(1e-6))


@numba.njit(cache=True, error_model="numpy")
def _model_counts(image, sky, y, read_variance, down, counts):  # type: ignore[no-untyped-def]
    """Fill ``counts`` with what the Poisson noise of row ``y`` is taken from; see `model_variance`.

    ``down`` is a work array with two pixels more than a row.
    """
    ny, nx = image.shape
    above, here, below = image[max(y - 1, 0)], image[y], image[min(y + 1, ny - 1)]
    level = sky[y]
    two = np.float32(2.0)
    for x in range(nx):
        down[x + 1] = above[x] + two * here[x] + below[x]
    down[0], down[nx + 1] = down[1], down[nx]
    for x in range(nx):
        smooth = np.float32(0.0625) * (down[x] + two * down[x + 1] + down[x + 2])
        floor = max(level[x], np.float32(0.0))
        noise = max(floor + read_variance, np.float32(1.0))  # of one pixel, squared
        excess = smooth - level[x]
        is_seen = (excess > 0) & (excess * excess > np.float32(0.879) * noise)  # (2.5 x 0.375)^2
        value = max(smooth, floor) if is_seen else floor
        excess = here[x] - level[x]
        is_bright = (excess > 0) & (excess * excess > np.float32(100.0) * noise)
        counts[x] = max(here[x], floor) if is_bright else value
