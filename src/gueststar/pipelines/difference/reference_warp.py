"""The reference image on the science image's pixels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from gueststar.algorithms.warp.lanczos import warp_pixels
from gueststar.algorithms.warp.position_map import PositionMap, build_position_map
from gueststar.core.bits import FOUND, MaskPlane
from gueststar.core.errors import DataError
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.pipelines.difference._registration import (
    Registration,
    RegistrationConfig,
    measure_registration,
    registration_metadata,
    shifted_transform,
    sky_transform,
)
from gueststar.pipelines.difference._warped_psf import warp_psf


@dataclass(frozen=True)
class ReferenceWarpConfig:
    """How the reference is laid onto a science image."""

    taps: int = 3
    """Order of the Lanczos kernel (3 or 4)."""
    registration: RegistrationConfig = field(default_factory=RegistrationConfig)
    """How the registration is checked."""
    max_shift: float = 2.5
    """Median residual shift beyond which the two images are not registered, pixels."""
    max_shift_rms: float = 0.5
    """Scatter of the stars about the shift solution beyond which registration is refused, pixels."""
    max_flux_ratio_change: float = 2.0
    """Factor by which the measured flux ratio may differ from that of the zero points."""
    min_coverage: float = 0.05
    """Fraction of the science image that the reference must cover."""


class WarpReference:
    """Resample the reference onto the science grid, in science electrons, registration checked and refined."""

    def __init__(self, config: ReferenceWarpConfig = ReferenceWarpConfig()) -> None:
        self.config = config

    def run(self, science: CalibratedImage, reference: CalibratedImage) -> CalibratedImage:
        """Return the reference on the grid, the WCS and the flux scale of ``science``.

        The result's metadata hold the reference's own and ``registration_*``, ``flux_ratio*`` and coverage figures.
        Raises DataError when the reference misses the image or cannot be registered on it.
        """
        transform = sky_transform(science.wcs, reference.wcs)
        position_map = build_position_map(transform, science.shape)
        registration = measure_registration(science, reference, position_map, self.config.registration)
        self._refuse_if_wrong(registration)
        if registration.n_stars:
            position_map = build_position_map(shifted_transform(transform, registration), science.shape)
        zero_points = 10.0 ** (0.4 * (science.photocal.zero_point - reference.photocal.zero_point))
        scale = zero_points * registration.flux_ratio
        pixels, noise_factor = self._warp(reference.pixels, position_map, scale)
        coverage = np.count_nonzero(pixels.is_usable(MaskPlane.NO_DATA)) / pixels.mask.size
        if coverage < self.config.min_coverage:
            raise DataError(
                f"reference covers {coverage:.1%} of the science image, needs {self.config.min_coverage:.0%}"
            )
        metadata = reference.metadata | registration_metadata(registration)
        metadata |= {"flux_scale": scale, "reference_coverage": coverage, "correlated_noise_factor": noise_factor}
        psf = warp_psf(reference.psf, position_map, taps=self.config.taps)
        photocal = replace(reference.photocal, zero_point=science.photocal.zero_point)
        return CalibratedImage(pixels, science.wcs, psf, photocal, metadata)

    def _warp(self, pixels: MaskedImage, position_map: PositionMap, scale: float) -> tuple[MaskedImage, float]:
        mask = pixels.mask & ~np.int32(int(FOUND))
        warped = warp_pixels(pixels.image, pixels.variance, mask, position_map, taps=self.config.taps, flux_scale=scale)
        return MaskedImage(warped.image, warped.variance, warped.mask), warped.correlated_noise_factor

    def _refuse_if_wrong(self, found: Registration) -> None:
        if found.n_stars == 0:
            return
        if found.median_shift > self.config.max_shift or found.rms > self.config.max_shift_rms:
            raise DataError(
                f"reference is off by {found.median_shift:.2f} pixels with a scatter of {found.rms:.2f} over"
                f" {found.n_stars} stars: check both WCS"
            )
        limit = self.config.max_flux_ratio_change
        if not 1.0 / limit < found.flux_ratio < limit:
            raise DataError(
                f"stars are {found.flux_ratio:.2f} times as bright as the zero points of science and reference say"
            )
