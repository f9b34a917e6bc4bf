"""One detector of one visit, from science and reference image to vetted candidates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gueststar.algorithms.subtraction.footprints import detected_regions
from gueststar.core.bits import MaskPlane, SourceFlag
from gueststar.model.camera import Camera
from gueststar.model.catalog import Catalog
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.pipelines.difference.cutouts import Triplet, cut_candidates
from gueststar.pipelines.difference.detect import BrightStars, DetectCandidates, DetectionContext, Detections
from gueststar.pipelines.difference.own_part import own_part
from gueststar.pipelines.difference.reference_warp import WarpReference
from gueststar.pipelines.difference.streaks import FindStreaks, Streaks
from gueststar.pipelines.difference.subtract import DifferenceResult, MakeDifference
from gueststar.pipelines.difference.vet import VetCandidates
from gueststar.pipelines.engine.outcome import Outcome, Result, StepTimer, attempt
from gueststar.pipelines.injection.faded import ReferenceChange
from gueststar.pipelines.moving.streak_tracks import listed
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.pipelines.night.worker import WorkerContext
from gueststar.pipelines.reference.chromatic import MatchReferenceToAir, Subbands, site_air, subband_shifts
from gueststar.store.products import DataId


@dataclass(frozen=True)
class DifferenceWork:
    """One science image and the reference it is compared with."""

    job_id: int
    repo_root: Path
    info: ExposureInfo
    detector_id: int
    science: Path
    reference: Path
    reference_sources: Path
    settings: PipelineSettings
    subbands: Path | None = None
    """The reference in parts of its band, where it was made with them."""


def run_difference(work: DifferenceWork) -> Outcome:
    """Subtract, detect, vet and stage; every failure becomes an outcome."""
    return attempt(work.job_id, lambda: stage_difference(work))


def stage_difference(work: DifferenceWork, science: CalibratedImage | None = None) -> Result:
    """Make a difference and stage its products; ``science`` is the image of ``work`` where it is at hand."""
    context, timer = WorkerContext.of(work.repo_root), StepTimer()
    context.drop_made()
    with timer("read"):
        science = context.image(work.science) if science is None else science
    made = make_difference(work, context, science, timer)
    settings, detections = work.settings, made.detections
    result = made.result._replace(
        difference=with_footprints(made.result, detections.catalog, settings.detection.threshold)
    )
    metrics = difference_metrics(made.warped, result, detections) | {"reference": made.reference_facts}
    metrics["vetting"] = made.vetting
    with timer("streaks"):
        dia_sources, streaks = with_streaks(work, context, made, science)
    metrics |= streak_metrics(streaks, settings.streaks.min_reliability)
    with timer("cutouts"):
        shown = worth_showing(dia_sources, settings)
        cutouts = cut_candidates(shown, science.pixels, made.warped.pixels, result.difference.pixels)
    data_id = DataId(visit=work.info.exposure_id, detector=work.detector_id)
    with timer("write"):
        image, restored = context.stage_image("difference_image", data_id, result.difference)
        context.keep(image, restored)  # association asks for it next, where it runs in the same process
        staged = (
            image,
            context.stage("dia_source", data_id, dia_sources),
            context.stage("candidate_cutouts", data_id, cutouts),
            context.stage("streak", data_id, streaks.catalog),
            context.stage("streak_cutouts", data_id, streaks.cutouts),
            context.stage("difference_metrics", data_id, metrics),
        )
    inputs = {"science": str(work.science), "reference": str(work.reference)}
    return Result(staged, metrics, inputs, timer.seconds)


class DifferenceProducts(NamedTuple):
    """What comparing a science image with its reference yields."""

    warped: CalibratedImage
    """The reference on the science image's pixels."""
    result: DifferenceResult
    detections: Detections
    dia_sources: Catalog
    """Vetted."""
    vetting: dict[str, Any]
    reference_facts: dict[str, Any]


