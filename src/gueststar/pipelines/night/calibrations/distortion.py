"""The camera's distortion out of a night's catalogs of sources and the reference catalog; pixels are not needed."""

from __future__ import annotations

from gueststar.model.calibration import CalibrationProduct
from gueststar.pipelines.calibration.distortion import DistortionField, LearnDistortion
from gueststar.pipelines.night.calibrations.making import LearnedImage, Learning, NothingMade
from gueststar.pipelines.science.astrometry import air_for, cone_about, match_for_distortion


def learn_distortion(learning: Learning) -> CalibrationProduct | NothingMade:
    """Learn the distortion of a detector; nothing is made of too few exposures or stars."""
    config, camera = learning.settings.distortion, learning.context.camera
    fields = [field for image in learning.images if (field := _stars_of(image, learning)) is not None]
    made = LearnDistortion(config).run(fields, learning.detector, previous=learning.previous)
    if made is None:
        n_stars = sum(field.stars.x.size for field in fields)
        return NothingMade(
            f"{len(fields)} images of {camera.name} {learning.detector.name} have {n_stars} stars; needed are "
            f"{config.min_exposures} images of {config.min_stars} stars, and {config.min_total_stars} stars in all"
        )
    return made


def _stars_of(image: LearnedImage, learning: Learning) -> DistortionField | None:
    camera, sources = learning.context.camera, learning.context.catalog(image.sources)
    glass = camera.filter_named(image.info.physical_filter or "")
    if sources.n_rows == 0 or glass is None:
        return None
    ra, dec, radius = cone_about(sources["ra"], sources["dec"])
    stars = match_for_distortion(
        sources, learning.context.refcats.known_stars(ra=ra, dec=dec, radius_deg=radius),
        epoch_year=image.info.epoch_year, glass=glass, air=air_for(camera.site, image.info, glass),
        pixel_scale_arcsec=camera.pixel_scale_arcsec,
    )  # fmt: skip
    return DistortionField(stars, image.info.mjd_tai)
