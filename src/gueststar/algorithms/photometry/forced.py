"""PSF photometry at given places."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.psf.spline import SplinePsf, make_scratch, render, shifted_stamps

Float32Image = NDArray[np.float32]
Floats64 = NDArray[np.float64]


class ForcedFluxes(NamedTuple):
    """Fluxes at given places, arrays of one length, in the image's unit."""

    flux: Floats64
    """NaN where no usable pixel lies under the PSF."""
    flux_err: Floats64
    chi2: Floats64
    """Reduced chi-square of the pixels within the radius; NaN with fewer than two."""
    n_masked: NDArray[np.int32]
    """Masked pixels within the radius (and pixels beyond the image)."""


def forced_psf_photometry(
    image: Float32Image,
    variance: Float32Image,
    is_masked: NDArray[np.bool_],
    stamps: NDArray[np.float32],
    *,
    x: Floats64,
    y: Floats64,
    radius: float = 0.0,
) -> ForcedFluxes:
    """Return least-squares PSF fluxes at fixed positions, each on its own, with no local background.

    ``stamps`` are ``[n, side, side]`` PSFs about each position's nearest pixel, centred at the position itself (from
    `stamps_at` or `Psf.placed_stamps`, not `Psf.stamps`), normalised to the total flux. Weights are
    ``1 / variance``, which should not hold the source's own Poisson noise (see
    `gueststar.algorithms.detection.noise`). ``radius`` (pixels) limits the pixels used; 0 uses the whole stamp. Masked
    pixels, and those with a variance that is not positive and finite, are left out.
    """
    n = len(x)
    if len(stamps) != n:
        raise ValueError(f"{len(stamps)} stamps for {n} positions")
    out = np.full((3, n), np.nan)
    n_masked = np.zeros(n, dtype=np.int32)
    if n:
        reach = float(radius) if radius > 0 else 2.0 * stamps.shape[1]
        _forced(
            image, variance, is_masked, np.ascontiguousarray(stamps, dtype=np.float32),
            np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64), reach, out, n_masked,
        )  # fmt: skip
    return ForcedFluxes(out[0], out[1], out[2], n_masked)


