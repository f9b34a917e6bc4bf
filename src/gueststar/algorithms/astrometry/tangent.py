"""The gnomonic projection and the TPV polynomial, forward and backward.

TPV is the registered FITS convention of SCAMP: a full polynomial in the intermediate world
coordinates (xi, eta), degrees, for each axis, with the terms of odd powers of r left out here.
Calabretta & Greisen (2002, A&A 395, 1077) give the projection.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TPV_POWERS: dict[int, tuple[int, int]] = {
    0: (0, 0), 1: (1, 0), 2: (0, 1), 4: (2, 0), 5: (1, 1), 6: (0, 2),
    7: (3, 0), 8: (2, 1), 9: (1, 2), 10: (0, 3),
    12: (4, 0), 13: (3, 1), 14: (2, 2), 15: (1, 3), 16: (0, 4),
    17: (5, 0), 18: (4, 1), 19: (3, 2), 20: (2, 3), 21: (1, 4), 22: (0, 5),
}  # fmt: skip
"""Index m of PVi_m -> powers of (own axis, other axis); 3 and 11 (odd powers of r) are not used."""

N_TPV = 23
"""Length of a TPV coefficient vector (indices 0 to 22)."""


def identity_tpv() -> Floats:
    """Return the coefficients of no distortion."""
    pv = np.zeros(N_TPV)
    pv[1] = 1.0
    return pv


def tpv_axis(pv: Floats, own: Floats, other: Floats) -> Floats:
    """Return the distorted coordinate of one axis, degrees."""
    result = np.zeros_like(own)
    for m, (i, j) in TPV_POWERS.items():
        if pv[m] != 0.0:
            result = result + pv[m] * own**i * other**j
    return result


def tpv_forward(pv1: Floats, pv2: Floats, xi: Floats, eta: Floats) -> tuple[Floats, Floats]:
    """Return distorted (xi, eta) from the linear intermediate coordinates, degrees."""
    return tpv_axis(pv1, xi, eta), tpv_axis(pv2, eta, xi)


def tpv_inverse(pv1: Floats, pv2: Floats, xi: Floats, eta: Floats, *, iterations: int = 12) -> tuple[Floats, Floats]:
    """Return the linear coordinates that `tpv_forward` takes to (xi, eta), by Newton's method.

    NaN where it does not converge to 1e-10 degrees (0.4 microarcsec).
    """
    a, b = np.array(xi, dtype=np.float64), np.array(eta, dtype=np.float64)
    for _ in range(iterations):
        fa, fb = tpv_forward(pv1, pv2, a, b)
        ra, rb = fa - xi, fb - eta
        if a.size == 0 or max(np.nanmax(np.abs(ra)), np.nanmax(np.abs(rb))) < 1e-12:
            break
        j11, j12 = _derivatives(pv1, a, b)
        j22, j21 = _derivatives(pv2, b, a)
        det = j11 * j22 - j12 * j21
        a = a - (j22 * ra - j12 * rb) / det
        b = b - (j11 * rb - j21 * ra) / det
    fa, fb = tpv_forward(pv1, pv2, a, b)
    bad = ~((np.abs(fa - xi) < 1e-10) & (np.abs(fb - eta) < 1e-10))
    return np.where(bad, np.nan, a), np.where(bad, np.nan, b)


def _derivatives(pv: Floats, own: Floats, other: Floats) -> tuple[Floats, Floats]:
    d_own, d_other = np.zeros_like(own), np.zeros_like(own)
    for m, (i, j) in TPV_POWERS.items():
        if pv[m] == 0.0:
            continue
        if i:
            d_own = d_own + pv[m] * i * own ** (i - 1) * other**j
        if j:
            d_other = d_other + pv[m] * j * own**i * other ** (j - 1)
    return d_own, d_other


def tangent_project(ra: Floats, dec: Floats, *, ra0: float, dec0: float) -> tuple[Floats, Floats]:
    """Return gnomonic (xi, eta), degrees, of sky positions about (ra0, dec0); NaN on the far hemisphere."""
    da, d, d0 = np.radians(ra - ra0), np.radians(dec), np.radians(dec0)
    cosc = np.sin(d0) * np.sin(d) + np.cos(d0) * np.cos(d) * np.cos(da)
    with np.errstate(divide="ignore", invalid="ignore"):
        xi = np.cos(d) * np.sin(da) / cosc
        eta = (np.cos(d0) * np.sin(d) - np.sin(d0) * np.cos(d) * np.cos(da)) / cosc
    far = cosc <= 0
    return np.where(far, np.nan, np.degrees(xi)), np.where(far, np.nan, np.degrees(eta))


def tangent_deproject(xi: Floats, eta: Floats, *, ra0: float, dec0: float) -> tuple[Floats, Floats]:
    """Return (ra in 0..360, dec), degrees, of gnomonic coordinates in degrees."""
    x, y, d0 = np.radians(xi), np.radians(eta), np.radians(dec0)
    denominator = np.cos(d0) - y * np.sin(d0)
    ra = ra0 + np.degrees(np.arctan2(x, denominator))
    dec = np.degrees(np.arctan2(np.sin(d0) + y * np.cos(d0), np.hypot(x, denominator)))
    return np.mod(ra, 360.0), dec
