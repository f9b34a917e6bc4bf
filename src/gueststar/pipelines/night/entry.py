"""A user's own science image made complete: what its file does not tell is measured, what it tells is kept.

Kept are pixels, variance, mask, WCS, zero point and PSF where the file holds them. A WCS that is told is compared
with the reference catalog and refused where it is off; a zero point that is told is compared and the
difference recorded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.photocal.spatial import ZeroPointMap
from gueststar.core.bits import MaskPlane, SourceFlag
from gueststar.core.errors import DataError, MissingInput
from gueststar.formats.calibrated_image import is_calibrated_image, read_calibrated_image
from gueststar.formats.foreign_image import read_foreign_image
from gueststar.model.camera import Filter
from gueststar.model.catalog import Catalog
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf
from gueststar.model.wcs import Wcs
from gueststar.pipelines.engine.outcome import Outcome, Result, StepTimer, attempt
from gueststar.pipelines.night.science import (
    ScienceProducts,
    flag_used,
    image_metadata,
    stage_science,
    summary_metrics,
)
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.pipelines.night.worker import WorkerContext
from gueststar.pipelines.science.astrometry import AstrometrySolution, SolveAstrometry, air_for
from gueststar.pipelines.science.background import SubtractBackground
from gueststar.pipelines.science.catalogs import (
    MakeCatalogs,
    calibrate_apertures,
    calibrate_sources,
    with_planes,
    without_rays,
)
from gueststar.pipelines.science.depth import MapDepth
from gueststar.pipelines.science.halos import MarkHalos
from gueststar.pipelines.science.photometry import PhotometrySolution, SolvePhotometry, level_zero_point
from gueststar.pipelines.science.psf import MeasurePsf
from gueststar.store.products import DataId

WORST_OFFSET_PIXELS = 1.0
"""A WCS whose stars lie farther than this from the catalog is refused."""

WORST_ZERO_POINT_OFFSET = 0.1
"""A zero point farther than this (mag) from the catalog's is told in the notes."""

SKY_LIMIT = 1.0
"""A median above this many sigma of the noise means that the sky was not subtracted."""


@dataclass(frozen=True)
class EnteredWork:
    """A user's image of one detector of one exposure."""

    job_id: int
    repo_root: Path
    path: Path
    origin: str
    """The file as it was given."""
    info: ExposureInfo
    detector_id: int
    settings: PipelineSettings
    cards: Mapping[str, Any] = field(default_factory=dict)
    """Stand in for cards that the file lacks."""
    companions: Mapping[str, Path] = field(default_factory=dict)
    """Files of further planes."""


@dataclass(frozen=True)
class EnteredScienceWork(EnteredWork):
    """A user's calibrated image."""


class Told(NamedTuple):
    """What a user's file tells; None: it is to be measured."""

    pixels: MaskedImage
    wcs: Wcs | None
    photocal: PhotoCal | None
    psf: Psf | None
    notes: tuple[str, ...]


def run_entered_science(work: EnteredScienceWork) -> Outcome:
    """Complete one image and stage its products; every failure becomes an outcome."""
    return attempt(work.job_id, lambda: _stage(work))


def _stage(work: EnteredScienceWork) -> Result:
    context, timer = WorkerContext.of(work.repo_root), StepTimer()
    products = complete_science(work, context, timer)
    data_id = DataId(visit=work.info.exposure_id, detector=work.detector_id)
    with timer("write"):
        staged = stage_science(context, data_id, products)
    inputs = {"science_image": work.origin, "reference_catalogs": list(context.refcats.names())}
    return Result(staged, products.metrics, inputs, timer.seconds)


def read_science(work: EnteredScienceWork) -> Told:
    """Return what the file tells, of gueststar's own layout or any other."""
    if is_calibrated_image(work.path):
        image = read_calibrated_image(work.path)
        return Told(image.pixels, image.wcs, image.photocal, image.psf, ())
    found = read_foreign_image(
        work.path, exposure_s=work.info.exposure_s, band=work.info.band or "", cards=work.cards,
        companions=work.companions,
    )  # fmt: skip
    return Told(found.pixels, found.wcs, found.photocal, found.psf, found.notes)


