"""Circular apertures with exact pixel overlap."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.photometry.overlap import disc_pixel_overlap

Float32Image = NDArray[np.float32]
Floats64 = NDArray[np.float64]


class ApertureFluxes(NamedTuple):
    """Sums in apertures, ``[n, n_apertures]``."""

    flux: Floats64
    flux_err: Floats64
    masked_fraction: Floats64
    """Share of the aperture's area that is masked or outside the image."""


def aperture_photometry(
    image: Float32Image,
    variance: Float32Image,
    is_masked: NDArray[np.bool_],
    *,
    x: Floats64,
    y: Floats64,
    radii: Floats64 | tuple[float, ...],
    model: Float32Image | None = None,
) -> ApertureFluxes:
    """Return fluxes in circles of ``radii`` pixels about each position, in the image's unit.

    A masked pixel takes the value of ``model`` where one is given, else that of the pixel opposite the
    centre if that is good, else it is left out. The error is that of the pixels summed, without their covariance.
    """
    n, rings = len(x), np.asarray(radii, dtype=np.float64)
    out = np.zeros((3, n, rings.size))
    filler = np.zeros((0, 0), dtype=np.float32) if model is None else model
    _apertures(
        image, variance, is_masked, filler,
        np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64), rings, out,
    )  # fmt: skip
    return ApertureFluxes(*out)


@njit(cache=True)
def _apertures(
    image: Float32Image,
    variance: Float32Image,
    is_masked: NDArray[np.bool_],
    model: Float32Image,
    x: Floats64,
    y: Floats64,
    radii: Floats64,
    out: Floats64,
) -> None:
    for n in range(x.size):
        if not (np.isfinite(x[n]) and np.isfinite(y[n])):
            out[:, n] = np.nan
            continue
        for k in range(radii.size):
            sums = sum_in_disc(image, variance, is_masked, model, x[n], y[n], radii[k])
            out[0, n, k], out[1, n, k] = sums[0], np.sqrt(sums[1])
            out[2, n, k] = sums[2] / (np.pi * radii[k] ** 2)


@njit(cache=True)
def sum_in_disc(
    image: Float32Image,
    variance: Float32Image,
    is_masked: NDArray[np.bool_],
    model: Float32Image,
    x: float,
    y: float,
    radius: float,
) -> tuple[float, float, float]:
    """Return the sum of the image, of its variance, and the masked area within a disc."""
    ny, nx = image.shape
    flux, var, lost = 0.0, 0.0, 0.0
    has_model = model.size > 0
    for j in range(int(np.floor(y - radius - 0.5)), int(np.ceil(y + radius + 0.5)) + 1):
        for i in range(int(np.floor(x - radius - 0.5)), int(np.ceil(x + radius + 0.5)) + 1):
            area = disc_pixel_overlap(i - x, j - y, radius)
            if area <= 0.0:
                continue
            if j < 0 or i < 0 or j >= ny or i >= nx:
                lost += area
                continue
            if not is_masked[j, i]:
                flux += area * image[j, i]
                var += area * variance[j, i]
                continue
            lost += area
            if has_model:
                flux += area * model[j, i]
                continue
            jj, ii = int(np.rint(2 * y - j)), int(np.rint(2 * x - i))
            if 0 <= jj < ny and 0 <= ii < nx and not is_masked[jj, ii]:
                flux += area * image[jj, ii]
                var += area * variance[jj, ii]
    return flux, var, lost
