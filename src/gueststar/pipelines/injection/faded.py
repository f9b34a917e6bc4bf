"""What artificial sources that fade left behind: their light on the reference, and their places in its catalog."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.detection.noise import split_variance
from gueststar.algorithms.photometry.artificial import with_photon_noise
from gueststar.core.bits import UNUSABLE
from gueststar.model.catalog import Catalog, concatenate
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.wcs import Wcs
from gueststar.pipelines.injection.inject import light_of
from gueststar.pipelines.injection.place import ArtificialSources
from gueststar.pipelines.science.depth import MapDepth

Floats = NDArray[np.float64]

ReferenceChange = Callable[[CalibratedImage, Catalog], tuple[CalibratedImage, Catalog]]
"""Takes a reference and its `SOURCE` catalog, returns what a difference is to be made with instead."""

_LIMIT_SNR = 5.0
"""Signal to noise of a source of the limiting magnitude: the reference's catalog holds what is brighter."""


class ShowFaded:
    """Put sources that have faded from a science image onto its reference.

    A source that was there and is gone shines on the reference; what would be taken away from a science image
    where nothing is would be a hole, which no sky has.
    """

    def __init__(self, sources: ArtificialSources, wcs: Wcs, *, random: np.random.Generator) -> None:
        """``sources`` are in pixels of an image with ``wcs``; those of negative flux have faded."""
        self._faded, self._wcs, self._random = sources.select(sources.flux < 0), wcs, random

    def __call__(self, reference: CalibratedImage, listed: Catalog) -> tuple[CalibratedImage, Catalog]:
        """Return the reference with their light and its noise, and its catalog with those that it would hold."""
        sources, (ny, nx) = on_grid(self._faded, self._wcs, reference.wcs), reference.shape
        sources = sources.select((sources.x > 0) & (sources.y > 0) & (sources.x < nx - 1) & (sources.y < ny - 1))
        if sources.x.size == 0:
            return reference, listed
        return self._with_light(reference, sources), self._with_rows(reference, listed, sources)

    def _with_light(self, reference: CalibratedImage, sources: ArtificialSources) -> CalibratedImage:
        light = light_of(reference, sources, np.ones(sources.x.size, dtype=bool))
        pixels = reference.pixels
        slope = split_variance(pixels.image, pixels.variance, pixels.is_masked(UNUSABLE)).slope
        noisy = with_photon_noise(light / slope, random=self._random) * np.float32(slope) if slope > 0 else light
        image = pixels.image + noisy.astype(np.float32)
        variance = pixels.variance + (slope * light).astype(np.float32)
        return replace(reference, pixels=MaskedImage(image, variance, pixels.mask))

    def _with_rows(self, reference: CalibratedImage, listed: Catalog, sources: ArtificialSources) -> Catalog:
        depth = reference.depth or MapDepth().run(reference.pixels, reference.psf, reference.photocal)
        if depth.median is None:
            return listed
        snr = _LIMIT_SNR * 10.0 ** (0.4 * (depth.median - sources.magnitude))
        seen = np.flatnonzero(snr > _LIMIT_SNR)
        ra, dec = reference.wcs.pixel_to_sky(x=sources.x[seen], y=sources.y[seen])
        flux, snr = -sources.flux[seen], snr[seen]
        known = {
            "x": sources.x[seen], "y": sources.y[seen], "ra": ra, "dec": dec, "mag": sources.magnitude[seen],
            "mag_err": 1.0857 / snr, "psf_flux": flux, "psf_flux_err": flux / snr, "snr": snr,
            "chi2": np.ones(seen.size),
        }  # fmt: skip
        nothing = np.zeros(seen.size)
        rows = {name: known.get(name, nothing).astype(listed[name].dtype) for name in listed}
        return concatenate([listed, Catalog(rows)])


def on_grid(sources: ArtificialSources, wcs: Wcs, grid: Wcs) -> ArtificialSources:
    """Return sources, in pixels of ``wcs``, in those of another grid; trails keep their ends on the sky."""
    half = 0.5 * sources.trail_length
    angle = np.radians(sources.trail_angle_deg)
    ends = []
    for side in (-half, half):
        ra, dec = wcs.pixel_to_sky(x=sources.x + side * np.cos(angle), y=sources.y + side * np.sin(angle))
        ends.append(grid.sky_to_pixel(ra=ra, dec=dec))
    (x0, y0), (x1, y1) = ends
    return sources._replace(
        x=(x0 + x1) / 2, y=(y0 + y1) / 2,
        trail_length=np.where(half > 0, np.hypot(x1 - x0, y1 - y0), 0.0),
        trail_angle_deg=np.degrees(np.arctan2(y1 - y0, x1 - x0)),
    )  # fmt: skip
