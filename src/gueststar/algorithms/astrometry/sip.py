"""The same distortion in the SIP convention (Shupe et al. 2005), for programs that read no TPV."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.astrometry.polynomial import design_matrix, n_terms, polynomial_powers, substitute
from gueststar.algorithms.astrometry.tangent import TPV_POWERS

Floats = NDArray[np.float64]

_ORDER = 5
_ROUNDS = 20
"""Of Newton's method; the distortion is small, three are usual."""


class SipTerms(NamedTuple):
    """What a SIP header holds; the reference point on the sky stays."""

    crpix: tuple[float, float]
    """0-based."""
    cd: Floats
    """Degrees per pixel."""
    forward: dict[tuple[int, int], tuple[float, float]]
    """Powers (p, q) -> A_p_q and B_p_q."""
    inverse: dict[tuple[int, int], tuple[float, float]]
    """Powers (p, q) -> AP_p_q and BP_p_q, fitted over the image."""


def sip_from_tpv(
    *, crpix: tuple[float, float], cd: Floats, pv1: Floats, pv2: Floats, shape: tuple[int, int]
) -> SipTerms:
    """Return the SIP form of a TPV solution, exact in the forward direction.

    The reference pixel moves to where the sky's reference point falls; the linear part of the
    distortion goes into the CD matrix. ``shape`` (ny, nx) is where the inverse is fitted.
    """
    plane = substitute(_monomials(pv1, pv2), cd)
    origin = _root(plane)
    plane = substitute(plane, np.eye(2), origin)
    linear = plane[:, 1:3]
    pixels = np.asarray(np.linalg.solve(linear, plane), dtype=np.float64)
    powers = polynomial_powers(_ORDER)
    forward = {
        power: (float(pixels[0, k]), float(pixels[1, k]))
        for k, power in enumerate(powers)
        if sum(power) >= 2 and np.any(pixels[:, k])
    }
    reference = (crpix[0] + float(origin[0]), crpix[1] + float(origin[1]))
    inverse = _fitted_inverse(pixels, reference, shape) if forward else {}
    return SipTerms(reference, linear, forward, inverse)


def _monomials(pv1: Floats, pv2: Floats) -> Floats:
    """Return ``[2, n]`` coefficients of (xi, eta) in the order of `polynomial_powers`."""
    index = {power: k for k, power in enumerate(polynomial_powers(_ORDER))}
    result = np.zeros((2, n_terms(_ORDER)))
    for m, (own, other) in TPV_POWERS.items():
        result[0, index[own, other]] += pv1[m]
        result[1, index[other, own]] += pv2[m]
    return result


def _root(plane: Floats) -> Floats:
    """Return the pixel offset at which both coordinates are 0."""
    place = np.zeros(2)
    for _ in range(_ROUNDS):
        here = substitute(plane, np.eye(2), place)
        step = np.linalg.solve(here[:, 1:3], here[:, 0])
        place = place - step
        if np.max(np.abs(step)) < 1e-12:
            break
    return place


def _fitted_inverse(
    pixels: Floats, crpix: tuple[float, float], shape: tuple[int, int]
) -> dict[tuple[int, int], tuple[float, float]]:
    ny, nx = shape
    x, y = (g.ravel() for g in np.meshgrid(np.linspace(0, nx - 1, 25), np.linspace(0, ny - 1, 25)))
    u, v = x - crpix[0], y - crpix[1]
    bent = (design_matrix(u, v, _ORDER) @ pixels.T).T
    unit = max(nx, ny)
    design = design_matrix(bent[0] / unit, bent[1] / unit, _ORDER)
    solution, *_ = np.linalg.lstsq(design, np.stack([u - bent[0], v - bent[1]], axis=1), rcond=None)
    powers = polynomial_powers(_ORDER)
    return {
        power: (float(solution[k, 0]) / unit ** sum(power), float(solution[k, 1]) / unit ** sum(power))
        for k, power in enumerate(powers)
    }
