"""Find isolated stars and fit the PSF to them, for registration and flux ratio."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.subtraction.fine_psf import FinePsf, render, stamp_at

Float32Image = NDArray[np.float32]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


_STRETCH = 128
"""Pixels of a row that are passed over together where none of them is bright."""


class StarFits(NamedTuple):
    """PSF fits at given places; NaN where a fit failed."""

    x: Floats
    y: Floats
    flux: Floats
    x_err: Floats
    y_err: Floats
    flux_err: Floats
    chi2: Floats
    """Reduced chi-square over the fitted box."""

    def where(self, chosen: Bools) -> StarFits:
        """Return the stars that are chosen."""
        return StarFits(*(column[chosen] for column in self))


def find_isolated_stars(
    image: Float32Image,
    variance: Float32Image,
    usable: Bools,
    *,
    fwhm: float,
    snr: float = 20.0,
    max_stars: int = 800,
    cells: int = 8,
) -> tuple[Floats, Floats]:
    """Return (x, y) of bright peaks whose surroundings hold neither masked pixels nor a rival.

    A peak is the highest pixel within two FWHM, above ``snr`` in itself, all of whose neighbours within two
    FWHM are usable and of which no pixel up to four FWHM away exceeds a tenth (half, within 2.3 FWHM). The
    brightest are taken first in each of ``cells`` x ``cells`` parts of the image, so that they cover it.
    """
    reach = max(3, round(2 * fwhm))
    wide = max(reach + 1, round(4 * fwhm))
    found = np.asarray(_isolated_peaks(image, variance, usable, snr, reach, wide, max(1.5 * fwhm, 2.0)))
    if found.shape[0] == 0:
        return np.zeros(0), np.zeros(0)
    ny, nx = image.shape
    cell = (found[:, 1] * cells // ny).astype(np.int64) * cells + (found[:, 0] * cells // nx).astype(np.int64)
    order = np.lexsort((found[:, 0], found[:, 1], -found[:, 2], cell))
    cell = cell[order]
    start = np.searchsorted(cell, cell)
    rank = np.arange(cell.size) - start
    chosen = order[np.argsort(rank, kind="stable")][:max_stars]
    return found[chosen, 0].copy(), found[chosen, 1].copy()


def fit_stars(
    image: Float32Image,
    variance: Float32Image,
    usable: Bools,
    psf: FinePsf,
    *,
    x: Floats,
    y: Floats,
    radius: int,
    with_background: bool = True,
    max_shift: float = 2.0,
    min_usable: float = 0.5,
) -> StarFits:
    """Fit flux and place (and a constant background) of a PSF in boxes of side ``2 radius + 1`` at (x, y).

    Unusable pixels are left out; a fit that moves by more than ``max_shift`` pixels or of whose box less than
    ``min_usable`` is left fails.
    """
    out = _fit_all(
        image, variance, usable, psf.stamps, psf.cell[0], psf.cell[1],
        np.asarray(x, np.float64), np.asarray(y, np.float64), min(radius, psf.half),
        with_background, max_shift, min_usable,
    )  # fmt: skip
    return StarFits(*(out[:, k].copy() for k in range(7)))


@njit(cache=True)
def _isolated_peaks(image, variance, usable, snr, reach, wide, inner):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    found = []
    for y in range(wide, ny - wide):
        for left in range(wide, nx - wide, _STRETCH):
            right = min(left + _STRETCH, nx - wide)
            if not _has_bright(image[y, left:right], variance[y, left:right], np.float32(0.99 * snr * snr)):
                continue
            for x in range(left, right):
                v = image[y, x]
                if not (v > snr * np.sqrt(variance[y, x])):
                    continue
                if v < image[y, x - 1] or v < image[y, x + 1] or v < image[y - 1, x] or v < image[y + 1, x]:
                    continue
                if _is_isolated(image, usable, x, y, reach, wide, inner, 5.0 * np.sqrt(variance[y, x])):
                    found.append((float(x), float(y), float(v)))
    if len(found) == 0:
        return np.zeros((0, 3))
    return np.array(found)


@njit(cache=True, _nrt=False)
def _has_bright(image, variance, least):  # type: ignore[no-untyped-def]
    """Return whether the square of the signal to noise of a positive pixel exceeds ``least``: many pixels at once."""
    n, zero = 0, np.float32(0)
    for x in range(image.size):
        n += (image[x] > zero) & (image[x] * image[x] > least * variance[x])
    return n > 0


@njit(cache=True)
def _is_isolated(image, usable, x, y, reach, wide, inner, noise):  # type: ignore[no-untyped-def]
    v = image[y, x]
    for j in range(-wide, wide + 1):
        for i in range(-wide, wide + 1):
            r2 = i * i + j * j
            value = image[y + j, x + i]
            if r2 <= reach * reach and not usable[y + j, x + i]:
                return False
            if r2 > wide * wide:
                continue
            if r2 <= inner * inner:
                if value > v or (value == v and (j < 0 or (j == 0 and i < 0))):
                    return False
            elif value > max(0.5 * v, noise) or (r2 > 2.25 * inner * inner and value > max(0.1 * v, noise)):
                return False
    return True


@njit(cache=True)
def _fit_all(image, variance, usable, stamps, cell_y, cell_x, x, y, half, with_background, max_shift, min_usable):  # type: ignore[no-untyped-def]
    out = np.full((x.size, 7), np.nan)
    side = 2 * half + 1
    value, gx, gy = np.empty((side, side)), np.empty((side, side)), np.empty((side, side))
    for k in range(x.size):
        fine = stamp_at(stamps, cell_y, cell_x, x[k], y[k])
        fit_one(
            image,
            variance,
            usable,
            fine,
            x[k],
            y[k],
            half,
            with_background,
            max_shift,
            min_usable,
            value,
            gx,
            gy,
            out[k],
        )
    return out


@njit(cache=True)
def fit_one(image, variance, usable, fine, x, y, half, with_background, max_shift, min_usable, value, gx, gy, out):  # type: ignore[no-untyped-def]
    """Fit one PSF by Gauss-Newton steps; write x, y, flux, their errors and chi2 to ``out``.

    ``out`` is left as it is when the fit fails.
    """
    ny, nx = image.shape
    x0, y0 = int(np.rint(x)), int(np.rint(y))
    if x0 < 0 or y0 < 0 or x0 >= nx or y0 >= ny:
        return
    n_par = 4 if with_background else 3
    dx, dy, flux = x - x0, y - y0, 0.0
    sky = 0.0
    matrix, vector = np.zeros((4, 4)), np.zeros(4)
    row = np.zeros(4)
    chi2, n = 0.0, 0
    for iteration in range(12):
        render(fine, dx, dy, half, value, gx, gy)
        matrix[:] = 0.0
        vector[:] = 0.0
        chi2, n = 0.0, 0
        for j in range(-half, half + 1):
            if y0 + j < 0 or y0 + j >= ny:
                continue
            for i in range(-half, half + 1):
                if x0 + i < 0 or x0 + i >= nx or not usable[y0 + j, x0 + i]:
                    continue
                v = variance[y0 + j, x0 + i]
                if not v > 0:
                    continue
                w = 1.0 / v
                p = value[j + half, i + half]
                residual = image[y0 + j, x0 + i] - flux * p - sky
                row[0], row[1], row[2], row[3] = p, flux * gx[j + half, i + half], flux * gy[j + half, i + half], 1.0
                for a in range(4):
                    vector[a] += w * row[a] * residual
                    for b in range(a + 1):
                        matrix[a, b] += w * row[a] * row[b]
                chi2 += w * residual * residual
                n += 1
        if n < min_usable * (2 * half + 1) ** 2:
            return
        if iteration == 0:  # the flux is not known yet: first only the linear part
            flux, sky = _linear_start(matrix, vector, with_background)
            continue
        if matrix[1, 1] <= 0 or matrix[2, 2] <= 0 or flux == 0:
            return
        step = _solve(matrix, vector, n_par)
        flux += step[0]
        dx += min(max(step[1], -0.7), 0.7)
        dy += min(max(step[2], -0.7), 0.7)
        sky += step[3]
        if np.hypot(dx - (x - x0), dy - (y - y0)) > max_shift or not np.isfinite(flux):
            return
        if abs(step[1]) < 1e-3 and abs(step[2]) < 1e-3:
            break
    errors = _inverse_diagonal(matrix, n_par)
    if not (errors[0] > 0 and errors[1] > 0 and errors[2] > 0):
        return
    out[0], out[1], out[2] = x0 + dx, y0 + dy, flux
    out[3], out[4], out[5] = np.sqrt(errors[1]), np.sqrt(errors[2]), np.sqrt(errors[0])
    out[6] = chi2 / max(n - n_par, 1)


@njit(cache=True)
def _linear_start(matrix, vector, with_background):  # type: ignore[no-untyped-def]
    if not with_background:
        return vector[0] / matrix[0, 0] if matrix[0, 0] > 0 else 0.0, 0.0
    det = matrix[0, 0] * matrix[3, 3] - matrix[3, 0] ** 2
    if det <= 0:
        return 0.0, 0.0
    flux = (matrix[3, 3] * vector[0] - matrix[3, 0] * vector[3]) / det
    return flux, (matrix[0, 0] * vector[3] - matrix[3, 0] * vector[0]) / det


@njit(cache=True)
def _full(matrix, n_par):  # type: ignore[no-untyped-def]
    full = np.zeros((n_par, n_par))
    for a in range(n_par):
        for b in range(a + 1):
            full[a, b] = full[b, a] = matrix[a, b]
    return full


@njit(cache=True)
def cholesky_solve(full, vector):  # type: ignore[no-untyped-def]
    """Solve a small positive-definite system; NaN when it is not."""
    n = vector.size
    low = np.zeros((n, n))
    for a in range(n):
        for b in range(a + 1):
            s = full[a, b]
            for c in range(b):
                s -= low[a, c] * low[b, c]
            if a == b:
                if s <= 0:
                    return np.full(n, np.nan)
                low[a, a] = np.sqrt(s)
            else:
                low[a, b] = s / low[b, b]
    z = np.zeros(n)
    for a in range(n):
        s = vector[a]
        for c in range(a):
            s -= low[a, c] * z[c]
        z[a] = s / low[a, a]
    for a in range(n - 1, -1, -1):
        s = z[a]
        for c in range(a + 1, n):
            s -= low[c, a] * z[c]
        z[a] = s / low[a, a]
    return z


@njit(cache=True)
def _solve(matrix, vector, n_par):  # type: ignore[no-untyped-def]
    step = np.zeros(4)
    step[:n_par] = cholesky_solve(_full(matrix, n_par), vector[:n_par])
    return step


@njit(cache=True)
def _inverse_diagonal(matrix, n_par):  # type: ignore[no-untyped-def]
    full = _full(matrix, n_par)
    diagonal = np.zeros(n_par)
    unit = np.zeros(n_par)
    for a in range(n_par):
        unit[:] = 0.0
        unit[a] = 1.0
        diagonal[a] = cholesky_solve(full, unit)[a]
    return diagonal
