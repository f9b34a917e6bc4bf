"""References for the air of each exposure: what differential chromatic refraction does is put into the static sky."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter

from gueststar.algorithms.astrometry.refraction import Air, air_above, subband_refraction_arcsec, towards_zenith
from gueststar.algorithms.warp.chromatic import SubbandConfig, displaced_sum, mean_displaced_sum
from gueststar.core.times import mjd_utc
from gueststar.model.camera import Site
from gueststar.model.image import CalibratedImage, DetrendedFrame, MaskedImage
from gueststar.model.wcs import Wcs

Floats = NDArray[np.float64]


class Subbands(NamedTuple):
    """The static sky in sub-bands of its filter, on the pixels of a reference image."""

    planes: NDArray[np.float32]
    """``[b, y, x]``, electrons of the reference, the bluest first; displaced and added up they are an epoch."""
    shifts: Floats
    """``[n, b, 2]``: displacements (x, y), pixels, of the sub-bands in the epochs of the reference."""
    weights: Floats
    """``[n]``: what each epoch counts in it."""

    def to_frame(self, reference_id: int) -> DetrendedFrame:
        """Return the planes one above the other, the bluest below, to be stored with the id of the reference."""
        image = self.planes.reshape(-1, self.planes.shape[2])
        facts = {"n_subbands": len(self.planes), "shifts": self.shifts.tolist(), "weights": self.weights.tolist()}
        facts["reference_id"] = reference_id
        pixels = MaskedImage(image, np.ones(image.shape, np.float32), np.zeros(image.shape, np.int32))
        return DetrendedFrame(pixels, facts)

    @classmethod
    def from_frame(cls, frame: DetrendedFrame) -> Subbands:
        """Return what `to_frame` made a frame of."""
        image, facts = frame.pixels.image, frame.metadata
        planes = image.reshape(int(facts["n_subbands"]), -1, image.shape[1])
        return cls(planes, np.array(facts["shifts"], np.float64), np.array(facts["weights"], np.float64))


def site_air(site: Site, *, mjd_tai: float, band: str) -> Air | None:
    """Return the air above a site at a time, for light of one band; None where the site is not known."""
    if not site.is_placed:
        return None
    return air_above(
        mjd_utc=mjd_utc(mjd_tai), latitude_deg=site.latitude_deg, longitude_deg=site.longitude_deg,
        height_m=site.height_m, band=band, colour=(band, band),
    )  # fmt: skip


def subband_shifts(air: Air, wcs: Wcs, *, x: float, y: float, band: str, n: int) -> Floats:
    """Return ``[n, 2]``: by how much (x, y), pixels, the air displaces ``n`` sub-bands from the band's mean light.

    At the place (x, y) of an image with ``wcs``. The mean itself has no shift: the WCS of each epoch is that of its
    stars, whose mean light it puts right.
    """
    ra, dec = (float(value) for value in wcs.pixel_to_sky(x=x, y=y))
    direction = towards_zenith(air, (ra, dec))
    arcsec = subband_refraction_arcsec(air, band, n)
    east, north = direction[0] * arcsec / 3600.0, direction[1] * arcsec / 3600.0
    moved_x, moved_y = wcs.sky_to_pixel(ra=ra + east / np.cos(np.radians(dec)), dec=dec + north)
    return np.stack([moved_x - x, moved_y - y], axis=1)


class MatchReferenceToAir:
    """Give a reference the refraction of one exposure."""

    def __init__(self, config: SubbandConfig | None = None) -> None:
        self.config = config or SubbandConfig()

    def run(self, reference: CalibratedImage, subbands: Subbands, shifts: Floats) -> CalibratedImage:
        """Return the reference as it is through air that displaces its sub-bands by ``shifts`` ``[b, 2]``, pixels.

        What is added is the difference of two sums of sub-bands, through this air and the mean of the epochs', so
        that masks and rejected artefacts of the reference stay, and only about what is clearly seen, so that the
        noise of the blank sky stays, too. Variance and PSF are left as they are.
        """
        change = displaced_sum(subbands.planes, shifts, self.config)
        change -= mean_displaced_sum(subbands.planes, subbands.shifts, subbands.weights, self.config)
        pixels = reference.pixels
        image = np.where(pixels.is_usable() & _is_seen(pixels), pixels.image + change, pixels.image)
        changed = MaskedImage(image.astype(np.float32), pixels.variance, pixels.mask)
        return replace(reference, pixels=changed, metadata=reference.metadata | {"subband_shifts": shifts.tolist()})


_SEEN_SNR = 8.0
"""Significance of smoothed light whose colour matters: what is fainter makes no dipole above the noise."""
_SMOOTHING, _AROUND = 1.5, 4
"""Width (sigma) of the smoothing and reach of what is seen, pixels."""


def _is_seen(pixels: MaskedImage) -> NDArray[np.bool_]:
    """Return the pixels about sources."""
    noise = np.sqrt(pixels.variance / (4.0 * np.pi * _SMOOTHING**2))
    is_seen = gaussian_filter(pixels.image, _SMOOTHING) > _SEEN_SNR * noise
    return np.asarray(binary_dilation(is_seen, iterations=_AROUND))