def make_difference(
    work: DifferenceWork, context: WorkerContext, science: CalibratedImage, timer: StepTimer, *,
    change_reference: ReferenceChange | None = None,
) -> DifferenceProducts:  # fmt: skip
    """Warp the reference, subtract, detect and vet; ``science`` is that of ``work``, or one made from it."""
    with timer("read"):
        reference, reference_sources = context.image(work.reference), context.catalog(work.reference_sources)
    settings = work.settings
    with timer("warp"):
        reference = _through_its_air(work, context, science, reference)
        if change_reference is not None:
            reference, reference_sources = change_reference(reference, reference_sources)
        warped = WarpReference(settings.reference_warp).run(science, reference)
    with timer("subtract"):
        own = own_part(reference, work.info.exposure_id, science)
        result = MakeDifference(settings.subtraction).run(science, warped, own=own)
    with timer("detect"):
        detections = DetectCandidates(settings.detection).run(
            result,
            science,
            warped,
            context=detection_context(work.info, work.detector_id, context.camera),
            reference_sources=reference_sources,
            bright_stars=bright_stars_on(context, science, reference_sources, settings.detection.bright_mag),
        )
    facts = reference_facts(reference)
    with timer("vet"):
        flagged = _flag_reference_epochs(detections.catalog, work.info.exposure_id in facts["epochs"])
        triplet = Triplet(science.pixels, warped.pixels, result.difference.pixels)
        vetted = VetCandidates(settings.vetting, model=context.reliability_model()).run(flagged, triplet)
    return DifferenceProducts(warped, result, detections, vetted.dia_sources, vetted.metrics, facts)


def _through_its_air(
    work: DifferenceWork, context: WorkerContext, science: CalibratedImage, reference: CalibratedImage
) -> CalibratedImage:
    """Return the reference with the refraction of the exposure, where it was made in sub-bands."""
    config, band = work.settings.reference, work.info.band
    air = site_air(context.camera.site, mjd_tai=work.info.mjd_tai, band=band or "")
    if work.subbands is None or not config.is_chromatic or band is None or air is None:
        return reference
    stored = context.frame(work.subbands)
    if stored.metadata["reference_id"] != reference.metadata["reference_id"]:  # of another version
        return reference
    ny, nx = reference.shape
    subbands = Subbands.from_frame(stored)
    shifts = subband_shifts(air, reference.wcs, x=(nx - 1) / 2, y=(ny - 1) / 2, band=band, n=len(subbands.planes))
    return MatchReferenceToAir(config.subbands).run(reference, subbands, shifts)


def with_streaks(
    work: DifferenceWork, context: WorkerContext, made: DifferenceProducts, science: CalibratedImage
) -> tuple[Catalog, Streaks]:
    """Return the detections, those on satellites' streaks flagged, and the streaks of a difference."""
    task = FindStreaks(work.settings.streaks)
    place = detection_context(work.info, work.detector_id, context.camera)
    streaks = task.run(made.result, science, made.warped, context=place)
    return task.flagged(made.dia_sources, streaks.catalog, fwhm=science.psf.central_fwhm), streaks


def streak_metrics(streaks: Streaks, min_reliability: float) -> dict[str, Any]:
    """Return what the night's account keeps of streaks: figures of the search, and the likely ones."""
    rows = listed(streaks.catalog, min_reliability=min_reliability)
    return {"n_streaks": streaks.metrics["n_streaks"], "streaks": streaks.metrics | {"likely": rows}}


def with_footprints(result: DifferenceResult, found: Catalog, threshold: float) -> CalibratedImage:
    """Return the difference image with DETECTED and DETECTED_NEGATIVE set on the footprints of its detections."""
    pixels = result.difference.pixels
    mask = pixels.mask.copy()
    for sign, plane in ((1, MaskPlane.DETECTED), (-1, MaskPlane.DETECTED_NEGATIVE)):
        rows = found.select(found["is_positive"] == (sign > 0))
        where = detected_regions(result.score, x=rows["x"], y=rows["y"], threshold=threshold, reach=1.5, sign=sign)
        mask[where] |= int(plane)
    return replace(result.difference, pixels=MaskedImage(pixels.image, pixels.variance, mask))


