"""Apertures, moments and total fluxes of sources whose neighbours have been subtracted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.photometry.overlap import disc_half, fill_disc_weights
from gueststar.algorithms.psf.moments import matched_moments, widest_side, widest_weight
from gueststar.algorithms.psf.scene import Scene, SourceState
from gueststar.algorithms.psf.spline import SplinePsf, make_scratch, render

Float32Image = NDArray[np.float32]
Floats64 = NDArray[np.float64]

MAX_KRON = 4.0
"""Largest Kron radius, in units of the source's second-moment ellipse."""


@dataclass(frozen=True)
class ApertureConfig:
    """Which apertures are measured."""

    diameters_fwhm: tuple[float, float, float, float] = (1.5, 2.5, 4.0, 7.0)
    """Diameters of the circular apertures, in FWHM of the PSF."""
    kron_factor: float = 2.5
    """Radius of the total aperture, in Kron radii."""
    min_kron_radius: float = 1.4
    """Least Kron radius, in units of the source's second-moment ellipse."""
    max_half: int = 60
    """Half side of the largest box looked at, pixels."""


class TotalFluxes(NamedTuple):
    """Aperture measurements, arrays of one length (apertures ``[n, 4]``)."""

    ap_flux: Floats64
    ap_flux_err: Floats64
    masked_fraction: Floats64
    """Share of the third aperture that is masked."""
    total_flux: Floats64
    total_flux_err: Floats64
    kron_radius: Floats64
    """Pixels along the major axis."""
    xx: Floats64
    yy: Floats64
    xy: Floats64
    peak: Floats64


def measure_totals(
    scene: Scene,
    variance: Float32Image,
    psf: SplinePsf,
    state: SourceState,
    *,
    area: NDArray[np.int32],
    fwhm: float,
    config: ApertureConfig = ApertureConfig(),
) -> TotalFluxes:
    """Return aperture and Kron (1980) fluxes and moments of each source, its neighbours' models subtracted.

    What is measured is the residual image plus the source's own model, so whatever the model missed of it
    counts. ``area`` (pixels of the footprint) sets the size of the box. A masked pixel takes the source's own
    model plus the residual of the pixel opposite the centre, if that is good.
    """
    n = len(state.x)
    radii = 0.5 * fwhm * np.asarray(config.diameters_fwhm)
    apertures, masked = np.full((2, n, 4), np.nan), np.zeros(n)
    other = np.full((7, n), np.nan)
    if n:
        reach = np.ceil(np.maximum(radii.max() + 2, 3.5 * np.sqrt(area / np.pi) + 2 * fwhm)).astype(np.int64)
        _totals(
            scene, variance, psf, state, np.minimum(reach, config.max_half), radii, fwhm / 2.3548,
            config.kron_factor, config.min_kron_radius, psf.half, apertures, masked, other,
        )  # fmt: skip
    return TotalFluxes(apertures[0], apertures[1], masked, *other)


