"""Artificial sources put into a calibrated image."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.photometry.artificial import add_light_in_place, points_along, with_photon_noise
from gueststar.algorithms.photometry.far_wing import add_far_wings_in_place, loss_correction
from gueststar.core.bits import UNUSABLE
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.pipelines.injection.place import ArtificialSources, InjectionConfig, PlaceSources, Positions

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

WING_FLOOR = 0.05
"""Far wings are drawn out to where a pixel gets so many sigma of the sky."""


class InjectedImage(NamedTuple):
    """An image with artificial sources, and what they are."""

    image: CalibratedImage
    sources: ArtificialSources


class InjectSources:
    """Add sources of the image's own PSF to it with their photon noise."""

    def __init__(self, config: InjectionConfig | None = None) -> None:
        self.config = config or InjectionConfig()

    def run(
        self, image: CalibratedImage, *, limiting_mag: float, random: np.random.Generator,
        hosts: Positions | None = None, bright_stars: Positions | None = None,
    ) -> InjectedImage:  # fmt: skip
        """Return ``image`` (electrons, background-subtracted) with artificial sources, and the truth.

        The variance grows by the light added. Those of negative flux have faded: they do not shine here but on the
        reference (`faded.ShowFaded`). Raises DataError if no pixel is usable.
        """
        sources = PlaceSources(self.config).run(
            image, limiting_mag=limiting_mag, random=random, hosts=hosts, bright_stars=bright_stars
        )
        shining = light_of(image, sources, sources.flux > 0)
        pixels = MaskedImage(
            image.pixels.image + with_photon_noise(shining, random=random),
            image.pixels.variance + shining.astype(np.float32),
            image.pixels.mask,
        )
        return InjectedImage(replace(image, pixels=pixels), sources)


def light_of(image: CalibratedImage, sources: ArtificialSources, is_chosen: Bools) -> Floats:
    """Return the expected light of the chosen sources on an image, ``[y, x]`` electrons, without sign.

    It is the image's own PSF, and beyond its stamps a power law. Fluxes of the catalogs hold what a wider PSF loses
    there, so a source gets that much less within its stamp.
    """
    light = np.zeros(image.shape)
    chosen = sources.select(is_chosen)
    if chosen.x.size == 0:
        return light
    spline = image.psf.spline
    flux = image.photocal.flux(chosen.magnitude) / loss_correction(spline, x=chosen.x, y=chosen.y)
    source, x, y, share = points_along(
        x=chosen.x, y=chosen.y, length=chosen.trail_length, angle_deg=chosen.trail_angle_deg
    )
    add_light_in_place(light, image.psf.placed_stamps(x=x, y=y), x=x, y=y, flux=flux[source] * share)
    usable = image.pixels.is_usable(UNUSABLE)[::4, ::4]
    sigma = float(np.sqrt(np.median(image.pixels.variance[::4, ::4][usable]))) if usable.any() else 1.0
    add_far_wings_in_place(light, spline, x=chosen.x, y=chosen.y, flux=flux, floor=WING_FLOOR * sigma)
    return light
