"""A user's own difference image, from its pixels to vetted candidates, as the survey's own are worked on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gueststar.core.errors import DataError
from gueststar.formats.calibrated_image import is_calibrated_image, read_calibrated_image
from gueststar.formats.foreign_image import read_foreign_image
from gueststar.model.catalog import Catalog
from gueststar.model.columns import SOURCE
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf
from gueststar.model.wcs import Wcs
from gueststar.pipelines.difference.cutouts import Triplet, cut_candidates
from gueststar.pipelines.difference.detect import DetectCandidates, Detections
from gueststar.pipelines.difference.score import ScoreDifference
from gueststar.pipelines.difference.streaks import FindStreaks, Streaks
from gueststar.pipelines.difference.subtract import DifferenceResult
from gueststar.pipelines.difference.vet import VetCandidates
from gueststar.pipelines.engine.outcome import Outcome, Result, StepTimer, attempt
from gueststar.pipelines.night.difference import (
    bright_stars_on,
    detection_context,
    streak_metrics,
    with_footprints,
    worth_showing,
)
from gueststar.pipelines.night.entry import EnteredWork
from gueststar.pipelines.night.science import image_metadata
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.pipelines.night.worker import WorkerContext
from gueststar.pipelines.science.background import SubtractBackground
from gueststar.pipelines.science.catalogs import MakeCatalogs, calibrate_sources
from gueststar.pipelines.science.psf import MeasurePsf
from gueststar.store.products import DataId


@dataclass(frozen=True)
class EnteredDifferenceWork(EnteredWork):
    """A user's difference image."""

    science: Path | None = None
    """The repository's science image of the same exposure."""
    reference_sources: Path | None = None
    """The repository's catalog of its own reference of the place."""


class Told(NamedTuple):
    """A difference image and what came with it, all in the difference's unit turned to electrons."""

    difference: CalibratedImage
    """Its sky subtracted, its PSF known."""
    science: CalibratedImage | None
    reference: MaskedImage | None
    notes: tuple[str, ...]
    sky: float
    """Residual sky that was subtracted, electrons."""


def run_entered_difference(work: EnteredDifferenceWork) -> Outcome:
    """Detect, vet and stage; every failure becomes an outcome."""
    return attempt(work.job_id, lambda: _stage(work))


def _stage(work: EnteredDifferenceWork) -> Result:
    context, timer, settings = WorkerContext.of(work.repo_root), StepTimer(), work.settings
    with timer("read"):
        told = _told(work, context)
    with timer("score"):
        result = ScoreDifference(settings.subtraction).run(told.difference)
    with timer("reference"):
        sources = _reference_sources(work, told, context)
    with timer("detect"):
        detections = _detect(work, told, result, sources, context)
        marked = with_footprints(result, detections.catalog, settings.detection.threshold)
        result = result._replace(difference=marked)
    with timer("vet"):
        science = None if told.science is None else told.science.pixels
        triplet = None
        if science is not None and told.reference is not None:
            triplet = Triplet(science, told.reference, result.difference.pixels)
        vetted = VetCandidates(settings.vetting, model=context.reliability_model()).run(detections.catalog, triplet)
    metrics = _metrics(work, told, result, detections) | {"vetting": vetted.metrics}
    with timer("cutouts"):
        shown = worth_showing(vetted.dia_sources, settings)
        cutouts = cut_candidates(shown, science, told.reference, result.difference.pixels)
    with timer("streaks"):
        streaks = _streaks(work, told, result, context)
        reach = result.difference.psf.central_fwhm
        dia_sources = FindStreaks(settings.streaks).flagged(vetted.dia_sources, streaks.catalog, fwhm=reach)
    metrics |= streak_metrics(streaks, settings.streaks.min_reliability)
    data_id = DataId(visit=work.info.exposure_id, detector=work.detector_id)
    with timer("write"):
        staged = (
            context.stage("difference_image", data_id, _described(work, told, result, context)),
            context.stage("dia_source", data_id, dia_sources),
            context.stage("candidate_cutouts", data_id, cutouts),
            context.stage("streak", data_id, streaks.catalog),
            context.stage("streak_cutouts", data_id, streaks.cutouts),
            context.stage("difference_metrics", data_id, metrics),
        )
    inputs = {"difference_image": work.origin, "science_image": str(work.science or "")}
    return Result(staged, metrics, inputs, timer.seconds)


