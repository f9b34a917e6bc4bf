"""Fringe, illumination and defects, learned from the calibrated images of a night."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.algorithms.association.sky_index import chord_of, unit_vectors
from gueststar.algorithms.astrometry.proper_motion import propagate_positions
from gueststar.algorithms.photocal.spatial import ZeroPointMap
from gueststar.core.bits import USES, SourceFlag
from gueststar.formats.calibrated_image import read_calibrated_image
from gueststar.model.calibration import CalibrationKind, CalibrationMaster
from gueststar.model.catalog import Catalog, concatenate
from gueststar.model.image import MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.wcs import Wcs
from gueststar.pipelines.calibration.defects import MakeDefects, ResidualImage
from gueststar.pipelines.calibration.fringe import (
    FringeImage,
    MakeFringe,
    MakeFringeConfig,
    of_different_pointings,
    patterns_of,
)
from gueststar.pipelines.calibration.illumination import MakeIllumination, StarMeasurements
from gueststar.pipelines.night.calibrations.known import read_calibrations
from gueststar.pipelines.night.calibrations.making import LearnedImage, Learning, NothingMade, nothing_where_not_shown
from gueststar.store.product_files import read_product
from gueststar.store.products import product_named

Floats = NDArray[np.float64]

_MATCH_FWHM = 0.5
"""A source is a catalog star if it lies within so many FWHM of it."""
_MATCH_LEAST_ARCSEC = 0.5


@dataclass(frozen=True, eq=False)
class _Solved:
    """What is needed of a calibrated image once its pixels are forgotten."""

    item: LearnedImage
    wcs: Wcs
    photocal: PhotoCal
    fwhm: float
    """Pixels."""
    shape: tuple[int, int]
    metrics: Mapping[str, Any]


def _own_images(learning: Learning) -> list[LearnedImage]:
    """Return the images that were calibrated here: a user's own were flattened by others."""
    return [image for image in learning.images if image.raw is not None]


def _dithered(learning: Learning, config: MakeFringeConfig, most: int) -> list[LearnedImage]:
    """Return images of different pointings."""
    images = _own_images(learning)
    scale = learning.context.camera.pixel_scale_arcsec
    rows = of_different_pointings([image.info for image in images], pixel_scale_arcsec=scale, config=config)
    return [images[row] for row in rows[:most]]


@nothing_where_not_shown
def learn_fringe(learning: Learning) -> CalibrationMaster | NothingMade:
    """Make fringe patterns where the filter is said to fringe."""
    config, camera = learning.settings.fringe, learning.context.camera
    glass = camera.filter_named(learning.images[0].info.physical_filter or "")
    if config.made_from != "science" or glass is None or not glass.has_fringes:
        return NothingMade("the camera's description does not say that the filter has fringes")
    chosen = _dithered(learning, config, config.max_images)
    if len(chosen) < config.min_images:
        return NothingMade(f"{len(chosen)} images of different pointings, {config.min_images} are needed")
    images = [found for image in chosen if (found := _fringe_image(image)) is not None]
    return MakeFringe(config).run(images, learning.detector, previous=learning.previous)


def _fringe_image(item: LearnedImage) -> FringeImage | None:
    """Return an image with its fringes in: put back if they were taken out; None if with unknown patterns."""
    calibrated = read_calibrated_image(item.image)
    metrics = calibrated.metadata.get("metrics", {})
    level = float(metrics.get("sky_electrons") or 0.0)
    if level <= 0:
        return None
    pixels = calibrated.pixels
    removed = metrics.get("detrend", {}).get("fringe", {})
    if removed.get("is_removed"):
        used = _used(metrics, "fringe", item)
        if used is None:
            return None
        patterns = np.tensordot(np.asarray(removed["amplitudes"], np.float32), patterns_of(used), axes=1)
        pixels = MaskedImage(pixels.image + patterns, pixels.variance, pixels.mask)
    return FringeImage.of(item.info, pixels, level)


