"""Artificial sources in one detector image of a night, processed as the real one was, and scored.

Nothing of it reaches the survey: the products lie in collections of their own, no candidate is associated, no
alert is written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gueststar.algorithms.photocal.spatial import ZeroPointMap
from gueststar.core.bits import UNUSABLE, MaskPlane
from gueststar.core.errors import ConfigError, DataError
from gueststar.core.ids import content_id
from gueststar.model.calibration import Calibrations
from gueststar.model.catalog import Catalog
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import CalibratedImage
from gueststar.model.raw import RawDetector
from gueststar.pipelines.injection.inject import InjectedImage, InjectSources
from gueststar.pipelines.injection.place import PlaceSources, Stage
from gueststar.pipelines.injection.raw import InjectRaw
from gueststar.pipelines.injection.score import Detections, ScoreInjections
from gueststar.pipelines.night.difference import DifferenceWork, likely_alerts, make_difference
from gueststar.pipelines.night.known_calibrations import CalibrationFinder
from gueststar.pipelines.night.outcome import Outcome, Result, StepTimer, attempt
from gueststar.pipelines.night.plan import is_entered
from gueststar.pipelines.night.science import ScienceWork, limiting_magnitude, make_science
from gueststar.pipelines.night.settings import INJECTION, SCIENCE, PipelineSettings
from gueststar.pipelines.night.worker import WorkerContext
from gueststar.pipelines.overrides import as_plain
from gueststar.pipelines.science.catalogs import MakeCatalogs, calibrate_sources
from gueststar.store.ledger import Job, JobState
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo

INJECTION_RUN = "injections"
"""First part of the collections of everything that artificial sources make; the second is the stage."""


@dataclass(frozen=True)
class InjectionWork:
    """One detector image that gets artificial sources."""

    job_id: int
    repo_root: Path
    info: ExposureInfo
    detector_id: int
    science: Path
    sources: Path
    settings: PipelineSettings
    seed: int
    difference: DifferenceWork | None = None
    """How its difference was made; None: there was none, or it was made elsewhere."""
    candidates: Path | None = None
    raw: ScienceWork | None = None
    """How the image was made from its raw file; at the raw stage only."""

    @property
    def stage(self) -> Stage:
        """Where the sources enter."""
        return self.settings.injection.stage


def plan_injections(
    repo: SurveyRepo, settings: PipelineSettings, night: int, *, n_images: int | None, seed: int
) -> list[InjectionWork]:
    """Return the work for a night: all calibrated images, or ``n_images`` of them drawn at random.

    The same again is nothing to do: work whose products are there is left out. Raises ConfigError if no image of the
    night can take sources at the stage asked for.
    """
    if settings.injection.stage == "raw" and settings.injection.fading_fraction > 0:
        raise ConfigError("injection.fading_fraction must be 0 at the raw stage: light cannot be taken from raw counts")
    done = [
        job
        for job in repo.ledger.jobs(kind="science", day_obs=night, state=JobState.DONE)
        if _fits(repo, job, settings)
    ]
    if not done:
        raise ConfigError(f"{_LACKING[settings.injection.stage]} of night {night} in {repo.root}: gueststar process")
    # In the order of a number that depends on nothing but the name, so that no detector or hour is preferred.
    done.sort(key=lambda job: content_id("injection", seed, job.exposure_id, job.detector))
    works = []
    for job in done[: n_images or len(done)]:
        key = {
            "visit": job.exposure_id, "detector": job.detector, "seed": seed, "config": as_plain(settings.injection),
        }  # fmt: skip
        sections = (*SCIENCE, *INJECTION) if settings.injection.stage == "raw" else INJECTION
        job_id = repo.ledger.submit(
            "injection", key, exposure_id=job.exposure_id, detector=job.detector, day_obs=night,
            config=settings.part(sections),
        )  # fmt: skip
        submitted = repo.ledger.job(job_id)
        if submitted is not None and submitted.state is JobState.PENDING:
            works.append(_work(repo, settings, job, job_id, seed))
    return works


_LACKING: dict[Stage, str] = {
    "raw": "no image calibrated from a raw file",
    "science": "no calibrated image",
    "difference": "no image with a difference made here",
}


def _fits(repo: SurveyRepo, job: Job, settings: PipelineSettings) -> bool:
    """Return whether sources can enter an image at the stage asked for."""
    data_id = DataId(visit=job.exposure_id, detector=job.detector)
    if settings.injection.stage == "raw":
        return not is_entered(job) and repo.exists("raw", DataId(exposure=job.exposure_id, detector=job.detector))
    return settings.injection.stage == "science" or repo.exists("dia_source", data_id)


def _work(repo: SurveyRepo, settings: PipelineSettings, job: Job, job_id: int, seed: int) -> InjectionWork:
    assert job.exposure_id is not None
    assert job.detector is not None
    row = repo.ledger.exposure(job.exposure_id)
    assert row is not None
    data_id = DataId(visit=job.exposure_id, detector=job.detector)
    science, candidates = repo.path("science_image", data_id), repo.find_one("dia_source", data_id)
    made_by = repo.ledger.jobs(kind="difference", exposure_id=job.exposure_id, detector=job.detector)
    references = repo.find("reference_image", field=row.info.field, detector=job.detector, band=row.info.band)
    difference = None
    if candidates is not None and references and not any(is_entered(made) for made in made_by):  # else nobody knows how
        difference = DifferenceWork(
            job_id, repo.root, row.info, job.detector, science, references[0].path,
            repo.path("reference_source", references[0].data_id), settings,
        )  # fmt: skip
    raw = None
    if settings.injection.stage == "raw":
        place = DataId(exposure=job.exposure_id, detector=job.detector)
        calibrations = CalibrationFinder(repo).paths(job.detector, row.info)
        raw = ScienceWork(job_id, repo.root, repo.path("raw", place), row.info, job.detector, settings, calibrations)
    return InjectionWork(
        job_id, repo.root, row.info, job.detector, science, repo.path("source", data_id), settings, seed,
        difference, candidates.path if candidates and difference else None, raw,
    )  # fmt: skip


def run_injection(work: InjectionWork) -> Outcome:
    """Inject, process, score and stage; every failure becomes an outcome."""
    return attempt(work.job_id, lambda: _stage_injection(work))


class _Made(NamedTuple):
    """An image with artificial sources, and its catalog; None where none was asked for."""

    injected: InjectedImage
    sources: Catalog | None


def _stage_injection(work: InjectionWork) -> Result:
    context, timer = WorkerContext.of(work.repo_root), StepTimer()
    settings = work.settings
    with timer("read"):
        image = context.image(work.science)
    limit = limiting_magnitude(image)
    if limit is None or not np.isfinite(limit):
        raise DataError("the image has no limiting magnitude: nothing can be injected")
    seeds = np.random.SeedSequence([work.seed, content_id("injection", work.info.exposure_id, work.detector_id)])
    random = np.random.Generator(np.random.PCG64(seeds))
    make = {"raw": _from_raw, "science": _from_science, "difference": _without_catalogs}[work.stage]
    made = make(work, context, image, limit, random, timer)
    detections = Detections(made.sources, None if made.sources is None else context.catalog(work.sources))
    facts: dict[str, Any] = {"limiting_mag": limit}
    if work.difference is not None and work.candidates is not None:
        detections, facts["difference_limiting_mag"] = _with_candidates(
            detections, work, context, made.injected.image, timer
        )
    with timer("score"):
        score = ScoreInjections(settings.injection).run(made.injected, detections)
    metrics = score.metrics | facts | {"stage": work.stage, "seed": work.seed, "config": as_plain(settings.injection)}
    data_id = DataId(visit=work.info.exposure_id, detector=work.detector_id)
    with timer("write"):
        staged = (
            context.stage("injected_source", data_id, score.catalog),
            context.stage("injection_metrics", data_id, metrics),
        )
    apart = tuple(replace(item, run=f"{INJECTION_RUN}/{work.stage}") for item in staged)
    return Result(apart, metrics, {"science": str(work.science)}, timer.seconds)


def _injected(
    work: InjectionWork, context: WorkerContext, image: CalibratedImage, limit: float, random: np.random.Generator,
    timer: StepTimer,
) -> InjectedImage:  # fmt: skip
    """Return the calibrated image with artificial sources."""
    hosts = None
    if work.difference is not None and work.settings.injection.host_fraction > 0:
        known = context.catalog(work.difference.reference_sources)
        hosts = image.wcs.sky_to_pixel(ra=known["ra"], dec=known["dec"])
    with timer("inject"):
        return InjectSources(work.settings.injection).run(image, limiting_mag=limit, random=random, hosts=hosts)


def _without_catalogs(
    work: InjectionWork, context: WorkerContext, image: CalibratedImage, limit: float, random: np.random.Generator,
    timer: StepTimer,
) -> _Made:  # fmt: skip
    return _Made(_injected(work, context, image, limit, random, timer), None)


def _from_science(
    work: InjectionWork, context: WorkerContext, image: CalibratedImage, limit: float, random: np.random.Generator,
    timer: StepTimer,
) -> _Made:  # fmt: skip
    """Inject into the calibrated image and make its catalog anew, with the PSF that it has."""
    injected = _injected(work, context, image, limit, random, timer)
    with timer("catalogs"):
        found = MakeCatalogs(work.settings.catalogs).run(injected.image.pixels, image.psf)
        place: dict[str, Any] = {"visit": work.info.exposure_id, "detector": work.detector_id}
        return _Made(injected, calibrate_sources(found.psf, image.wcs, image.photocal, **place))


def _from_raw(
    work: InjectionWork, context: WorkerContext, image: CalibratedImage, limit: float, random: np.random.Generator,
    timer: StepTimer,
) -> _Made:  # fmt: skip
    """Inject into the raw counts and run the whole chain again: sky, PSF, astrometry and zero point are found anew."""
    assert work.raw is not None
    with timer("inject"):
        sources = PlaceSources(work.settings.injection).run(image, limiting_mag=limit, random=random)

    def with_sources(raw: RawDetector, calibrations: Calibrations) -> RawDetector:
        return InjectRaw().run(raw, image, sources, calibrations, random=random, levelled_by=_levelled_by(image))

    made = make_science(work.raw, context, timer, change_raw=with_sources)
    return _Made(InjectedImage(made.image, sources), made.sources)


def _levelled_by(image: CalibratedImage) -> ZeroPointMap | None:
    """Return the change of the zero point over the detector that was taken out of an image's pixels."""
    photometry = image.metadata.get("metrics", {}).get("photometry", {})
    coefficients = photometry.get("spatial_coefficients") or []
    if not coefficients:
        return None
    return ZeroPointMap(np.asarray(coefficients, dtype=np.float64), image.shape, int(photometry["spatial_order"]))


def _with_candidates(
    detections: Detections, work: InjectionWork, context: WorkerContext, science: CalibratedImage, timer: StepTimer
) -> tuple[Detections, float | None]:
    """Return the detections with candidates, and the computed 5-sigma limit of the difference."""
    assert work.difference is not None
    assert work.candidates is not None
    made = make_difference(work.difference, context, science, timer)
    likely = likely_alerts(made.dia_sources, work.settings)
    is_usable = made.result.difference.pixels.is_usable(UNUSABLE | MaskPlane.REFERENCE_MASKED)
    found = replace(
        detections,
        candidates=made.dia_sources,
        real_candidates=context.catalog(work.candidates),
        likely=np.isin(made.dia_sources["dia_source_id"], likely["dia_source_id"]),
        is_differenced=is_usable & (made.result.score != 0),
    )
    return found, made.result.metrics["limiting_mag"]
