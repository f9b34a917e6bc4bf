"""From electrons to nanojansky."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gueststar.core.errors import DataError

NJY_ZERO_POINT = 31.4
"""AB magnitude of 1 nJy (to 0.0001 mag: 8.9 + 22.5)."""


@dataclass(frozen=True)
class PhotoCal:
    """Photometric calibration of one detector image, AB system.

    ``m = zero_point - 2.5 log10(flux) + colour_term * colour``, flux in electrons per exposure (in
    the image's unit), ``colour`` the catalog colour named by ``colour_name`` (for example ``g-r``).
    Without a colour the term is left out, so fluxes are for a source of colour 0, as in ZTF.
    """

    zero_point: float
    zero_point_err: float
    zero_point_rms: float = 0.0
    """Scatter of the calibrators about the solution, mag."""
    colour_term: float = 0.0
    colour_term_err: float = 0.0
    colour_name: str = ""
    band: str = ""
    """Catalog band the magnitudes are tied to."""
    n_calibrators: int = 0
    median_colour: float = 0.0
    rms_colour: float = 0.0
    zero_point_colour_cov: float = 0.0
    """Covariance of zero point and colour term, mag."""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.zero_point) and np.isfinite(self.zero_point_err)):
            raise DataError(f"zero point {self.zero_point} ± {self.zero_point_err} is not finite")

    def magnitude_error(self, colour: ArrayLike = 0.0) -> NDArray[np.float64]:
        """Return the error that zero point and colour term share out to sources of a catalog colour, mag.

        It is common to all sources of an image of one colour, and not part of the errors of fluxes. It is least near
        the calibrators' ``median_colour``; for colour 0, as catalog magnitudes are given, it is ``zero_point_err``.
        """
        c = np.asarray(colour, dtype=np.float64)
        variance = self.zero_point_err**2 + 2.0 * c * self.zero_point_colour_cov + (c * self.colour_term_err) ** 2
        return np.sqrt(np.maximum(variance, 0.0))

    @property
    def njy_per_unit(self) -> float:
        """Flux in nJy of one image unit."""
        return float(10.0 ** (0.4 * (NJY_ZERO_POINT - self.zero_point)))

    def magnitude(self, flux: ArrayLike) -> NDArray[np.float64]:
        """Return AB magnitudes of image-unit fluxes; NaN where the flux is not positive."""
        values = np.asarray(flux, dtype=np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(values > 0, self.zero_point - 2.5 * np.log10(values), np.nan)

    def flux(self, magnitude: ArrayLike) -> NDArray[np.float64]:
        """Return image-unit fluxes of AB magnitudes."""
        return np.asarray(10.0 ** (0.4 * (self.zero_point - np.asarray(magnitude, dtype=np.float64))))
