"""Artificial sources put into a calibrated image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.photometry.artificial import (
    add_light_in_place,
    choose_places,
    points_along,
    with_photon_noise,
)
from gueststar.core.bits import UNUSABLE
from gueststar.core.errors import DataError
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import NJY_ZERO_POINT

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class InjectionConfig:
    """How many artificial sources an image gets, and of what kind."""

    n: int = 200
    """Sources of an image; fewer where they would lie nearer to each other than ``separation_fwhm``."""
    brightest: float = -4.0
    """Magnitude of the brightest over the image's computed 5-sigma limit..."""
    faintest: float = 1.0
    """...and of the faintest; between them magnitudes are even."""
    separation_fwhm: float = 8.0
    """Least distance between artificial sources, FWHM: they must not hide each other."""
    trail_fraction: float = 0.0
    """Fraction that is trailed."""
    trail_fwhm: tuple[float, float] = (2.0, 8.0)
    """Range of the trails' lengths, FWHM."""
    match_radius_fwhm: float = 0.75
    """A detection is an artificial source's if it lies within this, FWHM (and at least one pixel)..."""
    flux_factor: float = 2.0
    """...and its flux is right to this factor."""
    bright_snr: float = 10.0
    """Flux errors are judged on sources whose true flux is so many times its error: of fainter ones luck decides."""


class InjectedImage(NamedTuple):
    """An image with artificial sources and where they are."""

    image: CalibratedImage
    x: Floats
    y: Floats
    magnitude: Floats
    flux: Floats
    """nJy."""
    trail_length: Floats
    """Pixels; 0: a star."""
    trail_angle_deg: Floats


class InjectSources:
    """Add stars (and trails) of the image's own PSF, with their photon noise, at random places."""

    def __init__(self, config: InjectionConfig = InjectionConfig()) -> None:
        self.config = config

    def run(self, image: CalibratedImage, *, limiting_mag: float, random: np.random.Generator) -> InjectedImage:
        """Return ``image`` (electrons, background-subtracted) with artificial sources, and the truth.

        Places are uniform over the pixels that carry usable flux, on stars and galaxies as beside them, at any
        sub-pixel phase. The variance grows by the light added. Raises DataError if no pixel is usable.
        """
        config, fwhm = self.config, image.psf.central_fwhm
        is_allowed = image.pixels.is_usable(UNUSABLE)
        if not is_allowed.any():
            raise DataError("no pixel is usable: nothing can be injected")
        x, y = choose_places(is_allowed, config.n, separation=config.separation_fwhm * fwhm, random=random)
        magnitude = limiting_mag + random.uniform(config.brightest, config.faintest, x.size)
        is_trailed = random.random(x.size) < config.trail_fraction
        length = np.where(is_trailed, fwhm * random.uniform(*config.trail_fwhm, x.size), 0.0)
        angle = random.uniform(-90.0, 90.0, x.size)
        electrons = image.photocal.flux(magnitude)
        source, at_x, at_y, share = points_along(x=x, y=y, length=length, angle_deg=angle)
        light = np.zeros(image.shape)
        stamps = image.psf.placed_stamps(x=at_x, y=at_y)
        add_light_in_place(light, stamps, x=at_x, y=at_y, flux=electrons[source] * share)
        pixels = MaskedImage(
            image.pixels.image + with_photon_noise(light, random=random),
            image.pixels.variance + light.astype(np.float32),
            image.pixels.mask,
        )
        flux = 10.0 ** (0.4 * (NJY_ZERO_POINT - magnitude))
        return InjectedImage(
            replace(image, pixels=pixels), x, y, magnitude, flux, length, np.where(is_trailed, angle, 0.0)
        )
