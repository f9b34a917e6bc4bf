"""Artificial sources in one detector image of a night, processed as the real one was, and scored.

Nothing of it reaches the survey: the products lie in collections of their own, no candidate is associated, no
alert is written.
"""

from __future__ import annotations

import math
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
from gueststar.model.columns import SOURCE
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import CalibratedImage
from gueststar.model.raw import RawDetector
from gueststar.pipelines.engine.outcome import Outcome, Result, StepTimer, attempt
from gueststar.pipelines.injection.faded import ReferenceChange, ShowFaded
from gueststar.pipelines.injection.inject import InjectedImage, InjectSources
from gueststar.pipelines.injection.place import PlaceSources, Positions, Stage
from gueststar.pipelines.injection.raw import InjectRaw
from gueststar.pipelines.injection.score import Detections, ScoreInjections
from gueststar.pipelines.injection.surroundings import MeasureSurroundings
from gueststar.pipelines.night.calibrations.known import CalibrationFinder
from gueststar.pipelines.night.difference import (
    DifferenceProducts,
    DifferenceWork,
    bright_stars_on,
    likely_alerts,
    make_difference,
)
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
    hosts: Path | None = None
    """Aperture catalog of the reference, which tells galaxies from stars."""

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
        works += _submitted(repo, settings, job, night, seed=seed)
    return works


def _submitted(repo: SurveyRepo, settings: PipelineSettings, job: Job, night: int, *, seed: int) -> list[InjectionWork]:
    """Submit the work for one image; return it unless it is done already."""
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
        return [_work(repo, settings, job, job_id, seed)]
    return []


def plan_nightly_injections(repo: SurveyRepo, settings: PipelineSettings, night: int) -> list[InjectionWork]:
    """Return the work that a night's differences get without being asked for: a fixed sample of them.

    Empty when there are no differences, and when all of it is done.
    """
    nightly = settings.nightly_injection
    settings = replace(settings, injection=nightly.sources)
    detectors = {row.id: row.detectors for row in repo.ledger.exposures(day_obs=night, observation_type="science")}
    works = []
    for job in repo.ledger.jobs(kind="science", day_obs=night, state=JobState.DONE):
        if job.exposure_id is None or job.detector is None or not _fits(repo, job, settings):
            continue
        if is_drawn(job.exposure_id, job.detector, tuple(detectors.get(job.exposure_id, ())), nightly.fraction):
            works += _submitted(repo, settings, job, night, seed=NIGHTLY_SEED)
    return works


def is_drawn(exposure: int, detector: int, detectors: tuple[int, ...], fraction: float) -> bool:
    """Return whether a detector image is in the sample of a ``fraction`` of all.

    Every exposure gives as many of its ``detectors`` as the fraction says, to within one, in an order that is the
    exposure's own; an image's fate depends on no other image, so that it is the same whenever it is asked for.
    """
    order = sorted(detectors, key=lambda number: content_id("nightly injection", exposure, number))
    if detector not in order:
        return False
    start = content_id("nightly injection", exposure, bits=32) / 2.0**32
    place = order.index(detector)
    return math.floor((place + 1) * fraction + start) > math.floor(place * fraction + start)


NIGHTLY_SEED = 1
"""Places and magnitudes depend on the exposure and the detector besides, so one seed does for all nights."""


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
    return settings.injection.stage == "science" or (repo.exists("dia_source", data_id) and not _is_foreign(repo, job))


def _is_foreign(repo: SurveyRepo, job: Job) -> bool:
    """Return whether the difference of a science image was made elsewhere: nobody here knows how."""
    made_by = repo.ledger.jobs(kind="difference", exposure_id=job.exposure_id, detector=job.detector)
    return any(is_entered(made) for made in made_by)