def _used(metrics: Mapping[str, Any], kind: CalibrationKind, image: LearnedImage) -> CalibrationMaster | None:
    """Return the product an image was calibrated with, if it is still the one that is valid for it."""
    told, path = metrics["detrend"]["calibrations"].get(kind), image.calibrations.get(kind)
    if told is None or path is None:
        return None
    product = read_product(product_named(kind), path)
    return product if product.mjd_tai == told["mjd_tai"] else None


@nothing_where_not_shown
def learn_defects(learning: Learning) -> CalibrationMaster | NothingMade:
    """Find what stays on the same pixels in images of different pointings, fringes not among it."""
    config = learning.settings.defects
    chosen = _dithered(learning, learning.settings.fringe, config.max_images)
    if len(chosen) < config.min_images:
        return NothingMade(f"{len(chosen)} images of different pointings, {config.min_images} are needed")
    images = (found for item in chosen if (found := _residual_image(item, learning)) is not None)
    known = read_calibrations({k: p for k, p in chosen[0].calibrations.items() if k in ("bias", "dark", "flat")})
    return MakeDefects(config).run(images, learning.detector, known=known, previous=learning.previous)


def _residual_image(item: LearnedImage, learning: Learning) -> ResidualImage | None:
    """Return an image for the search of defects; None if fringes may still be in it, which stay on their pixels too."""
    image = read_calibrated_image(item.image)
    glass = learning.context.camera.filter_named(item.info.physical_filter or "")
    has_fringes = glass is not None and glass.has_fringes
    if has_fringes and "fringe" not in image.metadata.get("metrics", {}).get("detrend", {}):
        return None
    return ResidualImage(item.info, image.pixels)