def _told(work: EnteredDifferenceWork, context: WorkerContext) -> Told:
    """Return what the files tell; DataError where a PSF can be had from none of them."""
    settings, own = work.settings, None if work.science is None else context.image(work.science)
    if is_calibrated_image(work.path):
        image = read_calibrated_image(work.path)
        pixels, level = _without_residual_sky(image.pixels, settings)
        science = None if own is None else _in_unit_of(image.photocal, own)
        return Told(CalibratedImage(pixels, image.wcs, image.psf, image.photocal), science, None, (), level)
    found = read_foreign_image(
        work.path, exposure_s=work.info.exposure_s, band=work.info.band or "", role="difference",
        cards=work.cards, companions=work.companions,
    )  # fmt: skip
    wcs, photocal = known_frame(work.origin, found.wcs, found.photocal)
    pixels, level = _without_residual_sky(found.pixels, settings)
    science = None if own is None else _in_unit_of(photocal, own)
    if science is None and "science" in found.beside:
        plane = SubtractBackground(settings.background).run(found.beside["science"]).pixels
        measured = found.psf or _measured_psf(plane, context, settings)
        science = CalibratedImage(plane, wcs, measured, photocal)
    psf = found.psf or (science.psf if science else None)
    if psf is None:
        raise DataError(f"{work.origin} {NO_PSF}")
    difference = CalibratedImage(pixels, wcs, psf, photocal)
    if found.is_variance_estimated:
        difference = _with_true_noise(difference, science, settings)
    return Told(difference, science, found.beside.get("reference"), found.notes, level)


NO_PSF = "tells no PSF: add a PSF extension, a FWHM card (--set FWHM=PIXELS), or its science image"
"""What is said of a difference image whose PSF nothing tells."""


def known_frame(name: str, wcs: Wcs | None, photocal: PhotoCal | None) -> tuple[Wcs, PhotoCal]:
    """Return WCS and zero point of a difference image; DataError where one is missing (nothing can measure it)."""
    if wcs is None:
        raise DataError(f"{name} has no WCS (CTYPE1, CTYPE2 ...), which a difference image must bring")
    if photocal is None:
        raise DataError(f"{name} has no zero point: set one, for example --set MAGZP=27.5")
    return wcs, photocal


def _without_residual_sky(pixels: MaskedImage, settings: PipelineSettings) -> tuple[MaskedImage, float]:
    subtracted = SubtractBackground(settings.background).run(pixels)
    return subtracted.pixels, float(subtracted.metrics["sky_level"])


def _with_true_noise(
    difference: CalibratedImage, science: CalibratedImage | None, settings: PipelineSettings
) -> CalibratedImage:
    """Return a difference whose variance nothing told with one that fits its sky and its stars.

    The sky's is what the score's scatter says, as neighbouring pixels may share their noise. A subtracted star leaves
    its photon noise, of which the difference's own pixels tell nothing: the science image's variance does.
    """
    pixels = difference.pixels
    known = np.isfinite(pixels.variance)
    sky = float(np.median(pixels.variance[known]))
    flat = np.where(known, np.float32(sky), pixels.variance)
    even = CalibratedImage(
        MaskedImage(pixels.image, flat, pixels.mask), difference.wcs, difference.psf, difference.photocal
    )
    factor = ScoreDifference(settings.subtraction).run(even).metrics["score_noise"]
    light = (pixels if science is None else science.pixels).variance
    excess = light - np.float32(np.median(light[np.isfinite(light)]))
    stars = np.where(np.isfinite(excess), np.maximum(excess, 0.0), 0.0)
    variance = np.where(known, np.float32(sky * factor**2) + stars, pixels.variance).astype(np.float32)
    made = MaskedImage(pixels.image, variance, pixels.mask)
    return CalibratedImage(made, difference.wcs, difference.psf, difference.photocal)


def _in_unit_of(photocal: PhotoCal, image: CalibratedImage) -> CalibratedImage:
    """Return an image in the flux unit of another's zero point."""
    scale = np.float32(image.photocal.njy_per_unit / photocal.njy_per_unit)
    pixels = MaskedImage(image.pixels.image * scale, image.pixels.variance * scale**2, image.pixels.mask)
    return CalibratedImage(pixels, image.wcs, image.psf, photocal, image.metadata)


