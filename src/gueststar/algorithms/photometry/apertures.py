"""Circular apertures with exact pixel overlap."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.photometry.overlap import disc_half, fill_disc_weights

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


@njit(cache=True, error_model="numpy")
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
    for k in range(radii.size):
        half = disc_half(radii[k])
        weights, corners = np.empty((2 * half + 1, 2 * half + 1)), np.empty((4, 2 * half + 2))
        for n in range(x.size):
            if not (np.isfinite(x[n]) and np.isfinite(y[n])):
                out[:, n, k] = np.nan
                continue
            sums = sum_in_disc(image, variance, is_masked, model, x[n], y[n], radii[k], weights, corners)
            out[0, n, k], out[1, n, k] = sums[0], np.sqrt(sums[1])
            out[2, n, k] = sums[2] / (np.pi * radii[k] ** 2)


@njit(cache=True, error_model="numpy", _nrt=False)
def sum_in_disc(
    image: Float32Image,
    variance: Float32Image,
    is_masked: NDArray[np.bool_],
    model: Float32Image,
    x: float,
    y: float,
    radius: float,
    weights: Floats64,
    corners: Floats64,
) -> tuple[float, float, float]:
    """Return the sum of the image, of its variance, and the masked area within a disc.

    ``weights`` is a work array of `disc_half` pixels each side of the middle, ``corners`` that of `fill_disc_weights`;
    ``model`` may be of size 0.
    """
    ny, nx = image.shape
    flux, var, lost = 0.0, 0.0, 0.0
    half = weights.shape[0] // 2
    ix, iy = int(np.rint(x)), int(np.rint(y))
    fill_disc_weights(x - ix, y - iy, radius, weights, corners)
    for j in range(-half, half + 1):
        for i in range(-half, half + 1):
            area = weights[half + j, half + i]
            if area <= 1e-12:
                continue
            yy, xx = iy + j, ix + i
            if yy < 0 or xx < 0 or yy >= ny or xx >= nx:
                lost += area
                continue
            if not is_masked[yy, xx]:
                flux += area * image[yy, xx]
                var += area * variance[yy, xx]
                continue
            lost += area
            if model.size > 0:
                flux += area * model[yy, xx]
                continue
            yy, xx = int(np.rint(2 * y - yy)), int(np.rint(2 * x - xx))
            if 0 <= yy < ny and 0 <= xx < nx and not is_masked[yy, xx]:
                flux += area * image[yy, xx]
                var += area * variance[yy, xx]
    return flux, var, lost