@njit(cache=True, error_model="numpy")
def _totals(
    scene: Scene,
    variance: Float32Image,
    psf: SplinePsf,
    state: SourceState,
    reach: NDArray[np.int64],
    radii: Floats64,
    psf_sigma: float,
    kron_factor: float,
    min_kron: float,
    half: int,
    apertures: Floats64,
    masked: Floats64,
    other: Floats64,
) -> None:
    largest = 2 * np.max(reach) + 1
    data, noise = np.empty((largest, largest), np.float32), np.empty((largest, largest), np.float32)
    lost, none_lost = np.empty((largest, largest), np.bool_), np.zeros((largest, largest), np.bool_)
    scratch = make_scratch(psf.coefficients.shape[0], half, psf.oversampling)
    stamp = np.empty((2 * half + 1, 2 * half + 1), np.float32)
    halves = np.empty(radii.size, np.int64)
    for k in range(radii.size):
        halves[k] = disc_half(radii[k])
    widest = 2 * np.max(halves) + 1
    weights, corners = np.empty((radii.size, widest, widest)), np.empty((4, widest + 1))
    along_x, moments = np.empty(widest_side(psf_sigma)), np.empty(7)
    usual = max(int(np.ceil(np.max(radii) + 2.0)), int(np.ceil(widest_weight(psf_sigma))) + 1)
    for n in range(state.x.size):
        # Footprints in crowded fields are much larger than what is looked at of most sources.
        r = min(reach[n], usual)
        ix, iy = int(np.rint(state.x[n])), int(np.rint(state.y[n]))
        d, v, m = data[: 2 * r + 1, : 2 * r + 1], noise[: 2 * r + 1, : 2 * r + 1], lost[: 2 * r + 1, : 2 * r + 1]
        _cut(scene, variance, ix, iy, r, d, v, m)
        own = min(max(state.reach[n], 0), half, reach[n])
        render(psf, state.x[n], state.y[n], state.x[n] - ix, state.y[n] - iy, own, True, scratch, stamp)
        _add_own(d, stamp, state.flux[n], r, own)
        x, y = state.x[n] - ix + r, state.y[n] - iy + r
        for k in range(radii.size):
            side = 2 * halves[k] + 1
            sums = _disc_sums(d, v, m, x, y, radii[k], weights[k, :side, :side], corners)
            apertures[0, n, k], apertures[1, n, k] = sums[0], np.sqrt(sums[1])
            if k == 2:
                masked[n] = sums[2] / (np.pi * radii[k] ** 2)
        shape = matched_moments(d, v, none_lost[: 2 * r + 1, : 2 * r + 1], x, y, psf_sigma, along_x, moments)
        if r < reach[n] and r < _kron_reach(shape, psf_sigma, kron_factor):
            r = reach[n]
            d, v, m = data[: 2 * r + 1, : 2 * r + 1], noise[: 2 * r + 1, : 2 * r + 1], lost[: 2 * r + 1, : 2 * r + 1]
            _cut(scene, variance, ix, iy, r, d, v, m)
            _add_own(d, stamp, state.flux[n], r, own)
            x, y = state.x[n] - ix + r, state.y[n] - iy + r
        _kron(d, v, x, y, shape, psf_sigma, kron_factor, min_kron, other[:, n])
        p = max(int(np.ceil(psf_sigma)), 1)
        other[6, n] = np.max(d[max(r - p, 0) : r + p + 1, max(r - p, 0) : r + p + 1])


@njit(cache=True, error_model="numpy", _nrt=False)
def _cut(
    scene: Scene,
    variance: Float32Image,
    ix: int,
    iy: int,
    r: int,
    data: Float32Image,
    noise: Float32Image,
    lost: NDArray[np.bool_],
) -> None:
    """Copy the pixels about (ix, iy); a masked one, or one outside, takes those opposite the centre, or zero."""
    ny, nx = scene.image.shape
    x0, x1 = max(ix - r, 0), min(ix + r + 1, nx)
    for j in range(-r, r + 1):
        y, gone = iy + j, lost[r + j]
        n_lost = 2 * r + 1
        if 0 <= y < ny and x0 < x1:
            n_lost -= x1 - x0
            n_lost += _copy_row(
                scene.residual[y, x0:x1], variance[y, x0:x1], scene.is_masked[y, x0:x1],
                data[r + j, x0 - ix + r : x1 - ix + r], noise[r + j, x0 - ix + r : x1 - ix + r],
                gone[x0 - ix + r : x1 - ix + r],
            )  # fmt: skip
        if n_lost == 0:
            continue
        for i in range(2 * r + 1):
            x = ix - r + i
            if not (0 <= y < ny and x0 <= x < x1):
                gone[i] = True
            if gone[i]:
                v, u = iy - j, ix + r - i
                is_known = _is_usable(scene, u, v)
                data[r + j, i] = scene.residual[v, u] if is_known else np.float32(0)
                noise[r + j, i] = variance[v, u] if is_known else np.float32(0)