def detection_context(info: ExposureInfo, detector_id: int, camera: Camera) -> DetectionContext:
    """Return to which image detections belong."""
    glass = camera.filter_named(info.physical_filter or "")
    return DetectionContext(
        visit=info.exposure_id,
        detector=detector_id,
        rcid=camera.detector(detector_id).rcid,
        mjd_start=info.mjd_start,
        mjd_tai=info.mjd_tai,
        band_id=glass.fid if glass else 0,
        program=int(info.program),
    )


def bright_stars_on(
    context: WorkerContext, science: CalibratedImage, reference_sources: Catalog, limit: float
) -> BrightStars | None:
    """Return stars on and around the image that are bright enough to spoil it; None if there are none.

    Catalogs often lack the brightest stars, so those that saturate the reference are added (a star may come twice).
    """
    ny, nx = science.shape
    ra, dec = science.wcs.pixel_to_sky(x=(nx - 1) / 2, y=(ny - 1) / 2)
    radius = 0.6 * float(np.hypot(nx, ny)) * science.wcs.pixel_scale_arcsec / 3600.0
    stars = context.refcats.known_stars(ra=float(ra), dec=float(dec), radius_deg=radius)
    cores = reference_sources.select((reference_sources["flags"] & int(SourceFlag.SATURATED)) != 0)
    brightest = np.fmin.reduce([stars[f"mag_{band}"].astype(np.float64) for band in "gri"])
    mag = np.concatenate([brightest, cores["mag"].astype(np.float64)])
    x, y = science.wcs.sky_to_pixel(
        ra=np.concatenate([stars["ra"], cores["ra"]]), dec=np.concatenate([stars["dec"], cores["dec"]])
    )
    is_kept = np.isfinite(x) & np.isfinite(y) & (mag < limit)
    return (x[is_kept], y[is_kept], mag[is_kept]) if is_kept.any() else None


def _flag_reference_epochs(candidates: Catalog, is_in_reference: bool) -> Catalog:
    if not is_in_reference:
        return candidates
    return candidates.replace(flags=candidates["flags"] | int(SourceFlag.IN_REFERENCE))


def likely_alerts(candidates: Catalog, settings: PipelineSettings) -> Catalog:
    """Return the candidates that score and flags allow to become alerts."""
    alerts = settings.alerts.alerts
    is_scored = candidates["reliability"] >= alerts.min_reliability
    return candidates.select(is_scored & ((candidates["flags"] & int(alerts.never_alert)) == 0))


def worth_showing(candidates: Catalog, settings: PipelineSettings) -> Catalog:
    """Return the candidates that keep cut-outs: likely alerts, and those that a person might judge otherwise."""
    least = min(settings.vetting.keep_cutouts, settings.alerts.alerts.min_reliability)
    return candidates.select(candidates["reliability"] >= least)


def reference_facts(reference: CalibratedImage) -> dict[str, Any]:
    """Return what alerts tell of a reference, to be recorded with the difference that used it."""
    metadata = reference.metadata
    return {
        "reference_id": int(metadata["reference_id"]),
        "mjd_first": float(metadata["mjd_first"]),
        "mjd_last": float(metadata["mjd_last"]),
        "n_exposures": len(metadata["epochs"]),
        "epochs": [int(visit) for visit in metadata["epochs"]],
    }


def difference_metrics(warped: CalibratedImage, result: DifferenceResult, detections: Detections) -> dict[str, Any]:
    """Return the named metrics of `gueststar.model.metrics`, with each step's own figures under its name."""
    rms = [float(r) for axis in "xy" if (r := warped.metadata.get(f"registration_rms_{axis}")) is not None]
    return {
        "registration_rms_pixel": float(np.sqrt(np.mean(np.square(rms)))) if rms else None,
        "score_sigma": result.metrics["score_noise"],
        "difference_limiting_mag": result.metrics["limiting_mag"],
        "n_candidates": detections.catalog.n_rows,
        "subtraction": result.metrics,
        "detection": detections.metrics,
    }
