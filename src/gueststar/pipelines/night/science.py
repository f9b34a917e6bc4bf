"""One detector of one exposure, from raw pixels to a calibrated image and two catalogs, in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gueststar.cameras.header_wcs import detector_wcs
from gueststar.core.bits import MaskPlane, SourceFlag
from gueststar.core.errors import DataError, MissingInput
from gueststar.formats.raw import read_detector, read_headers
from gueststar.model.calibration import Calibrations
from gueststar.model.camera import Camera, Detector, Filter
from gueststar.model.catalog import Catalog
from gueststar.model.depth import DepthMap
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import CalibratedImage, DetrendedFrame, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf
from gueststar.model.raw import RawDetector
from gueststar.model.wcs import Wcs
from gueststar.pipelines.calibration.distortion import distortion_of
from gueststar.pipelines.electronics import seen_detectors
from gueststar.pipelines.engine.outcome import Outcome, Result, StepTimer, attempt
from gueststar.pipelines.night.calibrations.known import CalibrationPaths, read_calibrations
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.pipelines.night.worker import WorkerContext
from gueststar.pipelines.science.astrometry import AstrometrySolution, SolveAstrometry, air_for
from gueststar.pipelines.science.background import SubtractBackground
from gueststar.pipelines.science.catalogs import (
    MakeCatalogs,
    calibrate_apertures,
    calibrate_sources,
    flag_halos,
    flag_near,
    with_planes,
    without_rays,
)
from gueststar.pipelines.science.depth import MapDepth, level_error_of
from gueststar.pipelines.science.detrend import Detrend
from gueststar.pipelines.science.ghosts import MarkGhosts
from gueststar.pipelines.science.halos import MarkHalos
from gueststar.pipelines.science.photometry import PhotometrySolution, SolvePhotometry, level_zero_point
from gueststar.pipelines.science.psf import MeasurePsf, fresh_scene_of
from gueststar.store.products import DataId, StagedProduct


@dataclass(frozen=True)
class ScienceWork:
    """Everything a worker needs to process one detector of one exposure; small, so that it travels."""

    job_id: int
    repo_root: Path
    raw_path: Path
    info: ExposureInfo
    detector_id: int
    settings: PipelineSettings
    calibrations: CalibrationPaths = field(default_factory=dict)
    expected_zero_point: float | None = None
    """Of a clear sky at this airmass, from earlier nights; None: not known."""


ChangeRaw = Callable[[RawDetector, Calibrations], RawDetector]


@dataclass(frozen=True)
class ScienceProducts:
    """What one detector image yields."""

    image: CalibratedImage
    sources: Catalog
    apertures: Catalog
    metrics: dict[str, Any]


def run_science(work: ScienceWork) -> Outcome:
    """Process one detector image and stage its products; every failure becomes an outcome."""
    return attempt(work.job_id, lambda: stage_science_work(work))


HandOn = Callable[[tuple[StagedProduct, CalibratedImage]], None]
"""Takes a staged science image, and the image as its file will be read."""


def stage_science_work(work: ScienceWork, *, hand_on: HandOn | None = None) -> Result:
    """Process one detector image and stage its products; ``hand_on`` gets the image for what comes next."""
    context = WorkerContext.of(work.repo_root)
    timer = StepTimer()
    data_id = DataId(exposure=work.info.exposure_id, detector=work.detector_id)
    inputs: dict[str, Any] = {
        "raw": str(work.raw_path),
        **{str(kind): str(path) for kind, path in work.calibrations.items()},
        "reference_catalogs": list(context.refcats.names()),
    }
    if not context.camera.has_sky:
        frame = make_detrended(work, context.camera, timer)
        with timer("write"):
            stored = context.stage("detrended_frame", data_id, frame)
        return Result(staged=(stored,), metrics=frame.metadata["metrics"], inputs=inputs, steps=timer.seconds)
    products = make_science(work, context, timer)
    with timer("write"):
        staged = stage_science(context, data_id, products, hand_on=hand_on)
    return Result(staged=staged, metrics=products.metrics, inputs=inputs, steps=timer.seconds)


def make_detrended(work: ScienceWork, camera: Camera, timer: StepTimer) -> DetrendedFrame:
    """Return the detrended pixels of one detector of a camera that sees no sky: that is all that is made of them."""
    steps: dict[str, Any] = {}
    pixels = _detrended(work, camera, camera.detector(work.detector_id), timer, steps)
    steps["fraction_masked"] = steps["detrend"]["fraction_masked"]
    info = work.info
    facts = {"camera": info.camera, "visit": info.exposure_id, "detector": work.detector_id, "mjd_tai": info.mjd_tai}
    return DetrendedFrame(pixels, {**facts, "exposure": info.to_dict(), "metrics": steps})


def stage_science(
    context: WorkerContext, data_id: DataId, products: ScienceProducts, *, hand_on: HandOn | None = None
) -> tuple[StagedProduct, ...]:
    """Write what a science image's work made into the staging folder; ``hand_on`` gets the image as it will be read."""
    if hand_on is None:
        image = context.stage("science_image", data_id, products.image)
    else:
        image, restored = context.stage_image("science_image", data_id, products.image)
        hand_on((image, restored))
    return (
        image,
        context.stage("source", data_id, products.sources),
        context.stage("aperture_source", data_id, products.apertures),
        context.stage("science_metrics", data_id, products.metrics),
    )


