"""Halos of bright stars marked on an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.algorithms.astrometry.proper_motion import propagate_positions
from gueststar.algorithms.photometry.bright_stars import WingProfile, mark_discs_in_place, measure_reach, measure_wings
from gueststar.algorithms.stats.robust import median_and_sigma
from gueststar.core.bits import FOUND, UNUSABLE, MaskPlane, SourceFlag
from gueststar.model.catalog import Catalog
from gueststar.model.image import MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf
from gueststar.model.wcs import Wcs
from gueststar.pipelines.science.astrometry import brightness_of

Floats = NDArray[np.float64]

_MOST_GROWTH = 4.0
"""Light farther from a star than so many times what its wings foretell is not the star's."""


@dataclass(frozen=True)
class HaloConfig:
    """How far a bright star's halo is taken to reach."""

    level: float = 1.0
    """The halo ends where the star's light per pixel falls to this many times the noise of the sky."""
    min_radius_fwhm: float = 5.0
    """Stars whose halo ends within this have none beyond their own image, FWHM."""
    max_radius_fwhm: float = 100.0
    """No halo reaches farther, FWHM."""
    n_wing_stars: int = 60
    """Brightest stars on which the wings are measured."""


class MarkedImage(NamedTuple):
    """An image with HALO set, and what was measured."""

    pixels: MaskedImage
    metrics: dict[str, Any]


class MarkHalos:
    """Measure the wings of bright stars and mark where they outshine the noise of the sky.

    A halo ends where the wings, scaled to the star, foretell, or farther out if the image shows light there (ghosts).
    """

    def __init__(self, config: HaloConfig = HaloConfig()) -> None:
        self.config = config

    def run(
        self,
        pixels: MaskedImage,
        *,
        psf: Psf,
        wcs: Wcs,
        photocal: PhotoCal,
        reference: Catalog,
        sources: Catalog,
        epoch_year: float,
    ) -> MarkedImage:
        """Return background-subtracted ``pixels`` with HALO set about bright stars, those beyond the image too.

        Stars are those of ``reference`` (REFCAT, about the image; extended ones do not count), their flux from their
        magnitude and the zero point; and of ``sources`` (INSTRUMENTAL_SOURCE, the image's own) those that the
        reference lacks, if they are saturated or as sharp as stars.
        """
        fwhm = psf.central_fwhm
        x, y, flux = _bright_stars(pixels.shape, wcs, photocal, reference, sources, epoch_year, fwhm)
        is_usable = pixels.is_usable(UNUSABLE | MaskPlane.EDGE)
        part = pixels.image[::4, ::4][is_usable[::4, ::4] & ((pixels.mask[::4, ::4] & int(FOUND)) == 0)]
        sky_rms = float(median_and_sigma(part)[1]) if part.size else float("nan")
        if not np.isfinite(sky_rms) or sky_rms <= 0 or x.size == 0:
            return MarkedImage(pixels, {"n_halos": 0, "halo_fraction": 0.0})
        wings = self._wings(pixels, is_usable, psf, x, y, flux, sky_rms)
        limit = self.config.max_radius_fwhm * fwhm
        radius = np.minimum(wings.reach(self.config.level * sky_rms / flux), limit)
        bright = np.flatnonzero(radius >= self.config.min_radius_fwhm * fwhm)
        seen = measure_reach(
            pixels.image, is_usable, wings, x=x[bright], y=y[bright], flux=flux[bright],
            level=self.config.level * sky_rms, radii=np.geomspace(2.0 * fwhm, limit, 20),
        )  # fmt: skip
        radius[bright] = np.maximum(radius[bright], np.minimum(seen, _MOST_GROWTH * radius[bright]))
        ny, nx = pixels.shape
        is_on = (x > -radius) & (x < nx - 1 + radius) & (y > -radius) & (y < ny - 1 + radius)
        is_halo = is_on & (radius >= self.config.min_radius_fwhm * fwhm)
        mask = pixels.mask.copy()
        mark_discs_in_place(mask, x[is_halo], y[is_halo], radius[is_halo], int(MaskPlane.HALO))
        metrics = {
            "n_halos": int(is_halo.sum()),
            "halo_fraction": float(((mask & int(MaskPlane.HALO)) != 0).mean()),
            "largest_halo_arcsec": float(np.max(radius[is_halo], initial=0.0) * wcs.pixel_scale_arcsec),
            "wing_slope": wings.outer_slope,
            "n_wing_stars": wings.n_stars,
        }
        return MarkedImage(MaskedImage(pixels.image, pixels.variance, mask), metrics)

    def _wings(
        self, pixels: MaskedImage, is_usable: NDArray[np.bool_], psf: Psf, x: Floats, y: Floats, flux: Floats,
        sky_rms: float,
    ) -> WingProfile:  # fmt: skip
        ny, nx = pixels.shape
        inside = np.flatnonzero((x > 0) & (x < nx - 1) & (y > 0) & (y < ny - 1))
        rows = inside[np.argsort(-flux[inside], kind="stable")[: self.config.n_wing_stars]]
        return measure_wings(
            pixels.image, is_usable, x=x[rows], y=y[rows], flux=flux[rows], sky_rms=sky_rms,
            stamp=psf.stamp(x=(nx - 1) / 2, y=(ny - 1) / 2), fwhm=psf.central_fwhm,
        )  # fmt: skip


def _bright_stars(
    shape: tuple[int, int], wcs: Wcs, photocal: PhotoCal, reference: Catalog, sources: Catalog, epoch_year: float,
    fwhm: float,
) -> tuple[Floats, Floats, Floats]:  # fmt: skip
    """Return places (pixels) and fluxes (image units) of the reference stars and of stars that it lacks."""
    ra, dec = propagate_positions(
        ra=reference["ra"], dec=reference["dec"], pm_ra=reference["pm_ra"], pm_dec=reference["pm_dec"],
        years=epoch_year - np.asarray(reference["epoch"], dtype=np.float64),
    )  # fmt: skip
    x, y = wcs.sky_to_pixel(ra=ra, dec=dec)
    flux = photocal.flux(brightness_of(reference, photocal.band or "r"))
    ny, nx = shape
    near = (np.abs(x - nx / 2) < 2 * nx) & (np.abs(y - ny / 2) < 2 * ny)
    known = np.isfinite(x) & np.isfinite(y) & np.isfinite(flux) & near & ~np.asarray(reference["is_extended"])
    x, y, flux = x[known], y[known], flux[known]
    is_star = (sources["flags"] & int(SourceFlag.SATURATED)) != 0
    is_star |= np.abs(sources["sharpness"]) < 0.1
    own_x, own_y, own_flux = (np.asarray(sources[name][is_star], dtype=np.float64) for name in ("x", "y", "flux"))
    if x.size and own_x.size:
        distance, _ = cKDTree(np.column_stack([x, y])).query(np.column_stack([own_x, own_y]))
        lacking = distance > 3.0 * fwhm
        own_x, own_y, own_flux = own_x[lacking], own_y[lacking], own_flux[lacking]
    good = own_flux > 0
    return (
        np.concatenate([x, own_x[good]]),
        np.concatenate([y, own_y[good]]),
        np.concatenate([flux, own_flux[good]]),
    )