@nothing_where_not_shown
def learn_illumination(learning: Learning) -> CalibrationMaster | NothingMade:
    """Solve for the response to stars from the night's catalogs of one filter."""
    config = learning.settings.illumination
    own = _own_images(learning)
    own = own[:: -(-len(own) // config.max_exposures) or 1]
    if len(own) < config.min_exposures:
        return NothingMade(f"{len(own)} exposures, {config.min_exposures} are needed")
    images = [_solved(item) for item in own]
    state, _ = Counter(map(_illumination_time, images)).most_common(1)[0]
    images = [image for image in images if _illumination_time(image) == state]
    applied = None
    if state is not None:
        applied = _used(images[0].metrics, "illumination", images[0].item)
        if applied is None:
            return NothingMade("the images carry a correction that is no longer the valid one")
    stars = _reference_stars(images, learning)
    photocal = images[0].photocal
    return MakeIllumination(config).run(
        [_measurements(image, stars, learning) for image in images],
        learning.detector,
        catalog_magnitude=_as_measured(stars, photocal),
        catalog_error=np.asarray(stars[f"mag_{photocal.band}_err"], dtype=np.float64),
        applied=applied,
        previous=learning.previous,
    )


def _solved(item: LearnedImage) -> _Solved:
    image = read_calibrated_image(item.image)
    metrics = image.metadata.get("metrics", {})
    return _Solved(item, image.wcs, image.photocal, image.psf.central_fwhm, image.shape, metrics)


def _illumination_time(image: _Solved) -> float | None:
    """Return when the illumination product was taken that an image was divided by; None: by none."""
    used = image.metrics.get("detrend", {}).get("calibrations", {}).get("illumination")
    return None if used is None else float(used["mjd_tai"])


def _reference_stars(images: list[_Solved], learning: Learning) -> Catalog:
    """Return the catalog's constant point sources about all images, places moved to the epoch of the first."""
    centres, reach = [], 0.0
    for image in images:
        ny, nx = image.shape
        ra, dec = image.wcs.pixel_to_sky(x=(nx - 1) / 2, y=(ny - 1) / 2)
        centres.append(unit_vectors(float(ra), float(dec)))
        reach = max(reach, 0.5 * float(np.hypot(nx, ny)) * image.wcs.pixel_scale_arcsec / 3600.0)
    found = [
        learning.context.refcats.cone(ra=ra, dec=dec, radius_deg=radius) for ra, dec, radius in _discs(centres, reach)
    ]
    stars = concatenate(found)
    _, first = np.unique(np.stack([stars["ra"], stars["dec"]]), axis=1, return_index=True)
    stars = stars.select(np.sort(first))
    stars = stars.select(np.flatnonzero(~np.asarray(stars["is_extended"]) & ~np.asarray(stars["is_variable"])))
    moved = propagate_positions(
        ra=stars["ra"], dec=stars["dec"], pm_ra=stars["pm_ra"], pm_dec=stars["pm_dec"],
        years=images[0].item.info.epoch_year - np.asarray(stars["epoch"], dtype=np.float64),
    )  # fmt: skip
    return stars.replace(ra=moved[0], dec=moved[1])


def _discs(centres: list[Any], reach: float) -> list[tuple[float, float, float]]:
    """Return discs (ra, dec, radius in degrees) that hold all images, one for each field of a night."""
    groups: list[list[Any]] = []
    for centre in centres:
        near = [g for g in groups if np.degrees(np.arccos(np.clip(g[0] @ centre, -1.0, 1.0))) < 2.0 * reach]
        if near:
            near[0].append(centre)
        else:
            groups.append([centre])
    discs = []
    for group in groups:
        spread = float(np.degrees(max(np.arccos(np.clip(group[0] @ c, -1.0, 1.0)) for c in group)))
        ra, dec = np.degrees(np.arctan2(group[0][1], group[0][0])) % 360.0, np.degrees(np.arcsin(group[0][2]))
        discs.append((float(ra), float(dec), spread + reach))
    return discs


def _as_measured(stars: Catalog, photocal: PhotoCal) -> Floats:
    """Return catalog magnitudes as the detector would measure them: the colour term taken off."""
    magnitude = np.asarray(stars[f"mag_{photocal.band}"], dtype=np.float64)
    if not photocal.colour_name:
        return magnitude
    first, second = photocal.colour_name.split("-")
    colour = np.asarray(stars[f"mag_{first}"], dtype=np.float64) - np.asarray(stars[f"mag_{second}"], dtype=np.float64)
    return magnitude - photocal.colour_term * colour


def _measurements(image: _Solved, stars: Catalog, learning: Learning) -> StarMeasurements:
    """Return the clean bright sources of an exposure that are catalog stars, as measured after flat-fielding."""
    item = image.item
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
    limit = max(_MATCH_FWHM * image.fwhm * image.wcs.pixel_scale_arcsec, _MATCH_LEAST_ARCSEC)
    chord = float(chord_of(limit))
    tree = cKDTree(unit_vectors(stars["ra"], stars["dec"]))
    distance, row = tree.query(unit_vectors(sources["ra"], sources["dec"]), distance_upper_bound=chord)
    matched = np.flatnonzero(np.isfinite(distance))
    sources = sources.select(matched)
    x, y = (np.asarray(sources[name], dtype=np.float64) for name in ("x", "y"))
    return StarMeasurements(
        item.info, x, y, np.asarray(sources["mag"], dtype=np.float64) - _levelling(image)(x=x, y=y),
        np.asarray(sources["mag_err"], dtype=np.float64), row[matched].astype(np.int64),
    )  # fmt: skip


def _levelling(image: _Solved) -> ZeroPointMap:
    """Return the change of the zero point that was taken out of an image, mag."""
    found = image.metrics.get("photometry", {})
    coefficients = np.asarray(found.get("spatial_coefficients", []), dtype=np.float64)
    return ZeroPointMap(coefficients, image.shape, int(found.get("spatial_order", 0)) if coefficients.size else 0)