def complete_science(work: EnteredScienceWork, context: WorkerContext, timer: StepTimer) -> ScienceProducts:
    """Return the image with the survey's metadata, its catalogs and its metrics.

    Raises DataError when no honest PSF or solution exists or the file's WCS is off the reference catalog, and
    MissingInput when a solution is needed and no reference catalog covers the place.
    """
    settings, info, detector = work.settings, work.info, context.camera.detector(work.detector_id)
    steps: dict[str, Any] = {}
    with timer("read"):
        told = read_science(work)
    with timer("background"):
        pixels, steps["background"], is_sky_ours = without_sky(told.pixels, settings)
    with timer("psf"):
        psf, steps["psf"], psf_stars = _psf(told, pixels, context, settings)
    with timer("catalogs"):
        found = MakeCatalogs(settings.catalogs).run(pixels, psf)
        pixels, steps["catalogs"] = without_rays(pixels, found.rays), found.metrics
    solved = _calibrated(work, told, found.psf, pixels.shape, context, timer, steps)
    wcs, photocal = solved.wcs, solved.photocal
    with timer("photometry"):
        pixels, point, aperture = level_zero_point(pixels, found.psf, found.aperture, solved.spatial)
    with timer("halos"):
        pixels = with_planes(pixels, found.is_detected, MaskPlane.DETECTED)
        marked = MarkHalos(settings.halos).run(
            pixels, psf=psf, wcs=wcs, photocal=photocal, reference=solved.stars, sources=point,
            epoch_year=info.epoch_year,
        )  # fmt: skip
        pixels, steps["halos"] = marked.pixels, marked.metrics
    place: dict[str, Any] = {"visit": info.exposure_id, "detector": detector.id}
    with timer("catalogs"):
        used = psf_stars | {flag: found.psf.select(rows) for flag, rows in solved.used.items()}
        tables = [flag_used(table, used, pixels, psf) for table in (point, aperture)]
        sources = calibrate_sources(tables[0], wcs, photocal, **place)
        apertures = calibrate_apertures(tables[1], wcs, photocal, **place)
    with timer("depth"):
        depth = MapDepth(settings.depth).run(pixels, psf, photocal)
    metrics = summary_metrics(pixels, psf, wcs, photocal, depth, steps)
    metrics["entered"] = {
        "file": work.origin,
        "measured": [
            name
            for name, is_ours in (
                ("background", is_sky_ours), ("psf", told.psf is None), ("wcs", told.wcs is None),
                ("zero_point", told.photocal is None),
            )
            if is_ours
        ],
        "notes": [*told.notes, *_doubts(steps)],
    }  # fmt: skip
    if told.photocal is not None and not photocal.n_calibrators:  # not counted here, so not poor either
        metrics |= {"n_calibrators": None, "zero_point_rms_mag": photocal.zero_point_rms or None}
    image = CalibratedImage(pixels, wcs, psf, photocal, image_metadata(info, detector, metrics), depth=depth)
    return ScienceProducts(image, sources, apertures, metrics)


def _doubts(steps: Mapping[str, Any]) -> list[str]:
    """Return what the reference catalog says against the file."""
    offset = steps.get("photometry", {}).get("zero_point_offset", 0.0)
    if abs(offset) < WORST_ZERO_POINT_OFFSET:
        return []
    return [f"the file's zero point is {offset:+.2f} mag off that of the reference catalog; it was kept"]