def make_science(
    work: ScienceWork, context: WorkerContext, timer: StepTimer, *, change_raw: ChangeRaw | None = None
) -> ScienceProducts:
    """Return the calibrated image and catalogs of one detector.

    ``change_raw`` may alter the raw pixels before anything is done with them (artificial sources).

    Raises DataError when no honest PSF, astrometric or photometric solution exists, and MissingInput when
    no reference catalog covers the place.
    """
    settings, camera = work.settings, context.camera
    detector = camera.detector(work.detector_id)
    steps: dict[str, Any] = {}
    pixels = _detrended(work, camera, detector, timer, steps, change_raw)
    with timer("background"):
        subtracted = SubtractBackground(settings.background).run(pixels)
        pixels, steps["background"] = subtracted.pixels, subtracted.metrics
        level_error = level_error_of(subtracted.background, settings.background.box)
        del subtracted  # maps of the sky that nothing needs any more
    with timer("psf"):
        expected = camera.typical_fwhm_arcsec / camera.pixel_scale_arcsec
        fresh = fresh_scene_of(pixels)
        measured = MeasurePsf(settings.psf).run(pixels, expected_fwhm=expected, fresh=fresh)
        steps["psf"] = measured.metrics
    with timer("catalogs"):
        instrumental = MakeCatalogs(settings.catalogs).run(pixels, measured.psf, fresh=fresh)
        del fresh  # planes that nothing needs any more
        pixels, steps["catalogs"] = without_rays(pixels, instrumental.rays), instrumental.metrics
    solved = _calibrated(work, context, instrumental.psf, pixels.shape, timer, steps)
    wcs, photocal, spatial = solved.astrometry.wcs, solved.photometry.photocal, solved.photometry.spatial
    with timer("photometry"):
        pixels, point, aperture = level_zero_point(pixels, instrumental.psf, instrumental.aperture, spatial)
    with timer("halos"):
        pixels = with_planes(pixels, instrumental.is_detected, MaskPlane.DETECTED)
        marked = MarkHalos(settings.halos).run(
            pixels, psf=measured.psf, wcs=wcs, photocal=photocal, reference=solved.reference,
            sources=point, epoch_year=work.info.epoch_year,
        )  # fmt: skip
        pixels, steps["halos"] = marked.pixels, marked.metrics
    if camera.ghosts:
        with timer("ghosts"):
            pixels, steps["ghosts"] = _with_ghosts(pixels, work, context, wcs, photocal, steps)
    with timer("catalogs"):
        place: dict[str, Any] = {"visit": work.info.exposure_id, "detector": detector.id}
        used = _used_stars(measured.stars, solved, point)
        tables = [flag_used(table, used, pixels, measured.psf) for table in (point, aperture)]
        sources = calibrate_sources(tables[0], wcs, photocal, astrometry=solved.astrometry, **place)
        apertures = calibrate_apertures(tables[1], wcs, photocal, astrometry=solved.astrometry, **place)
    with timer("depth"):
        depth = MapDepth(settings.depth).run(pixels, measured.psf, photocal, level_error=level_error)
    metrics = summary_metrics(pixels, measured.psf, wcs, photocal, depth, steps)
    metadata = image_metadata(work.info, detector, metrics)
    image = CalibratedImage(pixels, wcs, measured.psf, photocal, metadata, depth=depth)
    return ScienceProducts(image, sources, apertures, metrics)


class Solutions(NamedTuple):
    """The calibration of a detector image on the sky, and the stars it rests on."""

    astrometry: AstrometrySolution
    photometry: PhotometrySolution
    reference: Catalog
    """REFCAT stars about the image."""


