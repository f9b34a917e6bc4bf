"""Fluxes of a difference image at given places, and how faint a source could be anywhere on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.photocal.limiting import effective_area, limiting_magnitude
from gueststar.algorithms.photometry.forced import ForcedFluxes, fitting_radius, forced_fluxes
from gueststar.algorithms.photometry.local_depth import mean_inverse_variance
from gueststar.core.bits import UNUSABLE, MaskPlane, SourceFlag
from gueststar.model.catalog import Catalog
from gueststar.model.columns import FORCED_SOURCE
from gueststar.model.depth import DepthMap
from gueststar.model.image import CalibratedImage
from gueststar.model.photocal import NJY_ZERO_POINT
from gueststar.model.psf import Psf

NOT_COMPARED = UNUSABLE | MaskPlane.REFERENCE_MASKED
"""Planes whose pixels tell nothing on a difference image."""

_PSF_CELLS = 8

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DifferenceForcedConfig:
    """How fluxes are forced on difference images."""

    signal_share: float = 0.999
    """Pixels within the radius that holds this share of the squared PSF are fitted."""
    depth_box: int = 16
    """Side of the meshes in which the depth is told, pixels."""
    min_usable: float = 0.5
    """A mesh of which a smaller share is usable has no depth: a place there counts as not looked at."""
    n_sigma: float = 5.0
    """Significance of a source at the limit."""


@dataclass(frozen=True)
class PrecoveryConfig:
    """How far back new objects are looked for."""

    window_days: float = 30.0
    """Fluxes of new objects are forced on the differences of so many days before they were found; 0: on none."""


@dataclass(frozen=True)
class ImageFacts:
    """What rows of `FORCED_SOURCE` tell of their image."""

    visit: int
    detector: int
    mjd_tai: float
    """Middle of the exposure."""
    band_id: int
    program: int


class MeasureOnDifference:
    """Fit the PSF at places of a difference image, with no local background."""

    def __init__(self, config: DifferenceForcedConfig = DifferenceForcedConfig()) -> None:
        self.config = config

    def run(
        self, image: CalibratedImage, facts: ImageFacts, *, object_ids: NDArray[np.int64], ra: Floats, dec: Floats
    ) -> Catalog:
        """Return `FORCED_SOURCE` rows of those places (degrees) that lie on the image.

        The flux is NaN where no pixel is usable; BAD_PIXEL is set where one within the fitted radius is not.
        """
        on, x, y = places_on(image, ra, dec)
        forced, is_whole = self._fit(image, x, y)
        scale = image.photocal.njy_per_unit
        with np.errstate(divide="ignore", invalid="ignore"):
            limit = NJY_ZERO_POINT - 2.5 * np.log10(self.config.n_sigma * forced.flux_err * scale)
        n = on.size
        return FORCED_SOURCE.catalog(
            {
                "dia_object_id": object_ids[on],
                "visit": np.full(n, facts.visit), "detector": np.full(n, facts.detector),
                "mjd_tai": np.full(n, facts.mjd_tai), "band_id": np.full(n, facts.band_id),
                "program": np.full(n, facts.program),
                "x": x, "y": y,
                "psf_flux": forced.flux * scale, "psf_flux_err": forced.flux_err * scale,
                "limiting_mag": limit, "chi2": forced.chi2,
                "flags": np.where(is_whole, 0, int(SourceFlag.BAD_PIXEL)),
            }
        )  # fmt: skip

    def fluxes(self, image: CalibratedImage, *, ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
        """Return flux and error (nJy) at places (degrees); NaN off the image and where a pixel is unusable."""
        on, x, y = places_on(image, ra, dec)
        forced, is_whole = self._fit(image, x, y)
        flux, flux_err = np.full(len(ra), np.nan), np.full(len(ra), np.nan)
        flux[on], flux_err[on] = (
            np.where(is_whole, value, np.nan) * image.photocal.njy_per_unit for value in (forced.flux, forced.flux_err)
        )
        return flux, flux_err

    def _fit(self, image: CalibratedImage, x: Floats, y: Floats) -> tuple[ForcedFluxes, NDArray[np.bool_]]:
        """Return fluxes in the image's unit, and which were fitted to usable pixels only."""
        pixels, psf = image.pixels, image.psf
        forced = forced_fluxes(
            pixels.image, pixels.variance, pixels.mask, int(NOT_COMPARED), psf.spline, psf.stamp_sums(x=x, y=y),
            x=x, y=y, radius=fitting_radius(_central_stamp(psf), share=self.config.signal_share),
        )  # fmt: skip
        return forced, np.isfinite(forced.flux) & (forced.n_masked == 0)

    def depth(self, image: CalibratedImage) -> DepthMap:
        """Return the limiting magnitude of a point source by meshes; NaN where too little of the image is usable."""
        pixels, config = image.pixels, self.config
        weight = mean_inverse_variance(
            pixels.variance, pixels.mask, int(NOT_COMPARED), box=config.depth_box, min_usable=config.min_usable
        )
        with np.errstate(divide="ignore"):
            limit = limiting_magnitude(
                psf_effective_area=_areas(image.psf, weight.shape), sky_variance=1.0 / weight,
                zero_point=image.photocal.zero_point, n_sigma=config.n_sigma,
            )  # fmt: skip
        return DepthMap(limit.astype(np.float32), pixels.shape, config.n_sigma)


def places_on(image: CalibratedImage, ra: Floats, dec: Floats) -> tuple[NDArray[np.intp], Floats, Floats]:
    """Return which places (degrees) lie on an image, and their pixel positions."""
    ny, nx = image.shape
    x, y = image.wcs.sky_to_pixel(ra=ra, dec=dec)
    with np.errstate(invalid="ignore"):
        on = np.flatnonzero(np.isfinite(x) & np.isfinite(y) & (x > 0) & (y > 0) & (x < nx - 1) & (y < ny - 1))
    return on, x[on], y[on]


def _central_stamp(psf: Psf) -> NDArray[np.float32]:
    ny, nx = psf.shape
    return psf.stamp(x=(nx - 1) / 2, y=(ny - 1) / 2)


def _areas(psf: Psf, meshes: tuple[int, int]) -> Floats:
    """Return the noise-equivalent area of the PSF in each mesh, from stamps of a coarse grid."""
    n = 1 if psf.order == 0 else _PSF_CELLS
    ny, nx = psf.shape
    x, y = (((np.arange(n) + 0.5) * side / n - 0.5) for side in (nx, ny))
    at_x, at_y = (grid.ravel() for grid in np.meshgrid(x, y))
    areas = np.array([effective_area(stamp) for stamp in psf.stamps(x=at_x, y=at_y)]).reshape(n, n)
    row, column = (np.arange(m) * n // m for m in meshes)
    return np.asarray(areas[row[:, None], column[None, :]])
