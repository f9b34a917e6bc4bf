"""Approximate SDSS magnitudes of stars from Gaia's three passbands."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class _Relation(NamedTuple):
    coefficients: tuple[float, ...]
    """Of G minus the band, in rising powers of BP - RP."""
    colours: tuple[float, float]
    scatter: float


_RELATIONS = {
    "g": _Relation((0.2199, -0.6365, -0.1548, 0.0064), (0.3, 3.0), 0.0745),
    "r": _Relation((-0.09837, 0.08592, 0.1907, -0.1701, 0.02263), (0.0, 3.0), 0.03776),
    "i": _Relation((-0.293, 0.6404, -0.09609, -0.002104), (0.5, 2.0), 0.04092),
    "z": _Relation((-0.4619, 0.8992, -0.08271, 0.005029), (0.5, 2.0), 0.041),
}
"""Gaia DR3 documentation, section 5.5.1 (Carrasco & Bellazzini): G - band as polynomials of BP - RP."""


def sdss_from_gaia(band: str, *, g_mag: ArrayLike, bp_rp: ArrayLike, g_err: ArrayLike = 0.0) -> tuple[Floats, Floats]:
    """Return (magnitude, error) in the SDSS band g, r, i or z, AB, from Gaia G and BP - RP (Vega).

    The error holds the relation's scatter (0.04 to 0.07 mag). NaN outside the colours of the relation.
    """
    relation = _RELATIONS[band]
    colour = np.asarray(bp_rp, dtype=np.float64)
    low, high = relation.colours
    magnitude = np.asarray(g_mag, dtype=np.float64) - np.polynomial.polynomial.polyval(colour, relation.coefficients)
    valid = (colour >= low) & (colour <= high) & np.isfinite(magnitude)
    error = np.hypot(np.asarray(g_err, dtype=np.float64), relation.scatter) + np.zeros_like(colour)
    return np.where(valid, magnitude, np.nan), np.where(valid, error, np.nan)
