"""Fringe, illumination and defects, learned from the calibrated images of a night."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.algorithms.astrometry.proper_motion import propagate_positions
from gueststar.algorithms.photocal.spatial import ZeroPointMap
from gueststar.core.bits import USES, SourceFlag
from gueststar.core.errors import DataError
from gueststar.model.calibration import CalibrationKind, CalibrationMaster
from gueststar.model.catalog import Catalog
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.pipelines.calibration.defects import MakeDefects, ResidualImage
from gueststar.pipelines.calibration.fringe import FringeImage, MakeFringe, of_different_pointings, patterns_of
from gueststar.pipelines.calibration.illumination import MakeIllumination, StarMeasurements
from gueststar.pipelines.calibration.not_shown import NotShown
from gueststar.pipelines.night.known_calibrations import read_calibrations
from gueststar.pipelines.night.making import NothingMade
from gueststar.store.product_files import read_product
from gueststar.store.products import product_named

if TYPE_CHECKING:
    from gueststar.pipelines.night.learning import LearnedImage, Learning

Floats = NDArray[np.float64]

_MATCH_FWHM = 0.5
"""A source is a catalog star if it lies within so many FWHM of it."""
_MATCH_LEAST_ARCSEC = 0.5


def learn_fringe(learning: Learning) -> CalibrationMaster | NothingMade:
    """Make fringe patterns where the filter is said to fringe."""
    config, camera = learning.settings.fringe, learning.context.camera
    glass = camera.filter_named(learning.images[0].info.physical_filter or "")
    if config.made_from != "science" or glass is None or not glass.has_fringes:
        return NothingMade("the camera's description does not say that the filter has fringes")
    infos = [image.info for image in learning.images]
    rows = of_different_pointings(infos, pixel_scale_arcsec=camera.pixel_scale_arcsec, config=config)
    if len(rows) < config.min_images:
        return NothingMade(f"{len(rows)} images of different pointings, {config.min_images} are needed")
    images = (_fringe_image(learning.images[row], learning) for row in rows)
    usable = sorted((image for image in images if image is not None), key=lambda image: -image.level)
    try:
        return MakeFringe(config).run(usable[: config.max_images], learning.detector, previous=learning.previous)
    except NotShown as reason:
        return NothingMade(str(reason))


def _fringe_image(image: LearnedImage, learning: Learning) -> FringeImage | None:
    """Return an image with its fringes in: put back if they were taken out; None if with unknown patterns."""
    calibrated = learning.context.image(image.image)
    metrics = calibrated.metadata.get("metrics", {})
    level = float(metrics.get("sky_electrons") or 0.0)
    if level <= 0:
        return None
    pixels = calibrated.pixels
    removed = metrics.get("detrend", {}).get("fringe", {})
    if removed.get("is_removed"):
        used = _used(metrics, "fringe", image)
        if used is None:
            return None
        patterns = np.tensordot(np.asarray(removed["amplitudes"], np.float32), patterns_of(used), axes=1)
        pixels = MaskedImage(pixels.image + patterns, pixels.variance, pixels.mask)
    return FringeImage(image.info, pixels, level)


def _used(metrics: Mapping[str, Any], kind: CalibrationKind, image: LearnedImage) -> CalibrationMaster | None:
    """Return the product an image was calibrated with, if it is still the one that is valid for it."""
    told, path = metrics["detrend"]["calibrations"].get(kind), image.calibrations.get(kind)
    if told is None or path is None:
        return None
    product = read_product(product_named(kind), path)
    return product if product.mjd_tai == told["mjd_tai"] else None


def learn_defects(learning: Learning) -> CalibrationMaster | NothingMade:
    """Find what stays on the same pixels in images of different pointings."""
    config = learning.settings.defects
    infos = [image.info for image in learning.images]
    rows = of_different_pointings(
        infos, pixel_scale_arcsec=learning.context.camera.pixel_scale_arcsec, config=learning.settings.fringe
    )[: config.max_images]
    if len(rows) < config.min_images:
        return NothingMade(f"{len(rows)} images of different pointings, {config.min_images} are needed")
    chosen = [learning.images[row] for row in rows]
    images = [ResidualImage(image.info, learning.context.image(image.image).pixels) for image in chosen]
    known = read_calibrations({k: p for k, p in chosen[0].calibrations.items() if k in ("bias", "dark", "flat")})
    try:
        return MakeDefects(config).run(images, learning.detector, known=known, previous=learning.previous)
    except NotShown as reason:
        return NothingMade(str(reason))


def learn_illumination(learning: Learning) -> CalibrationMaster | NothingMade:
    """Solve for the response to stars from the night's catalogs of one filter."""
    config = learning.settings.illumination
    if len(learning.images) < config.min_exposures:
        return NothingMade(f"{len(learning.images)} exposures, {config.min_exposures} are needed")
    images = [(item, learning.context.image(item.image)) for item in learning.images]
    state, _ = Counter(map(_illumination_time, (image for _, image in images))).most_common(1)[0]
    images = [pair for pair in images if _illumination_time(pair[1]) == state]
    applied = None
    if state is not None:
        applied = _used(images[0][1].metadata["metrics"], "illumination", images[0][0])
        if applied is None:
            return NothingMade("the images carry a correction that is no longer the valid one")
    stars = _reference_stars(images, learning)
    photocal = images[0][1].photocal
    try:
        return MakeIllumination(config).run(
            [_measurements(item, image, stars, learning) for item, image in images],
            learning.detector,
            catalog_magnitude=_as_measured(stars, image=images[0][1]),
            catalog_error=np.asarray(stars[f"mag_{photocal.band}_err"], dtype=np.float64),
            applied=applied,
            previous=learning.previous,
        )
    except NotShown as reason:
        return NothingMade(str(reason))