def without_sky(pixels: MaskedImage, settings: PipelineSettings) -> tuple[MaskedImage, dict[str, Any], bool]:
    """Return pixels without sky, figures of the sky, and whether it was subtracted here."""
    good = pixels.is_usable(MaskPlane.BAD | MaskPlane.NO_DATA | MaskPlane.SATURATED)
    if not good.any():
        raise DataError("no pixel is usable")
    level, noise = float(np.median(pixels.image[good])), float(np.sqrt(np.median(pixels.variance[good])))
    subtracted = SubtractBackground(settings.background).run(pixels)
    if abs(level) < SKY_LIMIT * noise:
        return pixels, {**subtracted.metrics, "sky_level": 0.0}, False
    is_void = (pixels.mask & int(MaskPlane.NO_DATA)) != 0
    image = np.where(is_void, pixels.image, subtracted.pixels.image).astype(np.float32)
    return MaskedImage(image, pixels.variance, pixels.mask), subtracted.metrics, True


def _psf(
    told: Told, pixels: MaskedImage, context: WorkerContext, settings: PipelineSettings
) -> tuple[Psf, dict[str, Any], dict[SourceFlag, Catalog]]:
    """Return the PSF, its figures, and the stars that it rests on."""
    if told.psf is not None:
        return told.psf, {"is_given": True, "size_difference": {"mean": None}}, {}
    expected = context.camera.typical_fwhm_arcsec / context.camera.pixel_scale_arcsec
    measured = MeasurePsf(settings.psf).run(pixels, expected_fwhm=expected)
    stars = measured.stars
    used = {
        SourceFlag.PSF_STAR: stars.select(stars["is_used"]), SourceFlag.PSF_RESERVED: stars.select(stars["is_reserved"])
    }  # fmt: skip
    return measured.psf, measured.metrics, used


class Solved(NamedTuple):
    """The calibration of an image on the sky, and what it rests on."""

    wcs: Wcs
    photocal: PhotoCal
    stars: Catalog
    """REFCAT stars about the image."""
    spatial: ZeroPointMap | None = None
    """Change of a zero point that was measured here."""
    used: Mapping[SourceFlag, NDArray[Any]] = {}
    """Rows of the source catalog that solutions taken from here rest on."""


def _calibrated(
    work: EnteredScienceWork,
    told: Told,
    sources: Catalog,
    shape: tuple[int, int],
    context: WorkerContext,
    timer: StepTimer,
    steps: dict[str, Any],
) -> Solved:
    """Return WCS and zero point: as told, else solved; and record what the reference catalog says to those told."""
    info, camera = work.info, context.camera
    glass = camera.filter_named(info.physical_filter or "")
    if glass is None:
        raise DataError(f"exposure {info.exposure_id} has filter {info.physical_filter!r}, unknown to {camera.name}")
    with timer("refcat"):
        start = told.wcs or _nominal(work, context)
        stars = _stars(context, start, shape, is_pointing=told.wcs is None)
    if stars.n_rows == 0:
        return _unchecked(info, told, stars, steps)
    used: dict[SourceFlag, NDArray[Any]] = {}
    with timer("astrometry"):
        solution = _solve(work, told, sources, start, shape, stars, glass, context)
        steps["astrometry"] = solution.to_metadata()
        if told.wcs is not None:
            steps["astrometry"]["wcs_offset_pixels"] = _checked_offset(told.wcs, solution.wcs, shape)
        else:
            used[SourceFlag.ASTROMETRIC] = solution.fitted
    with timer("photometry"):
        photometry = _photometry(work, told, sources, solution, stars, glass, shape)
    wcs = told.wcs or solution.wcs
    if photometry is not None:
        steps["photometry"] = photometry.to_metadata()
    if told.photocal is None:
        assert photometry is not None  # it raises where it is needed and cannot be had
        used[SourceFlag.CALIBRATOR] = photometry.calibrators
        return Solved(wcs, photometry.photocal, stars, photometry.spatial, used)
    if photometry is not None:
        steps["photometry"]["zero_point_offset"] = told.photocal.zero_point - photometry.photocal.zero_point
    return Solved(wcs, told.photocal, stars, None, used)