@njit(cache=True, error_model="numpy", _nrt=False)
def _copy_row(
    residual: Float32Image,
    variance: Float32Image,
    is_masked: NDArray[np.bool_],
    data: Float32Image,
    noise: Float32Image,
    lost: NDArray[np.bool_],
) -> int:
    """Copy pixels of a row, and return how many of them are masked."""
    n = 0
    for i in range(data.size):
        data[i], noise[i], lost[i] = residual[i], variance[i], is_masked[i]
        n += is_masked[i]
    return n


@njit(cache=True, error_model="numpy", _nrt=False, fastmath={"reassoc", "contract"})
def _disc_sums(
    data: Float32Image,
    noise: Float32Image,
    lost: NDArray[np.bool_],
    x: float,
    y: float,
    radius: float,
    weights: Floats64,
    corners: Floats64,
) -> tuple[float, float, float]:
    """Return the sum of the data in a disc within the box, of the variance of the pixels not lost, and the lost area.

    Sums may be taken in any order; nothing is assumed of NaN.
    """
    half = weights.shape[0] // 2
    ix, iy = int(np.rint(x)), int(np.rint(y))
    fill_disc_weights(x - ix, y - iy, radius, weights, corners)
    flux, var, gone = 0.0, 0.0, 0.0
    for j in range(2 * half + 1):
        row, a = iy - half + j, ix - half
        d, v, m = data[row, a : a + 2 * half + 1], noise[row, a : a + 2 * half + 1], lost[row, a : a + 2 * half + 1]
        w = weights[j]
        for i in range(2 * half + 1):
            flux += w[i] * d[i]
            var += 0.0 if m[i] else w[i] * v[i]
            gone += w[i] if m[i] else 0.0
    return flux, var, gone


@njit(cache=True, error_model="numpy", _nrt=False)
def _is_usable(scene: Scene, x: int, y: int) -> bool:
    ny, nx = scene.image.shape
    return 0 <= y < ny and 0 <= x < nx and not scene.is_masked[y, x]


@njit(cache=True, error_model="numpy", _nrt=False)
def _add_own(data: Float32Image, stamp: Float32Image, flux: float, r: int, own: int) -> None:
    """Add ``flux`` times the middle of a stamp of half side ``own`` to a box of half side ``r``."""
    k, scale = min(own, r), np.float32(flux)
    for j in range(-k, k + 1):
        row, line = data[r + j, r - k : r + k + 1], stamp[own + j, own - k : own + k + 1]
        for i in range(row.size):
            row[i] += scale * line[i]


@njit(cache=True, error_model="numpy", _nrt=False)
def _kron_reach(shape: tuple[float, float, float], psf_sigma: float, factor: float) -> float:
    """Return how far from the centre `_kron` may look."""
    xx, yy, _ = shape
    largest = max(xx, yy) if xx > 0 and yy > 0 else psf_sigma**2
    return max(6.0, factor * MAX_KRON) * np.sqrt(largest) + 2.0


@njit(cache=True, error_model="numpy", _nrt=False)
def _kron(
    data: Float32Image,
    noise: Float32Image,
    x: float,
    y: float,
    shape: tuple[float, float, float],
    psf_sigma: float,
    factor: float,
    min_kron: float,
    out: Floats64,
) -> None:
    """Write total flux, its error, the Kron radius and the moments; a source without moments gets the PSF's."""
    xx, yy, xy = shape
    if not (xx > 0 and yy > 0 and xx * yy > xy * xy):
        xx, yy, xy = psf_sigma**2, psf_sigma**2, 0.0
    det = xx * yy - xy * xy
    a, b, c = yy / det, xx / det, -2.0 * xy / det
    moment, light = _first_moment(data, x, y, a, b, c, 6.0 * np.sqrt(max(xx, yy)))
    kron = moment / light if light > 0 else min_kron
    kron = min(max(kron, min_kron), MAX_KRON)
    limit = (factor * kron) ** 2
    flux, var = _ellipse_sums(data, noise, x, y, a, b, c, limit, factor * kron * np.sqrt(max(xx, yy)) + 1.0)
    half_sum, half_difference = 0.5 * (xx + yy), np.hypot(0.5 * (xx - yy), xy)
    out[0], out[1] = flux, np.sqrt(var)
    out[2] = kron * np.sqrt(half_sum + half_difference)
    out[3], out[4], out[5] = xx, yy, xy


