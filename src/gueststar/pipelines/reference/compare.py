"""What a new version of a reference changes: fluxes of the static sky, place by place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.association.match import count_within
from gueststar.algorithms.photometry.forced import forced_psf_photometry
from gueststar.algorithms.stats.robust import median_and_sigma
from gueststar.core.bits import UNUSABLE
from gueststar.model.catalog import Catalog
from gueststar.model.columns import REFERENCE_CHANGE
from gueststar.model.image import CalibratedImage

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CompareReferencesConfig:
    """When a place of the static sky counts as changed between two versions of a reference."""

    n_sigma: float = 5.0
    """Its fluxes differ by so many times their error..."""
    min_fraction: float = 0.05
    """...and by this fraction of the larger one, which models of bright stars do not reach."""
    match_arcsec: float = 1.0
    """Sources of the two catalogs that lie nearer are one."""
    isolation_fwhm: float = 5.0
    """The flux ratio is that of sources with no other one so near, in FWHM of the wider version: what neighbours add to
    a flux changes with the seeing..."""
    min_isolated: int = 10
    """...or of all, where fewer are as lonely."""


class StaticFlux(NamedTuple):
    """Fluxes of the static sky at places, nJy; NaN where a pixel of the reference within 1.5 FWHM is unusable."""

    flux: Floats
    flux_err: Floats


class ReferenceComparison(NamedTuple):
    """What changed."""

    changes: Catalog
    """`REFERENCE_CHANGE`: the places whose flux changed."""
    metrics: dict[str, Any]


def static_flux(reference: CalibratedImage, *, ra: Floats, dec: Floats) -> StaticFlux:
    """Return the PSF flux of the static sky at places (degrees): what a difference flux is to be added to.

    The flux of a difference image and that of the reference that it was made with add up to the flux of the object,
    whatever the version of the reference.
    """
    x, y = reference.wcs.sky_to_pixel(ra=ra, dec=dec)
    ny, nx = reference.shape
    inside = np.isfinite(x) & np.isfinite(y) & (x > 0) & (y > 0) & (x < nx - 1) & (y < ny - 1)
    flux, error = np.full(ra.size, np.nan), np.full(ra.size, np.nan)
    stamps = reference.psf.placed_stamps(x=x[inside], y=y[inside])
    pixels, scale = reference.pixels, reference.photocal.njy_per_unit
    found = forced_psf_photometry(
        pixels.image, pixels.variance, pixels.is_masked(UNUSABLE), stamps, x=x[inside], y=y[inside],
        radius=1.5 * reference.psf.central_fwhm,
    )  # fmt: skip
    is_whole = found.n_masked == 0
    flux[inside] = np.where(is_whole, found.flux * scale, np.nan)
    error[inside] = np.where(is_whole, found.flux_err * scale, np.nan)
    return StaticFlux(flux, error)


class CompareReferences:
    """Compare two versions of a reference at every source that either of them shows."""

    def __init__(self, config: CompareReferencesConfig = CompareReferencesConfig()) -> None:
        self.config = config

    def run(
        self, old: CalibratedImage, new: CalibratedImage, *, old_sources: Catalog, new_sources: Catalog
    ) -> ReferenceComparison:
        """Return the places (of `SOURCE` rows) whose flux changed, and figures; fluxes are nJy."""
        ra, dec = self._places(old_sources, new_sources)
        before, after = static_flux(old, ra=ra, dec=dec), static_flux(new, ra=ra, dec=dec)
        change, error = after.flux - before.flux, np.hypot(after.flux_err, before.flux_err)
        known = np.isfinite(change) & (error > 0)
        larger = np.maximum(np.abs(before.flux), np.abs(after.flux))
        with np.errstate(invalid="ignore"):
            is_bright = known & (before.flux > 20.0 * error)
            has_changed = known & (
                np.abs(change) > np.maximum(self.config.n_sigma * error, self.config.min_fraction * larger)
            )
        fwhm = max(image.psf.central_fwhm * image.wcs.pixel_scale_arcsec for image in (old, new))
        n_within = count_within(ra, dec, ra, dec, radius_arcsec=self.config.isolation_fwhm * fwhm)  # itself among them
        is_lonely = is_bright & (n_within == 1)
        compared = is_lonely if np.count_nonzero(is_lonely) >= self.config.min_isolated else is_bright
        ratio = after.flux[compared] / before.flux[compared]
        centre, scatter = median_and_sigma(ratio) if ratio.size > 2 else (float("nan"), float("nan"))
        rows = np.flatnonzero(has_changed)
        changes = REFERENCE_CHANGE.catalog(
            {
                "ra": ra[rows], "dec": dec[rows],
                "old_flux": before.flux[rows], "old_flux_err": before.flux_err[rows],
                "new_flux": after.flux[rows], "new_flux_err": after.flux_err[rows],
                "change": change[rows], "change_err": error[rows],
            }
        )  # fmt: skip
        metrics = {
            "n_compared": int(known.sum()), "n_changed": int(rows.size),
            "flux_ratio": float(centre) if np.isfinite(centre) else None,
            "flux_ratio_scatter": float(scatter) if np.isfinite(scatter) else None,
        }  # fmt: skip
        return ReferenceComparison(changes, metrics)

    def _places(self, old_sources: Catalog, new_sources: Catalog) -> tuple[Floats, Floats]:
        """Return the places of the new catalog, and those of the old one that are not in it."""
        ra, dec = (np.asarray(new_sources[name], np.float64) for name in ("ra", "dec"))
        old_ra, old_dec = (np.asarray(old_sources[name], np.float64) for name in ("ra", "dec"))
        is_lost = count_within(old_ra, old_dec, ra, dec, radius_arcsec=self.config.match_arcsec) == 0
        return np.concatenate([ra, old_ra[is_lost]]), np.concatenate([dec, old_dec[is_lost]])