def _calibrated(
    work: ScienceWork,
    context: WorkerContext,
    sources: Catalog,
    shape: tuple[int, int],
    timer: StepTimer,
    steps: dict[str, Any],
) -> Solutions:
    """Return the astrometric and photometric solution of a detector image."""
    camera, settings = context.camera, work.settings
    glass = _filter_of(camera, work.info)
    start, is_solved = _start_wcs(camera, camera.detector(work.detector_id), work)
    known = read_calibrations({kind: path for kind, path in work.calibrations.items() if kind == "distortion"})
    distortion = None if known.distortion is None else distortion_of(known.distortion)
    with timer("refcat"):
        reference = _reference_stars(context, start, shape, camera)
    with timer("astrometry"):
        astrometry = SolveAstrometry(settings.astrometry).run(
            sources,
            start=start,
            shape=shape,
            reference=reference,
            epoch_year=work.info.epoch_year,
            pointing_tolerance_arcmin=camera.pointing_tolerance_arcmin,
            rotation_tolerance_deg=camera.rotation_tolerance_deg,
            scale_tolerance=camera.pixel_scale_tolerance,
            is_parity_known=camera.is_parity_known,
            band=glass.catalog_band,
            colour=glass.colour,
            # A solution in the header was made of stars seen through the air.
            air=None if is_solved and distortion is None else air_for(camera.site, work.info, glass),
            distortion=distortion,
        )
        steps["astrometry"] = astrometry.to_metadata()
    with timer("photometry"):
        photometry = SolvePhotometry(settings.photometry).run(
            sources,
            astrometry.matches,
            reference,
            filter=glass,
            shape=shape,
            expected_zero_point=work.expected_zero_point,
        )
        steps["photometry"] = photometry.to_metadata()
    return Solutions(astrometry, photometry, reference)


def _used_stars(psf_stars: Catalog, solved: Solutions, sources: Catalog) -> dict[SourceFlag, Catalog]:
    """Return the stars that each step used, by the flag that tells it."""
    return {
        SourceFlag.PSF_STAR: psf_stars.select(psf_stars["is_used"]),
        SourceFlag.PSF_RESERVED: psf_stars.select(psf_stars["is_reserved"]),
        SourceFlag.ASTROMETRIC: sources.select(solved.astrometry.fitted),
        SourceFlag.CALIBRATOR: sources.select(solved.photometry.calibrators),
    }


def flag_used(catalog: Catalog, used: dict[SourceFlag, Catalog], pixels: MaskedImage, psf: Psf) -> Catalog:
    """Return a catalog that tells what its sources were used for, and which lie in halos."""
    return flag_halos(flag_near(catalog, used), pixels.mask, fwhm=psf.central_fwhm)


def _detrended(
    work: ScienceWork,
    camera: Camera,
    detector: Detector,
    timer: StepTimer,
    steps: dict[str, Any],
    change_raw: ChangeRaw | None = None,
) -> MaskedImage:
    with timer("read"):
        calibrations = read_calibrations(work.calibrations)
        others = seen_detectors(calibrations, detector, camera)
        raw = read_detector(work.raw_path, detector, work.info, others=others)
    if change_raw is not None:
        raw = change_raw(raw, calibrations)
    with timer("detrend"):
        detrended = Detrend(work.settings.detrend).run(raw, calibrations)
    steps["detrend"] = detrended.metrics
    return detrended.pixels


def _start_wcs(camera: Camera, detector: Detector, work: ScienceWork) -> tuple[Wcs, bool]:
    """Return the header's solution where the camera trusts it, else what the pointing implies; and whether solved."""
    info = work.info
    if camera.header.is_wcs_trusted:
        solved = detector_wcs(camera, read_headers(work.raw_path), detector)
        if solved is not None:
            return solved, True
    if info.ra is None or info.dec is None:
        raise DataError(f"exposure {info.exposure_id} has no position to start the astrometry from")
    return camera.nominal_wcs(detector, ra=info.ra, dec=info.dec, rotation_deg=info.rotation_deg), False


def _with_ghosts(
    pixels: MaskedImage,
    work: ScienceWork,
    context: WorkerContext,
    wcs: Wcs,
    photocal: PhotoCal,
    steps: dict[str, Any],
) -> tuple[MaskedImage, dict[str, Any]]:
    """Mark the ghosts that the camera's description foretells, of stars anywhere in the field."""
    camera, task = context.camera, MarkGhosts(work.settings.ghosts)
    detector = camera.detector(work.detector_id)
    stars = [
        context.refcats.cone(ra=disc.ra, dec=disc.dec, radius_deg=disc.radius_deg)
        for disc in task.regions(camera, detector, wcs)
    ]
    marked = task.run(
        pixels, camera=camera, detector=detector, wcs=wcs, photocal=photocal, stars=stars,
        epoch_year=work.info.epoch_year, sky_rms=float(steps["background"]["sky_rms"]),
    )  # fmt: skip
    return marked.pixels, marked.metrics