def _work(repo: SurveyRepo, settings: PipelineSettings, job: Job, job_id: int, seed: int) -> InjectionWork:
    assert job.exposure_id is not None
    assert job.detector is not None
    row = repo.ledger.exposure(job.exposure_id)
    assert row is not None
    data_id = DataId(visit=job.exposure_id, detector=job.detector)
    science, candidates = repo.path("science_image", data_id), repo.find_one("dia_source", data_id)
    references = repo.find("reference_image", field=row.info.field, detector=job.detector, band=row.info.band)
    difference = hosts = None
    if candidates is not None and references and not _is_foreign(repo, job):
        hosts = repo.find_one("reference_aperture_source", references[0].data_id)
        difference = DifferenceWork(
            job_id, repo.root, row.info, job.detector, science, references[0].path,
            repo.path("reference_source", references[0].data_id), settings, _subbands_of(repo, references[0].data_id),
        )  # fmt: skip
    raw = None
    if settings.injection.stage == "raw":
        place = DataId(exposure=job.exposure_id, detector=job.detector)
        calibrations = CalibrationFinder(repo).paths(job.detector, row.info)
        raw = ScienceWork(job_id, repo.root, repo.path("raw", place), row.info, job.detector, settings, calibrations)
    return InjectionWork(
        job_id, repo.root, row.info, job.detector, science, repo.path("source", data_id), settings, seed,
        difference, candidates.path if candidates and difference else None, raw, hosts.path if hosts else None,
    )  # fmt: skip


def _subbands_of(repo: SurveyRepo, reference: DataId) -> Path | None:
    """Return the sub-bands of a reference, where it was made with them."""
    found = repo.find_one("reference_subbands", reference)
    return found.path if found else None


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
    bright_stars = _bright_stars(work, context, image)
    static = image
    detections = Detections(made.sources, None if made.sources is None else context.catalog(work.sources))
    facts: dict[str, Any] = {"limiting_mag": limit}
    if work.difference is not None and work.candidates is not None:
        faded = ShowFaded(made.injected.sources, image.wcs, random=random)
        detections, products = _with_candidates(detections, work, context, made.injected.image, faded, timer)
        facts["difference_limiting_mag"] = products.result.metrics["limiting_mag"]
        static = products.warped
    with timer("score"):
        around = MeasureSurroundings().run(made.injected.sources, static, bright_stars=bright_stars)
        score = ScoreInjections(settings.injection).run(made.injected, detections, around)
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
    config = work.settings.injection
    hosts = _hosts(work, context, image) if config.host_fraction > 0 else None
    bright_stars = _bright_stars(work, context, image) if config.bright_star_fraction > 0 else None
    with timer("inject"):
        return InjectSources(config).run(
            image, limiting_mag=limit, random=random, hosts=hosts, bright_stars=bright_stars
        )


_MOST_STARLIKE_HOST = 0.3
"""Sources of the reference that are less star-like than this are galaxies."""
_FEWEST_GALAXIES = 5
"""With fewer of them any source is a host."""


def _hosts(work: InjectionWork, context: WorkerContext, image: CalibratedImage) -> Positions | None:
    """Return the places of the reference's galaxies on the image, of all its sources where galaxies are too few."""
    if work.difference is None:
        return None
    known = context.catalog(work.hosts or work.difference.reference_sources)
    if work.hosts is not None:
        is_galaxy = (known["class_star"] < _MOST_STARLIKE_HOST) & (known["total_flux"] > 0)
        known = known.select(is_galaxy) if is_galaxy.sum() >= _FEWEST_GALAXIES else known
    x, y = image.wcs.sky_to_pixel(ra=known["ra"], dec=known["dec"])
    return x, y


def _bright_stars(work: InjectionWork, context: WorkerContext, image: CalibratedImage) -> Positions | None:
    """Return the places of stars, on and around the image, that are bright enough to spoil differences."""
    known = context.catalog(work.difference.reference_sources) if work.difference else SOURCE.empty()
    stars = bright_stars_on(context, image, known, work.settings.detection.bright_mag)
    return None if stars is None else stars[:2]


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
    detections: Detections, work: InjectionWork, context: WorkerContext, science: CalibratedImage,
    faded: ReferenceChange, timer: StepTimer,
) -> tuple[Detections, DifferenceProducts]:  # fmt: skip
    """Return the detections with candidates, and the comparison that found them."""
    assert work.difference is not None
    assert work.candidates is not None
    made = make_difference(work.difference, context, science, timer, change_reference=faded)
    likely = likely_alerts(made.dia_sources, work.settings)
    is_usable = made.result.difference.pixels.is_usable(UNUSABLE | MaskPlane.REFERENCE_MASKED)
    found = replace(
        detections,
        candidates=made.dia_sources,
        real_candidates=context.catalog(work.candidates),
        likely=np.isin(made.dia_sources["dia_source_id"], likely["dia_source_id"]),
        is_differenced=is_usable & (made.result.score != 0),
    )
    return found, made