def _illumination_time(image: CalibratedImage) -> float | None:
    """Return when the illumination product was taken that an image was divided by; None: by none."""
    used = image.metadata.get("metrics", {}).get("detrend", {}).get("calibrations", {}).get("illumination")
    return None if used is None else float(used["mjd_tai"])


def _reference_stars(images: list[tuple[LearnedImage, CalibratedImage]], learning: Learning) -> Catalog:
    """Return the catalog's constant point sources about all images, places moved to the epoch of the first."""
    centres, reach = [], 0.0
    for _, image in images:
        ny, nx = image.shape
        ra, dec = image.wcs.pixel_to_sky(x=(nx - 1) / 2, y=(ny - 1) / 2)
        centres.append(_vector(float(ra), float(dec)))
        reach = max(reach, 0.5 * float(np.hypot(nx, ny)) * image.wcs.pixel_scale_arcsec / 3600.0)
    middle = np.mean(centres, axis=0)
    middle /= np.linalg.norm(middle)
    spread = np.degrees(max(np.arccos(np.clip(middle @ centre, -1.0, 1.0)) for centre in centres))
    if spread > 5.0:
        raise DataError(f"exposures of {spread:.0f} degrees apart cannot be solved together")
    ra, dec = np.degrees(np.arctan2(middle[1], middle[0])) % 360.0, np.degrees(np.arcsin(middle[2]))
    stars = learning.context.refcats.cone(ra=float(ra), dec=float(dec), radius_deg=float(spread) + reach)
    stars = stars.select(~np.asarray(stars["is_extended"]) & ~np.asarray(stars["is_variable"]))
    moved = propagate_positions(
        ra=stars["ra"], dec=stars["dec"], pm_ra=stars["pm_ra"], pm_dec=stars["pm_dec"],
        years=images[0][0].info.epoch_year - np.asarray(stars["epoch"], dtype=np.float64),
    )  # fmt: skip
    return stars.replace(ra=moved[0], dec=moved[1])


def _as_measured(stars: Catalog, *, image: CalibratedImage) -> Floats:
    """Return catalog magnitudes as the detector would measure them: the colour term taken off."""
    photocal = image.photocal
    magnitude = np.asarray(stars[f"mag_{photocal.band}"], dtype=np.float64)
    if not photocal.colour_name:
        return magnitude
    first, second = photocal.colour_name.split("-")
    colour = np.asarray(stars[f"mag_{first}"], dtype=np.float64) - np.asarray(stars[f"mag_{second}"], dtype=np.float64)
    return magnitude - photocal.colour_term * colour


def _measurements(item: LearnedImage, image: CalibratedImage, stars: Catalog, learning: Learning) -> StarMeasurements:
    """Return the clean bright sources of an exposure that are catalog stars, as measured after flat-fielding."""
    sources = learning.context.catalog(item.sources)
    config = learning.settings.illumination
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = np.asarray(sources["psf_flux"] / sources["psf_flux_err"], dtype=np.float64)
    is_clean = (
        ((sources["flags"] & ~int(USES | SourceFlag.NEAR_BRIGHT_STAR)) == 0)
        & (snr > config.min_snr)
        & np.isfinite(sources["mag"])
    )
    sources = sources.select(np.flatnonzero(is_clean))
    limit = max(_MATCH_FWHM * image.psf.central_fwhm * image.wcs.pixel_scale_arcsec, _MATCH_LEAST_ARCSEC)
    chord = 2.0 * np.sin(np.radians(limit / 3600.0) / 2.0)
    tree = cKDTree(_vector(stars["ra"], stars["dec"]).T)
    distance, row = tree.query(_vector(sources["ra"], sources["dec"]).T, distance_upper_bound=chord)
    matched = np.flatnonzero(np.isfinite(distance))
    sources = sources.select(matched)
    x, y = (np.asarray(sources[name], dtype=np.float64) for name in ("x", "y"))
    return StarMeasurements(
        item.info, x, y, np.asarray(sources["mag"], dtype=np.float64) - _levelling(image)(x=x, y=y),
        np.asarray(sources["mag_err"], dtype=np.float64), row[matched].astype(np.int64),
    )  # fmt: skip


def _levelling(image: CalibratedImage) -> ZeroPointMap:
    """Return the change of the zero point that was taken out of an image, mag."""
    found = image.metadata["metrics"].get("photometry", {})
    coefficients = np.asarray(found.get("spatial_coefficients", []), dtype=np.float64)
    return ZeroPointMap(coefficients, image.shape, int(found.get("spatial_order", 0)) if coefficients.size else 0)


def _vector(ra: Any, dec: Any) -> Any:
    a, d = np.radians(ra), np.radians(dec)
    return np.array([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])