def _measured_psf(pixels: MaskedImage, context: WorkerContext, settings: PipelineSettings) -> Psf:
    expected = context.camera.typical_fwhm_arcsec / context.camera.pixel_scale_arcsec
    return MeasurePsf(settings.psf).run(pixels, expected_fwhm=expected).psf


def _reference_sources(work: EnteredDifferenceWork, told: Told, context: WorkerContext) -> Catalog:
    """Return the sources of the reference: the survey's own catalog, else measured on the plane that came along."""
    if work.reference_sources is not None:
        return context.catalog(work.reference_sources)
    if told.reference is None:
        return SOURCE.empty()
    settings = work.settings
    try:
        pixels = SubtractBackground(settings.background).run(told.reference).pixels
        psf = _measured_psf(pixels, context, settings)
        found = MakeCatalogs(settings.catalogs).run(pixels, psf).psf
    except DataError:  # a field without stars: nothing is known of neighbours, which is no fault of the difference
        return SOURCE.empty()
    difference = told.difference
    return calibrate_sources(
        found, difference.wcs, difference.photocal, visit=work.info.exposure_id, detector=work.detector_id
    )


def _detect(
    work: EnteredDifferenceWork, told: Told, result: DifferenceResult, sources: Catalog, context: WorkerContext
) -> Detections:
    """Return the detections; what needs a science image is NaN without one."""
    settings, difference = work.settings, result.difference
    science = told.science or difference
    pixels = MaskedImage(science.pixels.image, science.pixels.variance, science.pixels.mask | difference.pixels.mask)
    science = CalibratedImage(pixels, difference.wcs, science.psf, difference.photocal)
    # Science minus this is the difference again, which is what the test for sharp residuals looks at.
    rest = MaskedImage(pixels.image - difference.pixels.image, pixels.variance, np.zeros(pixels.shape, np.int32))
    found = DetectCandidates(settings.detection).run(
        result,
        science,
        CalibratedImage(rest, difference.wcs, science.psf, difference.photocal),
        context=detection_context(work.info, work.detector_id, context.camera),
        reference_sources=sources if sources.n_rows else None,
        bright_stars=bright_stars_on(context, science, sources, settings.detection.bright_mag),
    )
    if told.science is not None:
        return found
    unknown = np.full(found.catalog.n_rows, np.nan)
    return found._replace(catalog=found.catalog.replace(science_flux=unknown, science_flux_err=unknown))


def _streaks(work: EnteredDifferenceWork, told: Told, result: DifferenceResult, context: WorkerContext) -> Streaks:
    """Return the streaks of a difference that was made elsewhere; without a science image, of what is known of it."""
    place = detection_context(work.info, work.detector_id, context.camera)
    science = told.science or result.difference
    return FindStreaks(work.settings.streaks).run(result, science, None, context=place)


def _metrics(
    work: EnteredDifferenceWork, told: Told, result: DifferenceResult, detections: Detections
) -> dict[str, Any]:
    """Return the metrics that the survey's own differences have, and where the image came from."""
    return {
        "registration_rms_pixel": None,
        "score_sigma": result.metrics["score_noise"],
        "difference_limiting_mag": result.metrics["limiting_mag"],
        "n_candidates": detections.catalog.n_rows,
        "subtraction": result.metrics,
        "detection": detections.metrics,
        "reference": {"reference_id": 0, "mjd_first": None, "mjd_last": None, "n_exposures": 0, "epochs": []},
        "entered": {"file": work.origin, "notes": list(told.notes)},
        "corners": np.stack(result.difference.wcs.corners(result.difference.shape), axis=1).tolist(),
    }


def _described(
    work: EnteredDifferenceWork, told: Told, result: DifferenceResult, context: WorkerContext
) -> CalibratedImage:
    """Return the difference with what an image of the survey tells of itself."""
    image = result.difference
    metrics = {"difference": result.metrics, "sky_electrons": told.sky, "notes": list(told.notes)}
    metadata = image_metadata(work.info, context.camera.detector(work.detector_id), metrics)
    return CalibratedImage(image.pixels, image.wcs, image.psf, image.photocal, {**metadata, "origin": work.origin})
