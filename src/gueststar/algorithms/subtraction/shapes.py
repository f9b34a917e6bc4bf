"""Fit a dipole and a trail to detections on a difference image, against the single PSF."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.subtraction.fine_psf import FinePsf, add_value, render, render_value, stamp_at
from gueststar.algorithms.subtraction.stars import cholesky_solve

Float32Image = NDArray[np.float32]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


MAX_HALF_TRAIL = 15
"""Half of a trail that a fit follows at most, pixels; longer ones are for the search for streaks."""


class Dipoles(NamedTuple):
    """Two PSFs of opposite sign; where no second lobe is seen: fluxes (PSF flux, 0), separation 0, ratio 1."""

    positive: Floats
    negative: Floats
    """Signed: below zero."""
    negative_err: Floats
    separation: Floats
    """Pixels."""
    chi2_ratio: Floats
    """Chi-square of the dipole over that of the PSF fit, in the same box."""


class Trails(NamedTuple):
    """A line convolved with the PSF; where the source is not longer than the PSF: length 0, ratio 1."""

    length: Floats
    angle_deg: Floats
    flux: Floats
    chi2_ratio: Floats


def fit_dipoles(
    image: Float32Image,
    variance: Float32Image,
    usable: Bools,
    psf: FinePsf,
    *,
    x: Floats,
    y: Floats,
    flux: Floats,
    radius: int,
    n_sigma: float = 3.0,
) -> Dipoles:
    """Fit two PSFs of opposite sign within ``radius`` pixels (Gauss-Newton with damping, six parameters).

    Tried only where the box of the PSF fit's residuals holds, smoothed by the PSF, a lobe of the other sign beyond
    ``n_sigma``.
    """
    out = _dipoles(
        image, variance, usable, psf.stamps, psf.cell[0], psf.cell[1],
        *(np.asarray(a, np.float64) for a in (x, y, flux)), min(radius, psf.half), n_sigma,
    )  # fmt: skip
    return Dipoles(*out.T)


def fit_trails(
    image: Float32Image,
    variance: Float32Image,
    usable: Bools,
    psf: FinePsf,
    *,
    x: Floats,
    y: Floats,
    flux: Floats,
    length: Floats,
    angle_deg: Floats,
    radius: int,
) -> Trails:
    """Fit a PSF-convolved line, from starting values of length (0: not tried) and angle.

    The fitted box reaches ``radius`` pixels, about where the PSF ends, beyond the line's ends.
    """
    out = _trails(
        image, variance, usable, psf.stamps, psf.cell[0], psf.cell[1],
        *(np.asarray(a, np.float64) for a in (x, y, flux, length, angle_deg)), min(radius, psf.half),
    )  # fmt: skip
    return Trails(out[:, 0], np.mod(out[:, 1], 180.0), out[:, 2], out[:, 3])


@njit(cache=True)
def _box(image, variance, usable, x0, y0, half, data, weight):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    n = 0
    for j in range(-half, half + 1):
        for i in range(-half, half + 1):
            data[j + half, i + half] = weight[j + half, i + half] = 0.0
            if 0 <= y0 + j < ny and 0 <= x0 + i < nx and usable[y0 + j, x0 + i] and variance[y0 + j, x0 + i] > 0:
                data[j + half, i + half] = image[y0 + j, x0 + i]
                weight[j + half, i + half] = 1.0 / variance[y0 + j, x0 + i]
                n += 1
    return n


@njit(cache=True)
def _linear_flux(data, weight, model):  # type: ignore[no-untyped-def]
    """Return (flux, weight of the flux, chi-square) of a model of unit flux."""
    dp = pp = dd = 0.0
    for j in range(data.shape[0]):
        for i in range(data.shape[1]):
            w, p, d = weight[j, i], model[j, i], data[j, i]
            dp += w * p * d
            pp += w * p * p
            dd += w * d * d
    if pp <= 0:
        return 0.0, 0.0, dd
    return dp / pp, pp, dd - dp * dp / pp


@njit(cache=True)
def _dipoles(image, variance, usable, stamps, cell_y, cell_x, x, y, flux, half, n_sigma):  # type: ignore[no-untyped-def]
    side = 2 * half + 1
    out = np.zeros((x.size, 5))
    data, weight, planes = np.empty((side, side)), np.empty((side, side)), np.empty((6, side, side))
    for k in range(x.size):
        out[k, 4] = 1.0
        out[k, 0], out[k, 1] = max(flux[k], 0.0), min(flux[k], 0.0)
        x0, y0 = int(np.rint(x[k])), int(np.rint(y[k]))
        if 2 * _box(image, variance, usable, x0, y0, half, data, weight) < side * side:
            continue
        fine = stamp_at(stamps, cell_y, cell_x, x[k], y[k])
        render_value(fine, x[k] - x0, y[k] - y0, half, planes[0])
        first, _, chi2_psf = _linear_flux(data, weight, planes[0])
        render_value(fine, 0.0, 0.0, half, planes[3])
        second, jx, jy = _opposite_lobe(data, weight, planes[0], first, planes[3], n_sigma)
        if second == 0.0:
            continue
        p = np.array([first, x[k] - x0, y[k] - y0, second, float(jx), float(jy)])
        chi2, err = _gauss_newton_dipole(data, weight, fine, half, p, planes)
        if p[0] * first > 0 and p[0] * p[3] < 0 and chi2 < chi2_psf:
            out[k, 0], out[k, 1], out[k, 2] = max(p[0], p[3]), min(p[0], p[3]), err
            out[k, 3] = np.hypot(p[1] - p[4], p[2] - p[5])
            out[k, 4] = chi2 / chi2_psf
    return out


@njit(cache=True)
def _opposite_lobe(data, weight, model, flux, centred, n_sigma):  # type: ignore[no-untyped-def]
    """Return (flux, dx, dy) of the best PSF of opposite sign in the residuals of the first; flux 0 if none."""
    half = data.shape[0] // 2
    best, best_flux, at_x, at_y = n_sigma * n_sigma, 0.0, 0, 0
    reach = min(half - 1, 5)
    for oy in range(-reach, reach + 1):
        for ox in range(-reach, reach + 1):
            dp = pp = 0.0
            for j in range(max(oy - 2, -half), min(oy + 2, half) + 1):
                for i in range(max(ox - 2, -half), min(ox + 2, half) + 1):
                    w = weight[j + half, i + half]
                    p = centred[j - oy + half, i - ox + half]
                    dp += w * p * (data[j + half, i + half] - flux * model[j + half, i + half])
                    pp += w * p * p
            if pp > 0 and dp * flux < 0 and dp * dp / pp > best:
                best, best_flux, at_x, at_y = dp * dp / pp, dp / pp, ox, oy
    return best_flux, at_x, at_y


@njit(cache=True)
def _gauss_newton_dipole(data, weight, fine, half, p, planes):  # type: ignore[no-untyped-def]
    """Improve p = (flux, dx, dy) of both lobes in place; return chi-square and the error of the second flux."""
    matrix, vector, row = np.zeros((6, 6)), np.zeros(6), np.zeros(6)
    best, best_chi2, err = p.copy(), np.inf, np.inf
    damping = 1e-3
    for _ in range(12):
        render(fine, p[1], p[2], half, planes[0], planes[1], planes[2])
        render(fine, p[4], p[5], half, planes[3], planes[4], planes[5])
        matrix[:] = 0.0
        vector[:] = 0.0
        chi2 = 0.0
        for j in range(2 * half + 1):
            for i in range(2 * half + 1):
                w = weight[j, i]
                if w == 0.0:
                    continue
                row[0], row[1], row[2] = planes[0, j, i], p[0] * planes[1, j, i], p[0] * planes[2, j, i]
                row[3], row[4], row[5] = planes[3, j, i], p[3] * planes[4, j, i], p[3] * planes[5, j, i]
                r = data[j, i] - p[0] * row[0] - p[3] * row[3]
                chi2 += w * r * r
                for a in range(6):
                    vector[a] += w * row[a] * r
                    for b in range(6):
                        matrix[a, b] += w * row[a] * row[b]
        if chi2 < best_chi2:
            converged = best_chi2 - chi2 < 1e-3 * chi2
            best_chi2, damping = chi2, damping * 0.3
            best[:] = p
            err = 1.0 / np.sqrt(matrix[3, 3])
            if converged:
                break
        else:
            damping *= 10.0
        for a in range(6):
            matrix[a, a] *= 1.0 + damping
        step = cholesky_solve(matrix, vector)
        if not np.isfinite(step).all():
            break
        for a in range(6):
            p[a] += step[a] if a in (0, 3) else min(max(step[a], -0.7), 0.7)
        if max(abs(p[1]), abs(p[2]), abs(p[4]), abs(p[5])) > half:
            break
    p[:] = best
    return best_chi2, err


@njit(cache=True)
def _line(fine, place, half, reach, model):  # type: ignore[no-untyped-def]
    """Fill ``model`` with a line of unit flux, place = (dx, dy, length, angle): PSFs at most a pixel apart."""
    n = max(3, int(np.ceil(abs(place[2]))) + 2)
    model[:] = 0.0
    c, s = np.cos(place[3]), np.sin(place[3])
    for k in range(n):
        t = ((k + 0.5) / n - 0.5) * place[2]
        add_value(fine, place[0] + t * c, place[1] + t * s, half, reach, 1.0 / n, model)


@njit(cache=True)
def _trails(image, variance, usable, stamps, cell_y, cell_x, x, y, flux, length, angle_deg, reach):  # type: ignore[no-untyped-def]
    out = np.zeros((x.size, 4))
    for k in range(x.size):
        out[k, 1], out[k, 2], out[k, 3] = angle_deg[k], flux[k], 1.0
        if not length[k] > 0:
            continue
        half = reach + min(int(0.75 * length[k]), MAX_HALF_TRAIL)
        side = 2 * half + 1
        data, weight, planes = np.empty((side, side)), np.empty((side, side)), np.empty((6, side, side))
        x0, y0 = int(np.rint(x[k])), int(np.rint(y[k]))
        if 2 * _box(image, variance, usable, x0, y0, half, data, weight) < side * side:
            continue
        fine = stamp_at(stamps, cell_y, cell_x, x[k], y[k])
        render_value(fine, x[k] - x0, y[k] - y0, half, planes[5])
        chi2_psf = _linear_flux(data, weight, planes[5])[2]
        place = np.array([x[k] - x0, y[k] - y0, length[k], np.radians(angle_deg[k])])
        steps = 10 if length[k] < 2 * reach else 2  # a line across the whole box needs no more than its direction
        f, chi2 = _gauss_newton_line(data, weight, fine, half, reach, steps, place, planes)
        if chi2 < chi2_psf:
            out[k, 0], out[k, 1] = abs(place[2]), np.degrees(place[3])
            out[k, 2], out[k, 3] = f, chi2 / chi2_psf
    return out


@njit(cache=True)
def _gauss_newton_line(data, weight, fine, half, reach, steps, place, planes):  # type: ignore[no-untyped-def]
    """Improve the line in place, with numerical derivatives; return flux and chi-square."""
    matrix, vector, row = np.zeros((5, 5)), np.zeros(5), np.zeros(5)
    best, best_chi2, best_flux, damping = place.copy(), np.inf, 0.0, 1e-2
    deltas = np.array([0.1, 0.1, 0.2, 0.03])
    trial = place.copy()
    for _ in range(steps):
        _line(fine, place, half, reach, planes[0])
        f, _, chi2 = _linear_flux(data, weight, planes[0])
        if chi2 < best_chi2:
            converged = best_chi2 - chi2 < 1e-3 * chi2
            best_chi2, best_flux, damping = chi2, f, damping * 0.3
            best[:] = place
            if converged:
                break
        else:
            damping *= 10.0
            place[:] = best
            _line(fine, place, half, reach, planes[0])
            f = best_flux
        for a in range(4):
            trial[:] = place
            trial[a] += deltas[a]
            _line(fine, trial, half, reach, planes[a + 1])
        matrix[:] = 0.0
        vector[:] = 0.0
        for j in range(2 * half + 1):
            for i in range(2 * half + 1):
                w = weight[j, i]
                row[0] = planes[0, j, i]
                for a in range(4):
                    row[a + 1] = f * (planes[a + 1, j, i] - row[0]) / deltas[a]
                r = data[j, i] - f * row[0]
                for a in range(5):
                    vector[a] += w * row[a] * r
                    for b in range(5):
                        matrix[a, b] += w * row[a] * row[b]
        for a in range(5):
            matrix[a, a] *= 1.0 + damping
        step = cholesky_solve(matrix, vector)
        if not np.isfinite(step).all():
            break
        for a in range(2):
            place[a] += min(max(step[a + 1], -1.0), 1.0)
        place[2] = min(max(place[2] + min(max(step[3], -3.0), 3.0), 0.0), 2.5 * half)
        place[3] += min(max(step[4], -0.3), 0.3)
        if max(abs(place[0]), abs(place[1])) > half:
            break
    place[:] = best
    return best_flux, best_chi2