def _reference_stars(context: WorkerContext, start: Wcs, shape: tuple[int, int], camera: Camera) -> Catalog:
    ny, nx = shape
    ra, dec = start.pixel_to_sky(x=(nx - 1) / 2, y=(ny - 1) / 2)
    half_diagonal = 0.5 * (nx**2 + ny**2) ** 0.5 * camera.pixel_scale_arcsec / 3600.0
    radius = half_diagonal * (1.0 + camera.pixel_scale_tolerance) + camera.pointing_tolerance_arcmin / 60.0
    stars = context.refcats.cone(ra=float(ra), dec=float(dec), radius_deg=radius)
    if stars.n_rows == 0:
        raise MissingInput(
            f"no reference catalog covers RA {float(ra):.4f} Dec {float(dec):+.4f}: "
            "gueststar refcat import, or gueststar refcat from-images"
        )
    return stars


def _filter_of(camera: Camera, info: ExposureInfo) -> Filter:
    found = camera.filter_named(info.physical_filter or "")
    if found is None:
        raise DataError(f"exposure {info.exposure_id} has filter {info.physical_filter!r}, unknown to {camera.name}")
    return found


def summary_metrics(
    pixels: MaskedImage, psf: Psf, wcs: Wcs, photocal: PhotoCal, depth: DepthMap, steps: dict[str, Any]
) -> dict[str, Any]:
    """Return the named metrics of `gueststar.model.metrics`, with each step's own figures under its name."""
    astrometry, background = steps["astrometry"], steps["background"]
    ra, dec = wcs.corners(pixels.shape)
    return {
        "fwhm_arcsec": psf.central_fwhm * wcs.pixel_scale_arcsec,
        "psf_size_residual": steps["psf"]["size_difference"]["mean"],
        "psf_ellipticity_residual": _ellipticity_residual(steps["psf"]),
        "sky_electrons": background["sky_level"],
        "sky_rms_electrons": background["sky_rms"],
        "n_sources": steps["catalogs"]["n_sources"],
        "n_astrometric_matches": astrometry["n_fitted"],
        "astrometric_rms_mas": astrometry["rms_bright_mas"],
        "zero_point": photocal.zero_point,
        "zero_point_err": photocal.zero_point_err,
        "zero_point_rms_mag": photocal.zero_point_rms,
        "n_calibrators": photocal.n_calibrators,
        "colour_term_excess": steps.get("photometry", {}).get("colour_term_excess"),
        "cloud_extinction_mag": _known(steps.get("photometry", {}).get("extinction")),
        "zero_point_structure_mag": steps.get("photometry", {}).get("structure_rms"),
        "limiting_mag": depth.median,
        "limiting_mag_worst": depth.quantile(0.05),
        "fraction_masked": 1.0 - np.count_nonzero(pixels.is_usable()) / pixels.mask.size,
        "corners": [[float(a), float(d)] for a, d in zip(ra, dec, strict=True)],
        **steps,
    }


def _ellipticity_residual(psf: dict[str, Any]) -> float | None:
    means = [psf.get(name, {}).get("mean") for name in ("e1_difference", "e2_difference")]
    return None if None in means else float(np.hypot(*means))


def _known(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)


def limiting_magnitude(image: CalibratedImage) -> float | None:
    """Return the 5-sigma limit of the typical place of an image, AB; None if no pixel is usable."""
    depth = image.depth or MapDepth().run(image.pixels, image.psf, image.photocal)
    return depth.median


def _zero_point_facts(photometry: dict[str, Any]) -> dict[str, Any]:
    """Return what the header tells: the change over the detector that was taken out of the pixels, and doubts."""
    if not photometry:
        return {}
    names = ("spatial_order", "spatial_rms", "spatial_rms_err", "is_cloudy", "is_band_doubtful")
    return {name.replace("spatial", "zero_point_map"): photometry[name] for name in names}


def image_metadata(info: ExposureInfo, detector: Detector, metrics: dict[str, Any]) -> dict[str, Any]:
    """Return what an image tells of itself: the exposure's facts, the detector, the metrics."""
    return {
        "camera": info.camera,
        "visit": info.exposure_id,
        "detector": detector.id,
        "rcid": detector.rcid,
        "mjd_tai": info.mjd_tai,
        "exposure_s": info.exposure_s,
        "day_obs": info.day_obs,
        "program": int(info.program),
        "physical_filter": info.physical_filter,
        "band": info.band,
        "field": info.field,
        "object": info.object_name,
        **_zero_point_facts(metrics.get("photometry", {})),
        "exposure": info.to_dict(),
        "metrics": metrics,
    }
