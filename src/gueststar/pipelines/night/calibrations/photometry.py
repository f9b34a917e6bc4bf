"""The night's relative photometry, from the catalogs of its images."""

from __future__ import annotations

from gueststar.core.errors import DataError
from gueststar.model.calibration import CalibrationTable
from gueststar.pipelines.calibration.relative_photometry import CalibrateRelative, RelativeExposure
from gueststar.pipelines.night.calibrations.making import Learning, NothingMade


def learn_relative_photometry(learning: Learning) -> CalibrationTable | NothingMade:
    """Return how the night's exposures differ; nothing where they are too few or share too few stars."""
    config = learning.settings.relative_photometry
    exposures = [
        RelativeExposure(
            image.info.exposure_id, image.info.mjd_tai,
            learning.context.catalog(image.sources if config.flux == "psf_flux" else image.apertures),
        )
        for image in learning.images
    ]  # fmt: skip
    try:
        return CalibrateRelative(config).run(
            exposures, detector_id=learning.detector.id, shape=learning.detector.shape,
            physical_filter=learning.images[0].info.physical_filter,
        )  # fmt: skip
    except DataError as too_little:
        return NothingMade(str(too_little))
