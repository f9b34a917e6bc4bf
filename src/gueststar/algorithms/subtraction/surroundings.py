"""What tells a point source from a residual: how quiet the score is about it, and how its light is spread on pixels."""

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

_ONE_SOURCE = 0.9
"""Two profiles whose squared correlation is above this are taken for one: within a fifth of the FWHM."""
_TOLERANCE = 0.75
"""Excess of the mean square over one that a ring of pure noise (some twenty independent values) may show."""


def measure_surrounding_rms(
    score: Float32Image,
    *,
    x: NDArray[np.int64],
    y: NDArray[np.int64],
    inner: float,
    outer: float,
    tolerance: float = 0.02,
    clip: float = 8.0,
) -> Floats:
    """Return the rms of a unit-variance score in rings (pixels) about places; 1 where the images match.

    No pixel counts for more than ``clip``, nor for more than the score at the place itself: one bright neighbour that
    varies is no fault of the image. What a bright detection's own wings may hold, ``tolerance`` of its score at each
    pixel, is taken off in quadrature, down to one. Pixels of score 0 are unusable; where less than a tenth
    of the ring is left the rms is NaN.
    """
    offsets = _ring(inner, outer)
    x, y = np.asarray(x, np.int64), np.asarray(y, np.int64)
    rms = np.asarray(_ring_rms(score, x, y, offsets, float(clip), offsets.shape[0] // 10))
    own = tolerance * score[y, x].astype(np.float64)
    return np.sqrt(np.maximum(rms**2 - own**2, np.minimum(rms**2, 1.0)))


def noise_factor(surrounding_rms: Floats) -> Floats:
    """Return by how much the score's noise about places exceeds one; 1 where that is not certain, or not known.

    The score has unit variance over large boxes. Where the images do not match, as at the edges of ghosts that
    move against the stars, at ringing bright stars and in strips of poor coverage, peaks are to be judged by the
    scatter that is there.
    """
    excess = np.nan_to_num(surrounding_rms**2 - 1.0 - _TOLERANCE, nan=0.0)
    return np.asarray(np.sqrt(1.0 + np.maximum(excess, 0.0)))


def measure_ray_level(
    score: Float32Image,
    *,
    x: NDArray[np.int64],
    y: NDArray[np.int64],
    star_x: Floats,
    star_y: Floats,
    inner: float,
    outer: float,
    reach: float,
    least: float = 1.5,
    off_centre: float = 2.0,
    noise: float = 0.5,
) -> Floats:
    """Return the level of the score along the ray from a bright star through each place, in the sense of its sign.

    Diffraction spikes and bleed trails turn and change between two images, and what they leave are lines that point at
    a bright star; a source on the sky is a point. The level is the mean of the medians of the score between ``inner``
    and ``outer`` pixels on either side of the place, and counts where it is high enough and each side half of
    that (where one side cannot be seen, the other a fifth more); else, and farther than ``reach`` pixels from all
    stars, it is 0. High enough is ``least`` beyond half of ``reach``. Places as near to a star as this by chance are
    rarer in proportion to the square of the distance, so nearer in a lower level, of which ``noise`` is the scatter,
    tells as much: down to that scatter. Rays may miss the star by ``off_centre`` pixels: bleeding hides where its
    middle is.
    """
    out = _ray_levels(
        score, np.asarray(x, np.int64), np.asarray(y, np.int64), np.asarray(star_x, np.float64),
        np.asarray(star_y, np.float64), inner, outer, reach, least, off_centre, noise,
    )  # fmt: skip
    return np.asarray(out)


def is_cut_off(score: Float32Image, *, x: NDArray[np.int64], y: NDArray[np.int64]) -> Bools:
    """Return which places have an unusable pixel (of score 0) or the edge among their 8 neighbours."""
    padded = np.pad(score == 0, 1, constant_values=True)
    near = np.zeros(x.size, bool)
    for j in range(3):
        for i in range(3):
            near |= padded[y + j, x + i]
    return near


def is_at_edge(score: Float32Image, *, x: NDArray[np.int64], y: NDArray[np.int64]) -> Bools:
    """Return which places have nothing but unusable pixels (of score 0) between them and an edge, along an axis.

    There the score ends. What stands highest there may stand higher beyond: it may be the flank of anything.
    """
    return np.asarray(_at_edge(score, np.asarray(x, np.int64), np.asarray(y, np.int64)))


def is_small_part(
    difference: Float32Image, light: Float32Image, *, x: NDArray[np.int64], y: NDArray[np.int64], part: float
) -> Bools:
    """Return where the sum of ``difference`` over 3 x 3 pixels is less than ``part`` of that of the ``light`` there."""
    ny, nx = light.shape
    change, whole = np.zeros(x.size), np.zeros(x.size)
    for j in (-1, 0, 1):
        for i in (-1, 0, 1):
            there = np.clip(y + j, 0, ny - 1), np.clip(x + i, 0, nx - 1)
            change += difference[there]
            whole += light[there]
    return np.asarray(np.abs(change) < part * whole)


class Constant(NamedTuple):
    """What shone on the reference already about each place: two point sources, and how they are spread there."""

    x: Floats
    """``[n, 2]``: the place itself, and the top of the reference's light about it."""
    y: Floats
    flux: Floats
    """PSF fluxes, both fitted at once; 0 where there is nothing to take off."""
    psf: FinePsf
    """Of the reference."""


class Excess(NamedTuple):
    """What part of detections is in their highest pixel, or pair, beyond a point source's, and by how many sigma."""

    pixel: Floats
    pixel_sigma: Floats
    pair: Floats
    pair_sigma: Floats
    flux: Floats
    """PSF flux, times the sign; negative where what is left has the other sign."""


def constant_light(
    reference: Float32Image, variance: Float32Image, usable: Bools, psf: FinePsf, *, x: Floats, y: Floats, reach: float
) -> Constant:
    """Return the light of a reference about places (x, y): at the place, and at its top within ``reach`` pixels."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    half = min(4, psf.half)
    out = _light_about(reference, variance, usable, psf.stamps, psf.cell[0], psf.cell[1], x, y, reach, half)
    return Constant(np.stack([x, out[:, 0]], axis=1), np.stack([y, out[:, 1]], axis=1), out[:, 2:], psf)


def measure_excess(
    image: Float32Image, variance: Float32Image, usable: Bools, psf: FinePsf, *,
    x: Floats, y: Floats, sign: Floats, constant: Constant | None = None,
) -> Excess:  # fmt: skip
    """Return how much of each detection's light is sharper than a point source.

    The PSF is fitted at (x, y); of the 3 x 3 pixels there the highest is compared with the fit. The excess is 0 for a
    point source and 1 where all charge is in one pixel (a cosmic ray, a hot pixel), whatever the sampling; the
    significance is that of the difference between this pixel and the fit. The same is told of the highest pair of
    neighbours, along rows, columns and diagonals, one of the two within a pixel of (x, y): short tracks of rays.

    ``image`` is unfiltered (its noise is white), and multiplied by ``sign``. In a plain difference of two images of
    different seeing whatever is ``constant`` leaves its flux times the difference of the PSFs: a core or a ring,
    sharper than either, which would make a ray of each variable star. It is taken off first. Where the PSF has no
    positive flux there is no excess, NaN, and where nothing is usable no flux either.
    """
    nothing = np.zeros((np.size(x), 0))
    light = constant or Constant(nothing, nothing, nothing, psf)
    out = _pixel_excess(
        image, variance, usable, psf.stamps, psf.cell[0], psf.cell[1],
        light.psf.stamps, light.psf.cell[0], light.psf.cell[1], light.x, light.y, light.flux,
        np.asarray(x, np.float64), np.asarray(y, np.float64), np.asarray(sign, np.float64),
        min(4, psf.half, light.psf.half),
    )  # fmt: skip
    return Excess(*np.asarray(out).T)


def _ring(inner: float, outer: float) -> NDArray[np.int64]:
    """Return the (dy, dx) of pixels at distances from ``inner`` to ``outer``."""
    reach = int(np.ceil(outer))
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    inside = (np.hypot(dx, dy) >= inner) & (np.hypot(dx, dy) <= outer)
    return np.stack([dy[inside], dx[inside]], axis=1).astype(np.int64)


@njit(cache=True)
def _ring_rms(score, x, y, offsets, clip, least):  # type: ignore[no-untyped-def]
    ny, nx = score.shape
    out = np.full(x.size, np.nan)
    for k in range(x.size):
        limit = min(clip, abs(score[y[k], x[k]])) ** 2
        total, n = 0.0, 0
        for m in range(offsets.shape[0]):
            j, i = y[k] + offsets[m, 0], x[k] + offsets[m, 1]
            if 0 <= j < ny and 0 <= i < nx and score[j, i] != 0:
                total += min(score[j, i] ** 2, limit)
                n += 1
        if n > least:
            out[k] = np.sqrt(total / n)
    return out


@njit(cache=True)
def _ray_levels(score, x, y, star_x, star_y, inner, outer, reach, least, off_centre, noise):  # type: ignore[no-untyped-def]
    out = np.zeros(x.size)
    for k in range(x.size):
        sign = 1.0 if score[y[k], x[k]] > 0 else -1.0
        for m in range(star_x.size):
            dx, dy = x[k] - star_x[m], y[k] - star_y[m]
            distance = np.hypot(dx, dy)
            if not inner < distance < reach:
                continue
            # exp(-level^2 / 2 noise^2) * distance^2, by which chance makes such places, is the same nearer in
            nearness = np.log(max(0.5 * reach / distance, 1.0))
            enough = np.sqrt(max(least**2 - 4.0 * noise**2 * nearness, noise**2))
            for step in range(-2, 3):
                turn = 0.5 * step * off_centre / distance
                ux, uy = (dx - turn * dy) / distance, (dy + turn * dx) / distance
                out[k] = max(out[k], _level_along(score, x[k], y[k], ux, uy, inner, outer, distance, sign, enough))
    return out


@njit(cache=True)
def _level_along(score, x, y, ux, uy, inner, outer, distance, sign, least):  # type: ignore[no-untyped-def]
    outward = _median_along(score, x, y, ux, uy, inner, outer, sign)
    inward = _median_along(score, x, y, -ux, -uy, inner, min(outer, distance), sign)
    if np.isnan(outward) or np.isnan(inward):
        level = outward if np.isnan(inward) else inward
        return level if level >= 1.2 * least else 0.0
    level = 0.5 * (outward + inward)
    return level if level >= least and min(outward, inward) >= 0.5 * least else 0.0


@njit(cache=True)
def _median_along(score, x, y, ux, uy, inner, outer, sign):  # type: ignore[no-untyped-def]
    """Return the median of the usable score at steps of a pixel along a line; NaN with fewer than four."""
    ny, nx = score.shape
    n_steps = int(outer - inner) + 1
    values = np.empty(n_steps)
    n = 0
    for step in range(n_steps):
        px, py = x + ux * (inner + step), y + uy * (inner + step)
        i, j = int(np.floor(px)), int(np.floor(py))
        if not (0 <= i < nx - 1 and 0 <= j < ny - 1):
            continue
        a, b = px - i, py - j
        c00, c01, c10, c11 = score[j, i], score[j, i + 1], score[j + 1, i], score[j + 1, i + 1]
        if c00 == 0 or c01 == 0 or c10 == 0 or c11 == 0:
            continue
        values[n] = sign * ((1 - b) * ((1 - a) * c00 + a * c01) + b * ((1 - a) * c10 + a * c11))
        n += 1
    return np.median(values[:n]) if n >= 4 else np.nan


@njit(cache=True)
def _at_edge(score, x, y):  # type: ignore[no-untyped-def]
    ny, nx = score.shape
    out = np.zeros(x.size, np.bool_)
    for k in range(x.size):
        for j, i in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            b, a = y[k] + j, x[k] + i
            while 0 <= b < ny and 0 <= a < nx and score[b, a] == 0:
                b, a = b + j, a + i
            out[k] |= not (0 <= b < ny and 0 <= a < nx)
    return out


@njit(cache=True)
def _light_about(  # type: ignore[no-untyped-def]
    reference, variance, usable, stamps, cell_y, cell_x, x, y, reach, half
):
    """Return (x, y) of the top of the light about each place, and fluxes of point sources at the place and there."""
    side = 2 * half + 1
    out = np.zeros((x.size, 4))
    here, top = np.empty((side, side)), np.empty((side, side))
    gx, gy, fit = np.empty((side, side)), np.empty((side, side)), np.empty(7)
    for k in range(x.size):
        fine = stamp_at(stamps, cell_y, cell_x, x[k], y[k])
        top_x, top_y = _highest_pixel(reference, usable, x[k], y[k], reach)
        fit[:] = np.nan
        fit_one(reference, variance, usable, fine, top_x, top_y, half, False, 1.0, 0.5, here, gx, gy, fit)
        if np.isfinite(fit[0]) and fit[2] > 0:
            top_x, top_y = fit[0], fit[1]
        out[k, 0], out[k, 1] = top_x, top_y
        x0, y0 = int(np.rint(x[k])), int(np.rint(y[k]))
        render(fine, x[k] - x0, y[k] - y0, half, here, gx, gy)
        render(fine, top_x - x0, top_y - y0, half, top, gx, gy)
        _two_fluxes(reference, variance, usable, here, top, x0, y0, half, out[k, 2:])
    return out


@njit(cache=True)
def _highest_pixel(image, usable, x, y, reach):  # type: ignore[no-untyped-def]
    """Return the place of the highest usable pixel within ``reach``; (x, y) itself if there is none."""
    ny, nx = image.shape
    best, best_x, best_y = 0.0, x, y
    for j in range(max(int(np.ceil(y - reach)), 0), min(int(np.floor(y + reach)), ny - 1) + 1):
        for i in range(max(int(np.ceil(x - reach)), 0), min(int(np.floor(x + reach)), nx - 1) + 1):
            if usable[j, i] and image[j, i] > best and np.hypot(i - x, j - y) <= reach:
                best, best_x, best_y = image[j, i], float(i), float(j)
    return best_x, best_y


@njit(cache=True)
def _two_fluxes(image, variance, usable, one, other, x0, y0, half, out):  # type: ignore[no-untyped-def]
    """Fit two profiles to the pixels about (x0, y0); where they are hardly two, the second has all."""
    ny, nx = image.shape
    aa = bb = ab = af = bf = 0.0
    for j in range(2 * half + 1):
        for i in range(2 * half + 1):
            b, a = y0 + j - half, x0 + i - half
            if not (0 <= b < ny and 0 <= a < nx) or not usable[b, a] or not variance[b, a] > 0:
                continue
            w = 1.0 / variance[b, a]
            aa += w * one[j, i] ** 2
            bb += w * other[j, i] ** 2
            ab += w * one[j, i] * other[j, i]
            af += w * one[j, i] * image[b, a]
            bf += w * other[j, i] * image[b, a]
    if ab * ab > _ONE_SOURCE * aa * bb:
        out[0], out[1] = 0.0, bf / bb if bb > 0 else 0.0
    elif aa > 0 and bb > 0:
        determinant = aa * bb - ab * ab
        out[0], out[1] = (bb * af - ab * bf) / determinant, (aa * bf - ab * af) / determinant


@njit(cache=True)
def _pixel_excess(  # type: ignore[no-untyped-def]
    image, variance, usable, stamps, cell_y, cell_x, old_stamps, old_cell_y, old_cell_x, light_x, light_y, light_flux,
    x, y, sign, half
):  # fmt: skip
    side = 2 * half + 1
    out = np.full((x.size, 5), np.nan)
    value, gx, gy = np.empty((side, side)), np.empty((side, side)), np.empty((side, side))
    light, profile, left = np.empty((side, side)), np.empty((side, side)), np.empty((side, side))
    for k in range(x.size):
        x0, y0 = int(np.rint(x[k])), int(np.rint(y[k]))
        new, old = (
            stamp_at(stamps, cell_y, cell_x, x[k], y[k]),
            stamp_at(old_stamps, old_cell_y, old_cell_x, x[k], y[k]),
        )
        left[:] = 0.0
        for m in range(light_flux.shape[1]):
            if light_flux[k, m] != 0:
                render(new, light_x[k, m] - x0, light_y[k, m] - y0, half, value, gx, gy)
                left += light_flux[k, m] * value
                render(old, light_x[k, m] - x0, light_y[k, m] - y0, half, value, gx, gy)
                left -= light_flux[k, m] * value
        render(new, x[k] - x0, y[k] - y0, half, value, gx, gy)
        power, flux = _whitened(image, variance, usable, value, left, x0, y0, sign[k], half, light, profile)
        if not power > 0:
            continue
        out[k, 4] = flux / power
        if not flux > 0:
            continue
        _compare(light, profile, half, flux / power, power, 0, out[k])
        _compare(light, profile, half, flux / power, power, 1, out[k])
    return out


@njit(cache=True)
def _whitened(  # type: ignore[no-untyped-def]
    image, variance, usable, value, left, x0, y0, sign, half, light, profile
):
    """Fill pixels less ``left`` and PSF over their noise (0 where unusable); return PSF times PSF and times pixels."""
    ny, nx = image.shape
    light[:], profile[:] = 0.0, 0.0
    power = flux = 0.0
    for j in range(2 * half + 1):
        for i in range(2 * half + 1):
            b, a = y0 + j - half, x0 + i - half
            if not (0 <= b < ny and 0 <= a < nx) or not usable[b, a] or not variance[b, a] > 0:
                continue
            noise = np.sqrt(variance[b, a])
            light[j, i] = sign * (image[b, a] - left[j, i]) / noise
            profile[j, i] = value[j, i] / noise
            power += profile[j, i] ** 2
            flux += profile[j, i] * light[j, i]
    return power, flux


@njit(cache=True)
def _compare(light, profile, half, flux, power, is_pair, out):  # type: ignore[no-untyped-def]
    """Write excess and significance of the highest pixel (or pair) of the 3 x 3 about the middle."""
    highest, expected = 0.0, 0.0
    for j in range(half - 1, half + 2):
        for i in range(half - 1, half + 2):
            for dj, di in ((0, 1), (1, 0), (1, 1), (1, -1)):
                norm = np.sqrt(2.0) if is_pair else 1.0
                d = (light[j, i] + (light[j + dj, i + di] if is_pair else 0.0)) / norm
                if d > highest:
                    highest = d
                    expected = (profile[j, i] + (profile[j + dj, i + di] if is_pair else 0.0)) / norm
    if highest > 0:
        share = min(max(expected, 0.0) ** 2 / power, 0.99)  # of the PSF's power that is in these pixels
        out[2 * is_pair] = (highest - flux * expected) / (highest * (1.0 - share))
        out[2 * is_pair + 1] = (highest - flux * expected) / np.sqrt(1.0 - share)
