"""Gaia G from catalog magnitudes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_G_MINUS_R = (-0.01664, 0.2662, -0.649, 0.08227)
_G_MINUS_G_BAND = (-0.1064, -0.4964, -0.09339, 0.004444)


def gaia_g(mag_g: Floats, mag_r: Floats, mag_i: Floats) -> Floats:
    """Return Gaia G (Vega) from SDSS-like AB magnitudes; NaN where none is known.

    Polynomials in r - i, else in g - i (Riello et al. 2021, A&A 649, A3, table C.2), good to about
    0.05 mag for stars; where no colour is known, r stands for G, else g or i.
    """
    g, r, i = (np.asarray(mag, dtype=np.float64) for mag in (mag_g, mag_r, mag_i))
    from_r = r + _polynomial(_G_MINUS_R, np.clip(r - i, -0.5, 2.0))
    from_g = g + _polynomial(_G_MINUS_G_BAND, np.clip(g - i, -1.0, 6.0))
    best = np.full(np.broadcast(g, r, i).shape, np.nan)
    for estimate in (from_r, from_g, r, g, i):
        best = np.where(np.isfinite(best), best, estimate)
    return best


def _polynomial(coefficients: tuple[float, ...], colour: Floats) -> Floats:
    return np.asarray(sum(c * colour**k for k, c in enumerate(coefficients)))
