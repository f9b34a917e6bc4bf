"""From a plane map to the CD matrix and TPV coefficients, exactly."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.astrometry.polynomial import PlaneMap, polynomial_powers, substitute
from gueststar.algorithms.astrometry.tangent import N_TPV, TPV_POWERS, identity_tpv

Floats = NDArray[np.float64]


class TpvTerms(NamedTuple):
    """What a TPV header holds beside the reference point on the sky."""

    crpix: tuple[float, float]
    """0-based."""
    cd: Floats
    """Degrees per pixel."""
    pv1: Floats
    pv2: Floats


def tpv_from_plane_map(plane_map: PlaneMap) -> TpvTerms:
    """Return the TPV form of a plane map of order 5 or less.

    The linear part becomes the CD matrix. A linear map's constant moves the reference pixel, so that it is a plain
    tangent plane; otherwise the constants are PV1_0 and PV2_0.
    """
    cd = plane_map.matrix / 3600.0
    is_linear = not np.any(plane_map.coefficients[:, 3:])
    if is_linear:
        back = np.linalg.solve(cd, plane_map.coefficients[:, 0] / 3600.0)
        return TpvTerms((plane_map.x0 - back[0], plane_map.y0 - back[1]), cd, identity_tpv(), identity_tpv())
    inverse = np.asarray(np.linalg.inv(cd * plane_map.unit), dtype=np.float64)
    terms = substitute(plane_map.coefficients / 3600.0, inverse)
    by_power = {power: k for k, power in enumerate(polynomial_powers(plane_map.order))}
    pv = np.zeros((2, N_TPV))
    for m, (own, other) in TPV_POWERS.items():
        if own + other <= plane_map.order:
            pv[0, m] = terms[0, by_power[own, other]]
            pv[1, m] = terms[1, by_power[other, own]]
    return TpvTerms((plane_map.x0, plane_map.y0), cd, pv[0], pv[1])