def stamps_at(psf: SplinePsf, *, x: Floats64, y: Floats64, radius: int = 0) -> NDArray[np.float32]:
    """Return PSF stamps at (x, y), centred on the sub-pixel place within the nearest pixel, for forced photometry.

    ``radius`` (pixels) crops them; 0 keeps the model's size.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    return shifted_stamps(psf, x=x, y=y, dx=x - np.rint(x), dy=y - np.rint(y), radius=radius)


@njit(cache=True, error_model="numpy")
def _forced(
    image: Float32Image,
    variance: Float32Image,
    is_masked: NDArray[np.bool_],
    stamps: NDArray[np.float32],
    x: Floats64,
    y: Floats64,
    radius: float,
    out: Floats64,
    n_masked: NDArray[np.int32],
) -> None:
    ny, nx = image.shape
    half = stamps.shape[1] // 2
    for n in range(x.size):
        if not (np.isfinite(x[n]) and np.isfinite(y[n])):
            continue
        stamp = stamps[n]
        ix, iy = int(np.rint(x[n])), int(np.rint(y[n]))
        pp, pd, dd, used = 0.0, 0.0, 0.0, 0
        for j in range(-half, half + 1):
            for i in range(-half, half + 1):
                if (ix + i - x[n]) ** 2 + (iy + j - y[n]) ** 2 > radius * radius:
                    continue
                yy, xx = iy + j, ix + i
                if yy < 0 or xx < 0 or yy >= ny or xx >= nx or is_masked[yy, xx]:
                    n_masked[n] += 1
                    continue
                v, d, p = variance[yy, xx], image[yy, xx], stamp[half + j, half + i]
                if not (v > 0 and np.isfinite(v) and np.isfinite(d)):
                    n_masked[n] += 1
                    continue
                pp += p * p / v
                pd += p * d / v
                dd += d * d / v
                used += 1
        if pp > 0:
            flux = pd / pp
            out[0, n], out[1, n] = flux, 1.0 / np.sqrt(pp)
            if used > 1:
                out[2, n] = (dd - flux * pd) / (used - 1)


def forced_fluxes(
    image: Float32Image,
    variance: Float32Image,
    mask: NDArray[np.integer],
    unusable: int,
    psf: SplinePsf,
    sums: NDArray[np.float32],
    *,
    x: Floats64,
    y: Floats64,
    radius: int,
) -> ForcedFluxes:
    """Return what `forced_psf_photometry` returns, of many places: each star is drawn and fitted without being kept.

    Pixels of which ``mask`` has a bit of ``unusable`` are left out. ``sums`` are what centred stamps of the model add
    up to at each place (`Psf.stamp_sums`); ``radius`` (whole pixels) limits the pixels used, see `fitting_radius`.
    """
    n = len(x)
    out, n_masked = np.full((3, n), np.nan), np.zeros(n, dtype=np.int32)
    if n:
        reach = min(max(int(radius), 1), psf.half)
        x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        _draw_and_fit(image, variance, mask, unusable, psf, x, y, reach, out, n_masked)
        out[:2] *= np.asarray(sums, dtype=np.float64)
    return ForcedFluxes(out[0], out[1], out[2], n_masked)


def fitting_radius(stamp: NDArray[np.floating], *, share: float = 0.999) -> int:
    """Return the radius (whole pixels) within which a centred PSF stamp has a ``share`` of its sum of squares.

    A fit to these pixels has sqrt(share) of the signal to noise of a fit to all, and less of the neighbours' light.
    """
    side = stamp.shape[0]
    rows, columns = np.indices(stamp.shape) - side // 2
    distance = np.ceil(np.hypot(rows, columns)).astype(np.intp)
    enclosed = np.cumsum(np.bincount(distance.ravel(), weights=np.asarray(stamp, dtype=np.float64).ravel() ** 2))
    return max(int(np.searchsorted(enclosed, share * enclosed[-1])), 1)


@njit(cache=True, error_model="numpy")
def _draw_and_fit(
    image: Float32Image,
    variance: Float32Image,
    mask: NDArray[np.integer],
    unusable: int,
    psf: SplinePsf,
    x: Floats64,
    y: Floats64,
    radius: int,
    out: Floats64,
    n_masked: NDArray[np.int32],
) -> None:
    ny, nx = image.shape
    scratch = make_scratch(psf.coefficients.shape[0], radius, psf.oversampling)
    stamp = np.zeros((2 * radius + 1, 2 * radius + 1), dtype=np.float32)
    for n in range(x.size):
        if not (np.isfinite(x[n]) and np.isfinite(y[n])):
            continue
        ix, iy = int(np.rint(x[n])), int(np.rint(y[n]))
        render(psf, x[n], y[n], x[n] - ix, y[n] - iy, radius, True, scratch, stamp)
        pp, pd, dd, used = 0.0, 0.0, 0.0, 0
        for j in range(-radius, radius + 1):
            for i in range(-radius, radius + 1):
                if i * i + j * j > radius * radius:
                    continue
                yy, xx = iy + j, ix + i
                if yy < 0 or xx < 0 or yy >= ny or xx >= nx or (mask[yy, xx] & unusable) != 0:
                    n_masked[n] += 1
                    continue
                v, d, p = variance[yy, xx], image[yy, xx], stamp[radius + j, radius + i]
                if not (v > 0 and np.isfinite(v) and np.isfinite(d)):
                    n_masked[n] += 1
                    continue
                pp += p * p / v
                pd += p * d / v
                dd += d * d / v
                used += 1
        if pp > 0:
            flux = pd / pp
            out[0, n], out[1, n] = flux, 1.0 / np.sqrt(pp)
            if used > 1:
                out[2, n] = (dd - flux * pd) / (used - 1)
