"""The reference image on the science image's pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.subtraction.fine_psf import cell_centres
from gueststar.algorithms.subtraction.match import PolynomialField, fit_polynomial_field
from gueststar.algorithms.subtraction.stars import StarFits, fit_stars
from gueststar.algorithms.warp.lanczos import warp_pixels
from gueststar.algorithms.warp.position_map import (
    PositionMap,
    Transform,
    build_position_map,
    map_jacobians,
    map_positions,
)
from gueststar.algorithms.warp.psf import fit_psf_polynomial, warp_psf_stamps
from gueststar.core.bits import MaskPlane
from gueststar.core.errors import DataError
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.psf import Psf
from gueststar.model.wcs import Wcs
from gueststar.pipelines.difference._stars import NOT_FOR_STARS, fine_psf_of, isolated_stars_of

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ReferenceWarpConfig:
    """How the reference is laid onto a science image."""

    taps: int = 3
    """Order of the Lanczos kernel (3 or 4)."""
    star_snr: float = 30.0
    """Signal to noise per peak pixel of the stars that check the registration."""
    max_stars: int = 800
    """Stars to use at most."""
    min_stars: int = 10
    """Fewer matched stars than this: the WCS and zero points are taken as they are."""
    shift_order: int = 3
    """Polynomial order of the residual shift between the two WCS over the image."""
    max_shift: float = 2.5
    """Median residual shift beyond which the two images are not registered, pixels."""
    max_shift_rms: float = 0.5
    """Scatter of the stars about the shift solution beyond which registration is refused, pixels."""
    max_flux_ratio_change: float = 2.0
    """Factor by which the measured flux ratio may differ from that of the zero points."""
    min_coverage: float = 0.05
    """Fraction of the science image that the reference must cover."""


class Registration(NamedTuple):
    """How the reference lies with respect to the science image beyond what the two WCS say."""

    shift_x: PolynomialField
    shift_y: PolynomialField
    median_shift: float
    flux_ratio: float
    """Measured over predicted (zero points) science flux per reference flux; 1 if there were too few stars."""
    flux_ratio_rms: float
    n_stars: int


class WarpReference:
    """Resample the reference onto the science grid, in science electrons, registration checked and refined."""

    def __init__(self, config: ReferenceWarpConfig = ReferenceWarpConfig()) -> None:
        self.config = config

    def run(self, science: CalibratedImage, reference: CalibratedImage) -> CalibratedImage:
        """Return the reference on the grid, the WCS and the flux scale of ``science``.

        The result's metadata hold ``registration_*`` and ``flux_ratio*`` figures. Raises DataError when the
        reference misses the image or cannot be registered on it.
        """
        scale = 10.0 ** (0.4 * (science.photocal.zero_point - reference.photocal.zero_point))
        transform = _between(science.wcs, reference.wcs)
        position_map = build_position_map(transform, science.shape)
        registration = self._register(science, reference, position_map, scale)
        if registration.n_stars:
            position_map = build_position_map(_shifted(transform, registration), science.shape)
        scale *= registration.flux_ratio
        pixels = self._warp(reference.pixels, position_map, scale)
        coverage = float(np.mean(pixels.is_usable(MaskPlane.NO_DATA)))
        if coverage < self.config.min_coverage:
            raise DataError(
                f"reference covers {coverage:.1%} of the science image, needs {self.config.min_coverage:.0%}"
            )
        metadata = _registration_metadata(registration) | {"flux_scale": scale, "reference_coverage": coverage}
        return CalibratedImage(
            pixels, science.wcs, warp_psf(reference.psf, position_map, taps=self.config.taps),
            replace(reference.photocal, zero_point=science.photocal.zero_point), reference.metadata | metadata,
        )  # fmt: skip

    def _warp(self, pixels: MaskedImage, position_map: PositionMap, scale: float) -> MaskedImage:
        warped = warp_pixels(pixels.image, pixels.variance, pixels.mask, position_map, taps=self.config.taps)
        factor = np.float32(scale)
        return MaskedImage(warped.image * factor, warped.variance * factor**2, warped.mask)

    def _register(
        self, science: CalibratedImage, reference: CalibratedImage, position_map: PositionMap, scale: float
    ) -> Registration:
        ours, theirs, jacobian = _matched_fits(science, reference, position_map, self.config)
        n = int(np.isfinite(ours.x).sum())
        if n < self.config.min_stars:
            nothing = fit_polynomial_field(ours.x, ours.y, ours.x, ours.x, science.shape, order=0)
            return Registration(nothing, nothing, 0.0, 1.0, float("nan"), 0)
        shift = _residual_shifts(ours, theirs, position_map, jacobian)
        error = np.hypot(ours.x_err, theirs.x_err), np.hypot(ours.y_err, theirs.y_err)
        fields = [
            fit_polynomial_field(ours.x, ours.y, shift[k], error[k], science.shape, order=self.config.shift_order)
            for k in (0, 1)
        ]
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = ours.flux / (theirs.flux * scale)
        usable = ratio[np.isfinite(ratio) & (ratio > 0)]
        median = float(np.median(usable)) if usable.size else 1.0
        rms = 1.4826 * float(np.median(np.abs(usable / median - 1.0))) if usable.size else float("nan")
        result = Registration(*fields, float(np.nanmedian(np.hypot(*shift))), median, rms, n)
        self._refuse_if_wrong(result)
        return result

    def _refuse_if_wrong(self, found: Registration) -> None:
        rms = max(found.shift_x.rms, found.shift_y.rms)
        if found.median_shift > self.config.max_shift or rms > self.config.max_shift_rms:
            raise DataError(
                f"reference is off by {found.median_shift:.2f} pixels with a scatter of {rms:.2f} over"
                f" {found.n_stars} stars: check both WCS"
            )
        limit = self.config.max_flux_ratio_change
        if not 1.0 / limit < found.flux_ratio < limit:
            raise DataError(
                f"stars are {found.flux_ratio:.2f} times as bright as the zero points of science and reference say"
            )


def warp_psf(psf: Psf, position_map: PositionMap, *, taps: int = 3, nodes: int = 5) -> Psf:
    """Return ``psf`` as it is after its image was resampled by ``position_map``, as a model on the new grid."""
    shape = position_map.shape
    x, y = cell_centres(shape, (nodes, nodes))
    source_x, source_y = map_positions(position_map, x=x, y=y)
    jacobians = map_jacobians(position_map, x=x, y=y)
    known = np.isfinite(source_x) & np.isfinite(jacobians).all(axis=(1, 2))
    if not known.any():
        raise DataError("no part of the target image lies on the source image")
    x, y, source_x, source_y, jacobians = (a[known] for a in (x, y, source_x, source_y, jacobians))
    ny, nx = psf.shape
    stamps = psf.stamps(x=np.clip(source_x, 0, nx - 1), y=np.clip(source_y, 0, ny - 1))
    side = _target_side(stamps.shape[1], position_map.scale)
    warped = warp_psf_stamps(stamps, jacobians, side=side, taps=taps)
    order = max(o for o in range(psf.order + 1) if o == 0 or known.sum() >= (o + 1) * (o + 2))
    return Psf(fit_psf_polynomial(warped, x=x, y=y, shape=shape, order=order), order, shape)


def _target_side(side: int, scale: float) -> int:
    return 2 * int(np.clip(round(side / 2 / scale), 5, 50)) + 1


def _between(science: Wcs, reference: Wcs) -> Transform:
    def transform(x: Floats, y: Floats) -> tuple[Floats, Floats]:
        ra, dec = science.pixel_to_sky(x=x, y=y)
        return reference.sky_to_pixel(ra=ra, dec=dec)

    return transform


def _shifted(transform: Transform, found: Registration) -> Transform:
    def shifted(x: Floats, y: Floats) -> tuple[Floats, Floats]:
        ny, nx = found.shift_x.shape
        inside = np.clip(x, 0, nx - 1), np.clip(y, 0, ny - 1)  # a polynomial is not to be trusted further out
        return transform(x + found.shift_x(*inside), y + found.shift_y(*inside))

    return shifted


def _matched_fits(
    science: CalibratedImage, reference: CalibratedImage, position_map: PositionMap, config: ReferenceWarpConfig
) -> tuple[StarFits, StarFits, Floats]:
    """Fit the same stars on both images, each on its own pixels; rows where either fails are left out."""
    x, y = isolated_stars_of(science, snr=config.star_snr, max_stars=config.max_stars)
    fits = []
    jacobian = map_jacobians(position_map, x=x, y=y)
    for image, (px, py) in ((science, (x, y)), (reference, map_positions(position_map, x=x, y=y))):
        inside = np.isfinite(px) & np.isfinite(py)
        radius = max(4, round(1.5 * image.psf.central_fwhm))
        px, py = np.where(inside, px, -10.0), np.where(inside, py, -10.0)
        fits.append(
            fit_stars(
                image.pixels.image,
                image.pixels.variance,
                image.pixels.is_usable(NOT_FOR_STARS),
                fine_psf_of(image.psf),
                x=px,
                y=py,
                radius=radius,
                max_shift=config.max_shift + 1.0,
            )  # fmt: skip
        )
    good = np.isfinite(fits[0].x) & np.isfinite(fits[1].x) & (fits[0].flux > 0) & (fits[1].flux > 0)
    return StarFits(*(a[good] for a in fits[0])), StarFits(*(a[good] for a in fits[1])), jacobian[good]


def _residual_shifts(
    ours: StarFits, theirs: StarFits, position_map: PositionMap, jacobian: Floats
) -> tuple[Floats, Floats]:
    """Return by how many science pixels each star's reference place is off from where the WCS put it."""
    predicted = map_positions(position_map, x=ours.x, y=ours.y)
    offset = np.stack([theirs.x - predicted[0], theirs.y - predicted[1]], axis=1)
    shift = np.linalg.solve(jacobian, offset[:, :, None])[:, :, 0]
    return shift[:, 0], shift[:, 1]


def _registration_metadata(found: Registration) -> dict[str, Any]:
    checked = found.n_stars > 0
    return {
        "registration_n_stars": found.n_stars,
        "registration_is_checked": checked,
        "registration_shift": found.median_shift,
        "registration_rms_x": found.shift_x.rms if checked else None,
        "registration_rms_y": found.shift_y.rms if checked else None,
        "flux_ratio": found.flux_ratio,
        "flux_ratio_rms": found.flux_ratio_rms if checked else None,
    }
