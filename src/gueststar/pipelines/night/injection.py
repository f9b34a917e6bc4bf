"""Artificial sources in one detector image of a night, processed as the real one was, and scored.

Nothing of it reaches the survey: the products lie in a collection of their own, no candidate is associated, no
alert is written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gueststar.core.bits import UNUSABLE, MaskPlane
from gueststar.core.errors import ConfigError, DataError
from gueststar.core.ids import content_id
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import CalibratedImage
from gueststar.pipelines.injection.inject import InjectSources
from gueststar.pipelines.injection.score import Detections, ScoreInjections
from gueststar.pipelines.night.difference import DifferenceWork, likely_alerts, make_difference
from gueststar.pipelines.night.outcome import Outcome, Result, StepTimer, attempt
from gueststar.pipelines.night.plan import is_entered
from gueststar.pipelines.night.science import limiting_magnitude
from gueststar.pipelines.night.settings import INJECTION, PipelineSettings
from gueststar.pipelines.night.worker import WorkerContext
from gueststar.pipelines.overrides import as_plain
from gueststar.pipelines.science.catalogs import MakeCatalogs, calibrate_sources
from gueststar.store.ledger import Job, JobState
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo

INJECTION_RUN = "injections"
"""Collection of everything that artificial sources make."""


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


def plan_injections(
    repo: SurveyRepo, settings: PipelineSettings, night: int, *, n_images: int | None, seed: int
) -> list[InjectionWork]:
    """Return the work for a night: all calibrated images, or ``n_images`` of them drawn at random.

    The same again is nothing to do: work whose products are there is left out. Raises ConfigError if no image of the
    night is calibrated.
    """
    done = repo.ledger.jobs(kind="science", day_obs=night, state=JobState.DONE)
    if not done:
        raise ConfigError(f"no calibrated image of night {night} in {repo.root}: gueststar process {repo.root}")
    # In the order of a number that depends on nothing but the name, so that no detector or hour is preferred.
    done.sort(key=lambda job: content_id("injection", seed, job.exposure_id, job.detector))
    works = []
    for job in done[: n_images or len(done)]:
        key = {
            "visit": job.exposure_id, "detector": job.detector, "seed": seed, "config": as_plain(settings.injection),
        }  # fmt: skip
        job_id = repo.ledger.submit(
            "injection", key, exposure_id=job.exposure_id, detector=job.detector, day_obs=night,
            config=settings.part(INJECTION),
        )  # fmt: skip
        submitted = repo.ledger.job(job_id)
        if submitted is not None and submitted.state is JobState.PENDING:
            works.append(_work(repo, settings, job, job_id, seed))
    return works


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
    return InjectionWork(
        job_id, repo.root, row.info, job.detector, science, repo.path("source", data_id), settings, seed,
        difference, candidates.path if candidates and difference else None,
    )  # fmt: skip


def run_injection(work: InjectionWork) -> Outcome:
    """Inject, process, score and stage; every failure becomes an outcome."""
    return attempt(work.job_id, lambda: _stage_injection(work))


def _stage_injection(work: InjectionWork) -> Result:
    context, timer = WorkerContext.of(work.repo_root), StepTimer()
    settings = work.settings
    with timer("read"):
        image = context.image(work.science)
    limit = limiting_magnitude(image.pixels, image.psf, image.photocal)
    if limit is None or not np.isfinite(limit):
        raise DataError("the image has no limiting magnitude: nothing can be injected")
    seeds = np.random.SeedSequence([work.seed, content_id("injection", work.info.exposure_id, work.detector_id)])
    with timer("inject"):
        injected = InjectSources(settings.injection).run(
            image, limiting_mag=limit, random=np.random.Generator(np.random.PCG64(seeds))
        )
    with timer("catalogs"):
        found = MakeCatalogs(settings.catalogs).run(injected.image.pixels, image.psf)
        place = {"visit": work.info.exposure_id, "detector": work.detector_id}
        sources = calibrate_sources(found.psf, image.wcs, image.photocal, **place)
    detections = Detections(sources, context.catalog(work.sources))
    facts: dict[str, Any] = {"limiting_mag": limit}
    if work.difference is not None and work.candidates is not None:
        detections, facts["difference_limiting_mag"] = _with_candidates(
            detections, work, context, injected.image, timer
        )
    with timer("score"):
        score = ScoreInjections(settings.injection).run(injected, detections)
    metrics = score.metrics | facts | {"seed": work.seed, "config": as_plain(settings.injection)}
    data_id = DataId(visit=work.info.exposure_id, detector=work.detector_id)
    with timer("write"):
        staged = (
            context.stage("injected_source", data_id, score.catalog),
            context.stage("injection_metrics", data_id, metrics),
        )
    apart = tuple(replace(item, run=INJECTION_RUN) for item in staged)
    return Result(apart, metrics, {"science": str(work.science)}, timer.seconds)


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