@njit(cache=True, error_model="numpy", _nrt=False, fastmath={"reassoc", "contract"})
def _first_moment(
    data: Float32Image, x: float, y: float, a: float, b: float, c: float, reach: float
) -> tuple[float, float]:
    """Return the sums of elliptical radius times value, and of values, within six units of the ellipse."""
    moment, light = 0.0, 0.0
    i0, i1 = max(0, int(x - reach)), min(data.shape[1], int(x + reach) + 2)
    for j in range(max(0, int(y - reach)), min(data.shape[0], int(y + reach) + 2)):
        v, line = j - y, data[j, i0:i1]
        for i in range(line.size):
            u = i + i0 - x
            q = a * u * u + b * v * v + c * u * v
            value = float(line[i]) if q <= 36.0 else 0.0
            moment += np.sqrt(q) * value
            light += value
    return moment, light


@njit(cache=True, error_model="numpy", _nrt=False)
def _ellipse_sums(
    data: Float32Image,
    noise: Float32Image,
    x: float,
    y: float,
    a: float,
    b: float,
    c: float,
    limit: float,
    reach: float,
) -> tuple[float, float]:
    """Return the sums of data and variance in an ellipse, each pixel by its share in it.

    Half a pixel's diagonal away the elliptical radius differs by no more than 0.71 root (a + b): nearer the middle
    pixels are wholly inside, farther out wholly outside, and only those between are looked at closely.
    """
    flux, var = 0.0, 0.0
    slack = 0.71 * np.sqrt(a + b)
    whole, last = max(np.sqrt(limit) - slack, 0.0) ** 2, (np.sqrt(limit) + slack) ** 2
    i0, i1 = max(0, int(x - reach)), min(data.shape[1], int(x + reach) + 2)
    for j in range(max(0, int(y - reach)), min(data.shape[0], int(y + reach) + 2)):
        # In a row, a u^2 + c v u + b v^2 is least at -c v / (2 a), and below a value within a chord about that.
        v = j - y
        middle, rest = x - 0.5 * c * v / a, (b - 0.25 * c * c / a) * v * v
        if rest > last:
            continue
        far = np.sqrt((last - rest) / a)
        begin, end = max(i0, int(np.ceil(middle - far))), min(i1, int(np.floor(middle + far)) + 1)
        left = right = end
        if rest <= whole:
            near = np.sqrt((whole - rest) / a)
            left, right = max(begin, int(np.ceil(middle - near))), min(end, int(np.floor(middle + near)) + 1)
            left, right = min(left, end), max(right, min(left, end))
        line, spread = data[j], noise[j]
        for i in range(left, right):
            flux += line[i]
            var += spread[i]
        for i in range(begin, end):
            if left <= i < right:
                continue
            share = _share_in_ellipse(i - x, v, a, b, c, limit)
            flux += share * line[i]
            var += share * spread[i]
    return flux, var


@njit(cache=True, error_model="numpy", _nrt=False)
def _share_in_ellipse(u: float, v: float, a: float, b: float, c: float, limit: float) -> float:
    """Return the share of a pixel within an ellipse, on 5 x 5 points."""
    inside = 0
    for j in range(-2, 3):
        for i in range(-2, 3):
            s, t = u + 0.2 * i, v + 0.2 * j
            if a * s * s + b * t * t + c * s * t <= limit:
                inside += 1
    return inside / 25.0
