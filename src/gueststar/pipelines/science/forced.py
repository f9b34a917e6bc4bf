"""Forced photometry: fluxes of a science image at places that a user gave."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.association.sky_index import unit_vectors
from gueststar.algorithms.photometry.error_floor import ErrorFloor
from gueststar.algorithms.photometry.far_wing import loss_correction
from gueststar.algorithms.photometry.flags import is_near_edge, mask_bits_within
from gueststar.algorithms.photometry.forced_fit import fit_at_places
from gueststar.algorithms.psf.simultaneous import FitConfig
from gueststar.core.bits import UNUSABLE, SourceFlag
from gueststar.model.catalog import Catalog
from gueststar.model.columns import FORCED_PHOTOMETRY
from gueststar.model.image import CalibratedImage
from gueststar.pipelines.science.catalogs import FLAG_OF_PLANE

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ForcedConfig:
    """How forced photometry is done."""

    fit: FitConfig = field(default_factory=FitConfig)
    """The fit of the places and their neighbours."""


class MeasureForced:
    """Measure PSF fluxes at given places of a calibrated image, as its own catalog was measured."""

    def __init__(self, config: ForcedConfig = ForcedConfig()) -> None:
        self.config = config

    def run(
        self, image: CalibratedImage, sources: Catalog, *, ra: Floats, dec: Floats, places: NDArray[np.int64]
    ) -> Catalog:
        """Return FORCED_PHOTOMETRY rows of those places (degrees, at the epoch of the image) that lie on the image.

        ``sources`` is the image's SOURCE catalog: neighbours are fitted with the places. The aperture correction, the
        noise beyond the variance plane and the floor of errors are those that the image's catalog was given.
        """
        on, x, y = _on_image(image, ra, dec)
        fwhm, spline = image.psf.central_fwhm, image.psf.spline
        told = image.metadata.get("metrics", {}).get("catalogs", {})
        fit = fit_at_places(
            image.pixels.image, image.pixels.variance, image.pixels.is_masked(UNUSABLE), spline, x=x, y=y,
            neighbour_x=sources["x"], neighbour_y=sources["y"],
            neighbour_flux=sources["psf_flux"] / image.photocal.njy_per_unit,
            fwhm=fwhm, model_error=float(told.get("model_error", 0.0)), config=self.config.fit,
        )  # fmt: skip
        factor = np.ones(on.size)
        if told.get("is_flux_corrected", False):
            factor = told["aperture_correction"] * loss_correction(spline, x=x, y=y)
        floor = ErrorFloor(told.get("flux_floor", 0.0) ** 2, told.get("flux_floor_corner", 0.0) ** 2, 0)
        fractional = floor.variance(x=x, y=y, shape=image.pixels.shape)
        noise = fit.flux_err * max(float(told.get("noise_ratio", 1.0)), 1.0)
        to_njy = image.photocal.njy_per_unit * factor
        return FORCED_PHOTOMETRY.catalog(
            {
                "place": places[on],
                "visit": np.full(on.size, image.metadata.get("visit", 0)),
                "detector": np.full(on.size, image.metadata.get("detector", 0)),
                "mjd_tai": np.full(on.size, image.metadata.get("mjd_tai", np.nan)),
                "ra": ra[on],
                "dec": dec[on],
                "x": x,
                "y": y,
                "psf_flux": fit.flux * to_njy,
                "psf_flux_err": np.sqrt(noise**2 + fractional * fit.flux**2) * to_njy,
                "chi2": fit.chi2,
                "sky": fit.sky,
                "flags": _flags(image, x, y, fwhm, fit.n_neighbours),
            }
        )


def _on_image(image: CalibratedImage, ra: Floats, dec: Floats) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Return which places lie on the image, and where."""
    ny, nx = image.pixels.shape
    # The tangent plane holds half of the sky only.
    cos_distance = np.sum(unit_vectors(ra, dec) * unit_vectors(*image.wcs.crval), axis=-1)
    near = np.flatnonzero(cos_distance > 0.5)
    x, y = image.wcs.sky_to_pixel(ra=ra[near], dec=dec[near])
    is_on = (x > -0.5) & (x < nx - 0.5) & (y > -0.5) & (y < ny - 0.5)
    return near[is_on], x[is_on], y[is_on]


def _flags(image: CalibratedImage, x: Floats, y: Floats, fwhm: float, n_neighbours: NDArray[Any]) -> NDArray[np.int32]:
    bits = mask_bits_within(image.pixels.mask, x=x, y=y, radius=fwhm)
    flags = np.zeros(x.size, dtype=np.int32)
    for plane, flag in FLAG_OF_PLANE.items():
        flags[(bits & int(plane)) != 0] |= int(flag)
    flags[n_neighbours > 0] |= int(SourceFlag.BLENDED)
    flags[is_near_edge(image.pixels.shape, x=x, y=y, margin=1.5 * fwhm)] |= int(SourceFlag.EDGE)
    return flags
