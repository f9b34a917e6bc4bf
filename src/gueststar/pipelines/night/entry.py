"""A user's own science image made complete: what the pipeline measures on its own images, measured on it.

Its pixels, WCS and zero point are taken as they are. The astrometric solution is only compared with the
reference catalog, where there is one: without, the image is stored but no reference is made from it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.core.bits import MaskPlane
from gueststar.core.errors import DataError
from gueststar.model.catalog import Catalog
from gueststar.model.columns import REFCAT
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.psf import Psf
from gueststar.pipelines.ingest_products import Completed
from gueststar.pipelines.night.science import image_metadata, summary_metrics
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.pipelines.science.astrometry import SolveAstrometry
from gueststar.pipelines.science.background import SubtractBackground
from gueststar.pipelines.science.catalogs import (
    MakeCatalogs,
    calibrate_apertures,
    calibrate_sources,
    flag_halos,
    flag_psf_stars,
    with_planes,
)
from gueststar.pipelines.science.halos import MarkHalos
from gueststar.pipelines.science.psf import MeasurePsf, PsfResult
from gueststar.store.refcats import RefcatStore
from gueststar.store.repo import SurveyRepo

WORST_OFFSET_PIXELS = 1.0
"""A WCS whose stars lie farther than this from the catalog is refused."""


class ScienceEntry:
    """Measures what a user's image does not tell, by the tasks and parameters of the survey."""

    def __init__(self, repo: SurveyRepo) -> None:
        self.camera = repo.camera
        self.settings = PipelineSettings.of(repo.camera.settings, repo.settings.parameters)
        self.refcats = RefcatStore(repo.root / "refcats")
        self._last: tuple[MaskedImage, PsfResult] | None = None

    def psf(self, pixels: MaskedImage) -> Psf:
        """Return the PSF of background-subtracted pixels."""
        return self._psf(pixels)[0]

    def sky(self, pixels: MaskedImage) -> NDArray[np.float32]:
        """Return the background level of every pixel."""
        return SubtractBackground(self.settings.background).run(pixels).background.level

    def complete(self, image: CalibratedImage, info: ExposureInfo, detector_id: int) -> Completed:
        """Return the image with the survey's metadata, its catalogs and its metrics."""
        pixels, detector = image.pixels, self.camera.detector(detector_id)
        psf, psf_metrics = self._psf(pixels)
        found = MakeCatalogs(self.settings.catalogs).run(pixels, psf)
        background = SubtractBackground(self.settings.background).run(pixels).metrics
        steps: dict[str, Any] = {
            "psf": psf_metrics,
            "catalogs": found.metrics,
            "background": {**background, "sky_level": float(image.metadata.get("sky_electrons", 0.0))},
            "astrometry": self._astrometry(image, found.psf, info),
        }
        pixels = with_planes(pixels, found.is_detected, MaskPlane.DETECTED)
        marked = MarkHalos(self.settings.halos).run(
            pixels, psf=psf, wcs=image.wcs, photocal=image.photocal, reference=self._stars_about(image),
            sources=found.psf, epoch_year=info.epoch_year,
        )  # fmt: skip
        pixels, steps["halos"] = marked.pixels, marked.metrics
        point, aperture = (self._flagged(table, pixels, psf) for table in (found.psf, found.aperture))
        metrics = summary_metrics(pixels, psf, image.wcs, image.photocal, steps)
        metadata = {**image.metadata, **image_metadata(info, detector, metrics)}
        place = {"visit": info.exposure_id, "detector": detector.id}
        products = {
            "source": calibrate_sources(point, image.wcs, image.photocal, **place),
            "aperture_source": calibrate_apertures(aperture, image.wcs, image.photocal, **place),
            "science_metrics": metrics,
        }
        made = CalibratedImage(pixels, image.wcs, psf, image.photocal, metadata, image.coverage)
        return Completed(made, products, metrics)

    def _psf(self, pixels: MaskedImage) -> tuple[Psf, dict[str, Any]]:
        if self._last is None or self._last[0] is not pixels:  # asked for twice on the way of one image
            expected = self.camera.typical_fwhm_arcsec / self.camera.pixel_scale_arcsec
            self._last = pixels, MeasurePsf(self.settings.psf).run(pixels, expected_fwhm=expected)
        return self._last[1].psf, self._last[1].metrics

    def _flagged(self, catalog: Catalog, pixels: MaskedImage, psf: Psf) -> Catalog:
        assert self._last is not None
        return flag_halos(flag_psf_stars(catalog, self._last[1].stars), pixels.mask, fwhm=psf.central_fwhm)

    def _stars_about(self, image: CalibratedImage) -> Catalog:
        """Return the reference stars on and just around an image; none where no catalog was imported."""
        ny, nx = image.shape
        ra, dec = (float(value) for value in image.wcs.pixel_to_sky(x=(nx - 1) / 2, y=(ny - 1) / 2))
        radius = math.hypot(nx, ny) / 2 * image.wcs.pixel_scale_arcsec / 3600.0 * 1.05
        return self.refcats.cone(ra=ra, dec=dec, radius_deg=radius) if self.refcats.names() else REFCAT.empty()

    def _astrometry(self, image: CalibratedImage, sources: Catalog, info: ExposureInfo) -> dict[str, Any]:
        """Return the figures of a solution against the catalog; DataError if the image's own WCS is far from it."""
        ny, nx = image.shape
        stars = self._stars_about(image)
        if stars.n_rows == 0:
            unknown = ("rms_ra_mas", "rms_dec_mas", "rms_bright_mas")
            return {"n_fitted": 0, **dict.fromkeys(unknown, math.nan)}
        glass = self.camera.filter_named(info.physical_filter or "")
        solution = SolveAstrometry(self.settings.astrometry).run(
            sources, start=image.wcs, shape=image.shape, reference=stars, epoch_year=info.epoch_year,
            pointing_tolerance_arcmin=0.2, rotation_tolerance_deg=0.5, scale_tolerance=0.01,
            band=glass.catalog_band if glass else "r",
        )  # fmt: skip
        x, y = (grid.ravel() for grid in np.meshgrid(np.linspace(0, nx - 1, 9), np.linspace(0, ny - 1, 9)))
        ra_true, dec_true = solution.wcs.pixel_to_sky(x=x, y=y)
        x_own, y_own = image.wcs.sky_to_pixel(ra=ra_true, dec=dec_true)
        offset = float(np.nanmax(np.hypot(x_own - x, y_own - y)))
        if not offset <= WORST_OFFSET_PIXELS:
            raise DataError(f"the WCS is up to {offset:.1f} pixels off the reference catalog")
        return {**solution.to_metadata(), "wcs_offset_pixels": offset}
