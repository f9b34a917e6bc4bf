"""Measure detections on a difference image: flux, place, shape, surroundings."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.subtraction.fine_psf import FinePsf, render, stamp_at
from gueststar.algorithms.subtraction.stars import fit_one

Float32Image = NDArray[np.float32]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Apertures(NamedTuple):
    """Sums in circles, and the residual background about them."""

    flux: Floats
    flux_err: Floats
    big_flux: Floats
    big_flux_err: Floats
    sky: Floats
    """Median in the ring beyond the wide aperture, per pixel; 0 where the ring has no usable pixel."""
    n_masked: NDArray[np.int64]
    """Unusable pixels in the small aperture."""


class Moments(NamedTuple):
    """Adaptive second moments; NaN where they did not converge."""

    fwhm: Floats
    """Of the round Gaussian of equal area, pixels."""
    a: Floats
    b: Floats
    theta_deg: Floats


class BoxFeatures(NamedTuple):
    """What lies in the 5 x 5 box about a detection, in the sense of its sign."""

    n_negative: NDArray[np.int64]
    n_bad: NDArray[np.int64]
    sum_ratio: Floats


def fit_candidates(
    difference: Float32Image,
    variance: Float32Image,
    usable: Bools,
    psf: FinePsf,
    *,
    x: Floats,
    y: Floats,
    radius: int,
    max_shift: float,
) -> Floats:
    """Return ``[n, 7]``: x, y, flux, their errors and the reduced chi-square of PSF fits (NaN: failed)."""
    return np.asarray(
        _fit_candidates(
            difference, variance, usable, psf.stamps, psf.cell[0], psf.cell[1],
            np.asarray(x, np.float64), np.asarray(y, np.float64), min(radius, psf.half), max_shift,
        )
    )  # fmt: skip


def forced_flux(
    image: Float32Image, variance: Float32Image, usable: Bools, psf: FinePsf, *, x: Floats, y: Floats, radius: int
) -> tuple[Floats, Floats]:
    """Return PSF fluxes and errors at fixed places; NaN where less than half of the PSF is usable."""
    out = _forced(
        image, variance, usable, psf.stamps, psf.cell[0], psf.cell[1],
        np.asarray(x, np.float64), np.asarray(y, np.float64), min(radius, psf.half),
    )  # fmt: skip
    return out[:, 0], out[:, 1]


def measure_apertures(
    image: Float32Image,
    variance: Float32Image,
    usable: Bools,
    *,
    x: Floats,
    y: Floats,
    radius: float,
    big_radius: float,
) -> Apertures:
    """Return sums within two radii (pixels cut by the edge count in part); unusable pixels are taken as they are."""
    out = _apertures(image, variance, usable, np.asarray(x, np.float64), np.asarray(y, np.float64), radius, big_radius)
    return Apertures(out[:, 0], out[:, 1], out[:, 2], out[:, 3], out[:, 4], out[:, 5].astype(np.int64))


def measure_moments(image: Float32Image, *, x: Floats, y: Floats, sign: Floats, sigma: float, radius: int) -> Moments:
    """Return adaptive moments (Bernstein & Jarvis 2002, AJ 123, 583, section 3): a Gaussian weight of the source's
    own shape, found by iteration from a round one of ``sigma``. ``image`` times ``sign`` is measured.
    """  # fmt: skip
    xx, yy, xy = _adaptive_moments(
        image, np.asarray(x, np.float64), np.asarray(y, np.float64), np.asarray(sign, np.float64), sigma, radius
    ).T
    mean, difference = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    with np.errstate(invalid="ignore"):
        a, b = np.sqrt(mean + difference), np.sqrt(mean - difference)
    return Moments(2.3548 * np.sqrt(a * b), a, b, np.degrees(0.5 * np.arctan2(2 * xy, xx - yy)))


def measure_boxes(
    image: Float32Image, usable: Bools, *, x: NDArray[np.int64], y: NDArray[np.int64], sign: Floats
) -> BoxFeatures:
    """Return counts and sums in 5 x 5 boxes; pixels off the image count as bad."""
    out = _boxes(image, usable, np.asarray(x, np.int64), np.asarray(y, np.int64), np.asarray(sign, np.float64))
    return BoxFeatures(out[:, 0].astype(np.int64), out[:, 1].astype(np.int64), out[:, 2])


def core_bits(mask: NDArray[np.int32], *, x: Floats, y: Floats, radius: float) -> NDArray[np.int64]:
    """Return the union of mask bits within ``radius`` pixels of each place."""
    return np.asarray(_core_bits(mask, np.asarray(x, np.float64), np.asarray(y, np.float64), radius))


def is_sharper_than_psf(
    image: Float32Image, variance: Float32Image, psf: FinePsf, *, x: Floats, y: Floats, n_sigma: float = 4.0
) -> Bools:
    """Return where a pixel near (x, y) sticks out of its neighbours more than a point source's can.

    A pixel of value p has neighbours left and right (or above and below) whose mean is at least rho p for a
    source centred on it, and more for any other place. A cosmic ray has less: the test is on p rho minus that
    mean, which must exceed ``n_sigma`` of its noise and a fifth of p rho. ``image`` is unfiltered.
    """
    return np.asarray(
        _sharp(
            image,
            variance,
            psf.stamps,
            psf.cell[0],
            psf.cell[1],
            np.asarray(x, np.float64),
            np.asarray(y, np.float64),
            n_sigma,
        )
    )


@njit(cache=True)
def _fit_candidates(image, variance, usable, stamps, cell_y, cell_x, x, y, half, max_shift):  # type: ignore[no-untyped-def]
    out = np.full((x.size, 7), np.nan)
    side = 2 * half + 1
    value, gx, gy = np.empty((side, side)), np.empty((side, side)), np.empty((side, side))
    for k in range(x.size):
        fine = stamp_at(stamps, cell_y, cell_x, x[k], y[k])
        fit_one(image, variance, usable, fine, x[k], y[k], half, False, max_shift, 0.5, value, gx, gy, out[k])
    return out


@njit(cache=True)
def _forced(image, variance, usable, stamps, cell_y, cell_x, x, y, half):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    out = np.full((x.size, 2), np.nan)
    side = 2 * half + 1
    value, gx, gy = np.empty((side, side)), np.empty((side, side)), np.empty((side, side))
    for k in range(x.size):
        x0, y0 = int(np.rint(x[k])), int(np.rint(y[k]))
        render(stamp_at(stamps, cell_y, cell_x, x[k], y[k]), x[k] - x0, y[k] - y0, half, value, gx, gy)
        power = flux = weight = whole = 0.0
        for j in range(-half, half + 1):
            for i in range(-half, half + 1):
                p = value[j + half, i + half]
                whole += p * p
                if not (0 <= y0 + j < ny and 0 <= x0 + i < nx) or not usable[y0 + j, x0 + i]:
                    continue
                v = variance[y0 + j, x0 + i]
                if v > 0:
                    power += p * p
                    weight += p * p / v
                    flux += p * image[y0 + j, x0 + i] / v
        if weight > 0 and power > 0.5 * whole:
            out[k, 0], out[k, 1] = flux / weight, 1.0 / np.sqrt(weight)
    return out


@njit(cache=True)
def _apertures(image, variance, usable, x, y, radius, big_radius):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    out = np.zeros((x.size, 6))
    reach = int(np.ceil(big_radius * 1.5)) + 1
    ring = np.empty((2 * reach + 1) ** 2)
    for k in range(x.size):
        x0, y0 = int(np.rint(x[k])), int(np.rint(y[k]))
        n_ring = 0
        for j in range(max(y0 - reach, 0), min(y0 + reach + 1, ny)):
            for i in range(max(x0 - reach, 0), min(x0 + reach + 1, nx)):
                r = np.hypot(i - x[k], j - y[k])
                w = min(max(radius + 0.5 - r, 0.0), 1.0)
                big = min(max(big_radius + 0.5 - r, 0.0), 1.0)
                out[k, 0] += w * image[j, i]
                out[k, 1] += w * w * variance[j, i]
                out[k, 2] += big * image[j, i]
                out[k, 3] += big * big * variance[j, i]
                if w > 0 and not usable[j, i]:
                    out[k, 5] += 1
                if big_radius + 0.5 < r < 1.5 * big_radius + 0.5 and usable[j, i]:
                    ring[n_ring] = image[j, i]
                    n_ring += 1
        out[k, 1], out[k, 3] = np.sqrt(out[k, 1]), np.sqrt(out[k, 3])
        if n_ring:
            out[k, 4] = np.median(ring[:n_ring])
    return out


@njit(cache=True)
def _adaptive_moments(image, x, y, sign, sigma, radius):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    out = np.full((x.size, 3), np.nan)
    for k in range(x.size):
        cx, cy = x[k], y[k]
        xx = yy = sigma * sigma
        xy = 0.0
        good = False
        for _ in range(30):
            det = xx * yy - xy * xy
            if not det > 0.01:
                break
            s = sx = sy = sxx = syy = sxy = 0.0
            x0, y0 = int(np.rint(cx)), int(np.rint(cy))
            for j in range(max(y0 - radius, 0), min(y0 + radius + 1, ny)):
                for i in range(max(x0 - radius, 0), min(x0 + radius + 1, nx)):
                    dx, dy = i - cx, j - cy
                    w = np.exp(-0.5 * (yy * dx * dx + xx * dy * dy - 2 * xy * dx * dy) / det)
                    v = w * sign[k] * image[j, i]
                    s += v
                    sx += v * dx
                    sy += v * dy
                    sxx += v * dx * dx
                    syy += v * dy * dy
                    sxy += v * dx * dy
            if not s > 0:
                break
            step_x, step_y = min(max(2 * sx / s, -0.5), 0.5), min(max(2 * sy / s, -0.5), 0.5)
            # The moments of source times weight: C = (S^-1 + W^-1)^-1 = S / 2 when the weight matches the source.
            new_xx, new_yy, new_xy = _unweighted(sxx / s, syy / s, sxy / s, xx, yy, xy)
            if not (0.04 < new_xx < 4 * radius * radius and 0.04 < new_yy < 4 * radius * radius):
                break
            change = abs(new_xx - xx) + abs(new_yy - yy) + abs(new_xy - xy)
            xx, yy, xy = new_xx, new_yy, new_xy
            cx, cy = cx + step_x, cy + step_y
            if np.hypot(cx - x[k], cy - y[k]) > radius / 2:
                break
            if change < 1e-3 * (xx + yy) and abs(step_x) + abs(step_y) < 1e-2:
                good = True
                break
        if good and xx * yy - xy * xy > 0:
            out[k, 0], out[k, 1], out[k, 2] = xx, yy, xy
    return out


@njit(cache=True)
def _unweighted(cxx, cyy, cxy, wxx, wyy, wxy):  # type: ignore[no-untyped-def]
    """Return the covariance S with S^-1 = C^-1 - W^-1; damped, and the weight itself where C is not positive."""
    det_c, det_w = cxx * cyy - cxy * cxy, wxx * wyy - wxy * wxy
    if not (det_c > 0 and cxx > 0):
        return 0.7 * wxx, 0.7 * wyy, 0.0
    axx, ayy, axy = cyy / det_c - wyy / det_w, cxx / det_c - wxx / det_w, -cxy / det_c + wxy / det_w
    det = axx * ayy - axy * axy
    if not (det > 0 and axx > 0):
        return 1.5 * wxx, 1.5 * wyy, 1.5 * wxy
    return ayy / det, axx / det, -axy / det


@njit(cache=True)
def _boxes(image, usable, x, y, sign):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    out = np.zeros((x.size, 3))
    for k in range(x.size):
        total = absolute = 0.0
        for j in range(y[k] - 2, y[k] + 3):
            for i in range(x[k] - 2, x[k] + 3):
                if not (0 <= j < ny and 0 <= i < nx):
                    out[k, 1] += 1
                    continue
                v = sign[k] * image[j, i]
                total += v
                absolute += abs(v)
                out[k, 0] += v < 0
                out[k, 1] += not usable[j, i]
        out[k, 2] = total / absolute if absolute > 0 else 0.0
    return out


@njit(cache=True)
def _core_bits(mask, x, y, radius):  # type: ignore[no-untyped-def]
    ny, nx = mask.shape
    out = np.zeros(x.size, np.int64)
    reach = int(np.ceil(radius))
    for k in range(x.size):
        x0, y0 = int(np.rint(x[k])), int(np.rint(y[k]))
        for j in range(max(y0 - reach, 0), min(y0 + reach + 1, ny)):
            for i in range(max(x0 - reach, 0), min(x0 + reach + 1, nx)):
                if (i - x[k]) ** 2 + (j - y[k]) ** 2 <= radius * radius:
                    out[k] |= mask[j, i]
    return out


@njit(cache=True)
def _sharp(image, variance, stamps, cell_y, cell_x, x, y, n_sigma):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    out = np.zeros(x.size, np.bool_)
    value, gx, gy = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    for k in range(x.size):
        x0, y0 = int(np.rint(x[k])), int(np.rint(y[k]))
        render(stamp_at(stamps, cell_y, cell_x, x[k], y[k]), 0.0, 0.0, 1, value, gx, gy)
        rho_x = 0.5 * (value[1, 0] + value[1, 2]) / value[1, 1]
        rho_y = 0.5 * (value[0, 1] + value[2, 1]) / value[1, 1]
        for j in range(max(y0 - 1, 1), min(y0 + 2, ny - 1)):
            for i in range(max(x0 - 1, 1), min(x0 + 2, nx - 1)):
                p, v = image[j, i], variance[j, i]
                for axis in range(2):
                    if axis == 0:
                        rho, mean = rho_x, 0.5 * (image[j, i - 1] + image[j, i + 1])
                        noise = rho * rho * v + 0.25 * (variance[j, i - 1] + variance[j, i + 1])
                    else:
                        rho, mean = rho_y, 0.5 * (image[j - 1, i] + image[j + 1, i])
                        noise = rho * rho * v + 0.25 * (variance[j - 1, i] + variance[j + 1, i])
                    excess = rho * p - mean
                    if excess > n_sigma * np.sqrt(noise) and excess > 0.2 * rho * p:
                        out[k] = True
    return out