def _unchecked(info: ExposureInfo, told: Told, stars: Catalog, steps: dict[str, Any]) -> Solved:
    """Return what the file tells where no reference catalog covers the place; MissingInput if it lacks something."""
    if told.wcs is None or told.photocal is None:
        lacks = "WCS" if told.wcs is None else "zero point"
        raise MissingInput(
            f"the image has no {lacks} and no reference catalog covers RA {info.ra:.4f} Dec {info.dec:+.4f} "
            "to measure it with: gueststar refcat import"
        )
    unknown = ("rms_ra_mas", "rms_dec_mas", "rms_bright_mas")
    steps["astrometry"] = {"n_fitted": 0, **dict.fromkeys(unknown, math.nan)}
    return Solved(told.wcs, told.photocal, stars)


def _nominal(work: EnteredScienceWork, context: WorkerContext) -> Wcs:
    info, camera = work.info, context.camera
    if info.ra is None or info.dec is None:
        raise DataError(f"{work.origin} has neither a WCS nor a position to start one from")
    return camera.nominal_wcs(
        camera.detector(work.detector_id), ra=info.ra, dec=info.dec, rotation_deg=info.rotation_deg
    )


def _stars(context: WorkerContext, start: Wcs, shape: tuple[int, int], *, is_pointing: bool) -> Catalog:
    ny, nx = shape
    ra, dec = (float(value) for value in start.pixel_to_sky(x=(nx - 1) / 2, y=(ny - 1) / 2))
    radius = math.hypot(nx, ny) / 2 * start.pixel_scale_arcsec / 3600.0 * 1.05
    if is_pointing:
        radius += context.camera.pointing_tolerance_arcmin / 60.0
    return context.refcats.known_stars(ra=ra, dec=dec, radius_deg=radius)


def _solve(
    work: EnteredScienceWork, told: Told, sources: Catalog, start: Wcs, shape: tuple[int, int], stars: Catalog,
    glass: Filter, context: WorkerContext,
) -> AstrometrySolution:  # fmt: skip
    camera = context.camera
    tolerances: dict[str, Any] = {
        "pointing_tolerance_arcmin": camera.pointing_tolerance_arcmin,
        "rotation_tolerance_deg": camera.rotation_tolerance_deg,
        "scale_tolerance": camera.pixel_scale_tolerance, "is_parity_known": camera.is_parity_known,
    }  # fmt: skip
    if told.wcs is not None:
        tolerances = {"pointing_tolerance_arcmin": 0.2, "rotation_tolerance_deg": 0.5, "scale_tolerance": 0.01}
    return SolveAstrometry(work.settings.astrometry).run(
        sources, start=start, shape=shape, reference=stars, epoch_year=work.info.epoch_year,
        band=glass.catalog_band, colour=glass.colour, air=None if told.wcs else air_for(camera.site, work.info, glass),
        **tolerances,
    )  # fmt: skip


def _checked_offset(own: Wcs, solved: Wcs, shape: tuple[int, int]) -> float:
    """Return the largest distance of two solutions on the image, pixels; DataError if it is too large."""
    ny, nx = shape
    x, y = (grid.ravel() for grid in np.meshgrid(np.linspace(0, nx - 1, 9), np.linspace(0, ny - 1, 9)))
    ra, dec = solved.pixel_to_sky(x=x, y=y)
    x_own, y_own = own.sky_to_pixel(ra=ra, dec=dec)
    offset = float(np.nanmax(np.hypot(x_own - x, y_own - y)))
    if not offset <= WORST_OFFSET_PIXELS:
        raise DataError(
            f"the file's WCS is up to {offset:.1f} pixels off the reference catalog; without CTYPE cards it is solved"
        )
    return offset


def _photometry(
    work: EnteredScienceWork, told: Told, sources: Catalog, solution: AstrometrySolution, stars: Catalog,
    glass: Filter, shape: tuple[int, int],
) -> PhotometrySolution | None:  # fmt: skip
    """Return the photometric solution; None where there is none and the file tells a zero point."""
    try:
        return SolvePhotometry(work.settings.photometry).run(
            sources, solution.matches, stars, filter=glass, shape=shape
        )
    except DataError:
        if told.photocal is None:
            raise
        return None
