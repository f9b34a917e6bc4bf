"""How two calibrated images of the same sky lie with respect to each other beyond what their WCS say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.subtraction.match import PolynomialField, fit_polynomial_field
from gueststar.algorithms.subtraction.stars import StarFits, fit_stars
from gueststar.algorithms.warp.position_map import PositionMap, Transform, map_jacobians, map_positions
from gueststar.model.image import CalibratedImage
from gueststar.model.wcs import Wcs
from gueststar.pipelines.difference._stars import NOT_FOR_STARS, are_on_both, fine_psf_of, isolated_stars_of

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RegistrationConfig:
    """How the registration of two images is measured."""

    star_snr: float = 30.0
    """Signal to noise per peak pixel of the stars that are compared."""
    max_stars: int = 800
    """Stars to use at most."""
    min_stars: int = 10
    """Fewer matched stars than this say nothing."""
    shift_order: int = 3
    """Polynomial order of the residual shift over the image."""
    search_radius: float = 3.5
    """How far off a star may be from where the WCS puts it, pixels of the other image."""


class Registration(NamedTuple):
    """What matched stars say; all neutral with ``n_stars`` 0 when they are too few."""

    shift_x: PolynomialField
    """Shift of the other image's stars from where the two WCS put them, pixels of the first image."""
    shift_y: PolynomialField
    median_shift: float
    flux_ratio: float
    """Measured over predicted (zero points) flux of the first per flux of the other."""
    flux_ratio_rms: float
    n_stars: int

    @property
    def rms(self) -> float:
        """Scatter of the stars about the shift solution, pixels, the worse axis; NaN if unknown."""
        return max(self.shift_x.rms, self.shift_y.rms) if self.n_stars else float("nan")


def sky_transform(first: Wcs, other: Wcs) -> Transform:
    """Return the function from pixels of the first image to pixels of the other, by way of the sky."""

    def transform(x: Floats, y: Floats) -> tuple[Floats, Floats]:
        ra, dec = first.pixel_to_sky(x=x, y=y)
        return other.sky_to_pixel(ra=ra, dec=dec)

    return transform


def shifted_transform(transform: Transform, found: Registration) -> Transform:
    """Return ``transform`` with the measured shift in it."""

    def shifted(x: Floats, y: Floats) -> tuple[Floats, Floats]:
        ny, nx = found.shift_x.shape
        inside = np.clip(x, 0, nx - 1), np.clip(y, 0, ny - 1)  # a polynomial is not to be trusted further out
        return transform(x + found.shift_x(*inside), y + found.shift_y(*inside))

    return shifted


def measure_registration(
    first: CalibratedImage, other: CalibratedImage, position_map: PositionMap, config: RegistrationConfig
) -> Registration:
    """Fit isolated stars of the first image on both, each on its own pixels, and compare places and fluxes.

    ``position_map`` takes pixels of the first image to pixels of the other.
    """
    ours, theirs, jacobian = _matched_fits(first, other, position_map, config)
    n = ours.x.size
    if n < config.min_stars:
        nothing = PolynomialField(np.zeros(1), 0, first.shape, 0.0, 0)
        return Registration(nothing, nothing, 0.0, 1.0, float("nan"), 0)
    predicted = map_positions(position_map, x=ours.x, y=ours.y)
    offset = np.stack([theirs.x - predicted[0], theirs.y - predicted[1]], axis=1)
    shift: Floats = np.linalg.solve(jacobian, offset[:, :, None])[:, :, 0].astype(np.float64)
    scale = np.asarray(np.sqrt(np.abs(np.linalg.det(jacobian))), dtype=np.float64)
    error_x, error_y = np.hypot(ours.x_err, theirs.x_err / scale), np.hypot(ours.y_err, theirs.y_err / scale)
    order = config.shift_order
    zero_points = 10.0 ** (0.4 * (first.photocal.zero_point - other.photocal.zero_point))
    ratio = ours.flux / (theirs.flux * zero_points)
    median = float(np.median(ratio))
    return Registration(
        fit_polynomial_field(ours.x, ours.y, shift[:, 0], error_x, first.shape, order=order),
        fit_polynomial_field(ours.x, ours.y, shift[:, 1], error_y, first.shape, order=order),
        float(np.median(np.hypot(shift[:, 0], shift[:, 1]))),
        median,
        1.4826 * float(np.median(np.abs(ratio / median - 1.0))),
        int(n),
    )


def registration_metadata(found: Registration) -> dict[str, Any]:
    """Return the figures as plain values; None for what is not known."""
    known = found.n_stars > 0
    return {
        "registration_n_stars": found.n_stars,
        "registration_is_checked": known,
        "registration_shift": found.median_shift,
        "registration_rms_x": found.shift_x.rms if known else None,
        "registration_rms_y": found.shift_y.rms if known else None,
        "flux_ratio": found.flux_ratio,
        "flux_ratio_rms": found.flux_ratio_rms if known else None,
    }


def _matched_fits(
    first: CalibratedImage, other: CalibratedImage, position_map: PositionMap, config: RegistrationConfig
) -> tuple[StarFits, StarFits, Floats]:
    """Return fits of the same stars on both images, and the Jacobians there; rows where either fails are left out."""
    x, y = isolated_stars_of(first, snr=config.star_snr, max_stars=config.max_stars)
    fits = []
    for image, (px, py) in ((first, (x, y)), (other, map_positions(position_map, x=x, y=y))):
        on_sky = np.isfinite(px) & np.isfinite(py)
        pixels, radius = image.pixels, max(4, round(1.5 * image.psf.central_fwhm))
        fits.append(
            fit_stars(
                pixels.image, pixels.variance, pixels.is_usable(NOT_FOR_STARS), fine_psf_of(image.psf),
                x=np.where(on_sky, px, -100.0), y=np.where(on_sky, py, -100.0),
                radius=radius, max_shift=config.search_radius,
            )
        )  # fmt: skip
    good = are_on_both(*fits)
    return fits[0].where(good), fits[1].where(good), map_jacobians(position_map, x=x, y=y)[good]
