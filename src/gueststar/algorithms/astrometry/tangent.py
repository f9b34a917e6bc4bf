"""The gnomonic projection and the TPV polynomial, forward and backward.

TPV is the registered FITS convention of SCAMP: a full polynomial in the intermediate world
coordinates (xi, eta), degrees, for each axis, with the terms of odd powers of r left out here.
Calabretta & Greisen (2002, A&A 395, 1077) give the projection.
"""

from __future__ import annotations

import numba
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

_DEGREE = 5
"""Highest total power."""

N_TPV = 23
"""Length of a TPV coefficient vector (indices 0 to 22)."""


def identity_tpv() -> Floats:
    """Return the coefficients of no distortion."""
    pv = np.zeros(N_TPV)
    pv[1] = 1.0
    return pv


def tpv_axis(pv: Floats, own: Floats, other: Floats) -> Floats:
    """Return the distorted coordinate of one axis, degrees."""
    a, b = np.broadcast_arrays(np.asarray(own, dtype=np.float64), np.asarray(other, dtype=np.float64))
    return np.asarray(_evaluate_all(_table_of(pv), a.ravel(), b.ravel())).reshape(a.shape)


def tpv_forward(pv1: Floats, pv2: Floats, xi: Floats, eta: Floats) -> tuple[Floats, Floats]:
    """Return distorted (xi, eta) from the linear intermediate coordinates, degrees."""
    return tpv_axis(pv1, xi, eta), tpv_axis(pv2, eta, xi)


def tpv_inverse(pv1: Floats, pv2: Floats, xi: Floats, eta: Floats, *, iterations: int = 12) -> tuple[Floats, Floats]:
    """Return the linear coordinates that `tpv_forward` takes to (xi, eta), by Newton's method.

    NaN where it does not converge to 1e-10 degrees (0.4 microarcsec).
    """
    a, b = np.broadcast_arrays(np.asarray(xi, dtype=np.float64), np.asarray(eta, dtype=np.float64))
    first, second = _invert_all(_table_of(pv1), _table_of(pv2), a.ravel(), b.ravel(), iterations)
    return first.reshape(a.shape), second.reshape(a.shape)


def _table_of(pv: Floats) -> Floats:
    """Return coefficients by power: ``[i, j]`` belongs to own**i other**j."""
    table = np.zeros((_DEGREE + 1, _DEGREE + 1))
    for m, (i, j) in TPV_POWERS.items():
        table[i, j] = pv[m]
    return table


@numba.njit(cache=True)
def _evaluate(table, a, b):  # type: ignore[no-untyped-def]
    """Return the polynomial and its derivatives by ``a`` and by ``b``, by Horner's scheme."""
    value, by_a, by_b = 0.0, 0.0, 0.0
    for i in range(_DEGREE, -1, -1):
        row, slope = 0.0, 0.0
        for j in range(_DEGREE - i, -1, -1):
            slope = slope * b + row
            row = row * b + table[i, j]
        by_a = by_a * a + value
        value = value * a + row
        by_b = by_b * a + slope
    return value, by_a, by_b


@numba.njit(cache=True)
def _evaluate_all(table, a, b):  # type: ignore[no-untyped-def]
    values = np.empty(a.size)
    for k in range(a.size):
        values[k] = _evaluate(table, a[k], b[k])[0]
    return values


@numba.njit(cache=True, error_model="numpy")
def _invert_all(table1, table2, xi, eta, iterations):  # type: ignore[no-untyped-def]
    """Return the places that the two polynomials take to (xi, eta); NaN where they are not found."""
    first, second = np.empty(xi.size), np.empty(xi.size)
    for k in range(xi.size):
        a, b = xi[k], eta[k]
        first[k], second[k] = np.nan, np.nan
        for _ in range(iterations + 1):
            u, u_a, u_b = _evaluate(table1, a, b)
            v, v_b, v_a = _evaluate(table2, b, a)
            miss_u, miss_v = u - xi[k], v - eta[k]
            if abs(miss_u) < 1e-10 and abs(miss_v) < 1e-10:
                first[k], second[k] = a, b
                if abs(miss_u) < 1e-13 and abs(miss_v) < 1e-13:
                    break
            determinant = u_a * v_b - u_b * v_a
            a -= (v_b * miss_u - u_b * miss_v) / determinant
            b -= (u_a * miss_v - v_a * miss_u) / determinant
    return first, second


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
