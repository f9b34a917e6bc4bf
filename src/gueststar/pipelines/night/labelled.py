"""Labelled detections of a survey's own images: artificial sources put in, and found or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.core.errors import DataError
from gueststar.model.columns import DIA_SOURCE
from gueststar.model.labels import LABELLED_SOURCE, LabelledDetections
from gueststar.pipelines.difference.cutouts import Triplet, views_of
from gueststar.pipelines.engine.outcome import StepTimer
from gueststar.pipelines.injection.faded import ShowFaded
from gueststar.pipelines.injection.inject import InjectSources
from gueststar.pipelines.injection.label import kinds_by_facts, label_detections
from gueststar.pipelines.injection.place import LABELLING, InjectionConfig
from gueststar.pipelines.night.difference import DifferenceWork, make_difference
from gueststar.pipelines.night.science import limiting_magnitude
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.pipelines.night.worker import WorkerContext
from gueststar.store.ledger import Job, JobState
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo

Floats = NDArray[np.float64]

_MIN_LINKED = 4
"""Tracklets of at least so many detections are taken for real."""


class LabelledImage(NamedTuple):
    """One image's labelled detections."""

    visit: int
    detector: int
    labelled: LabelledDetections
    n_injected: int


def label_survey(
    root: Path, *, config: InjectionConfig = LABELLING, seed: int = 1, most_artefacts: int | None = None
) -> Iterator[LabelledImage]:
    """Put artificial sources into the survey's science images, compare them anew, and label what is detected.

    Nothing is stored. The same reference is used as before, from which the sources are missing, but for those that have
    faded: these shine there. What the night's tracklets link is left out; all else that was not put in counts as an
    artefact, variable stars too, of which up to ``most_artefacts`` of an image are kept, drawn at random. The settings
    of the survey hold.
    """
    with SurveyRepo.open(root) as repo:
        settings = PipelineSettings.of(repo.camera.settings, repo.settings.parameters)
        linked = _linked_detections(repo)
        jobs = sorted(repo.ledger.jobs(kind="difference", state=JobState.DONE), key=lambda job: job.id)
        if not jobs:
            raise DataError(f"{root} holds no difference images to put sources into")
        for job in jobs:
            image = _labelled(_work_of(repo, job, settings), repo, linked, config, seed)
            yield image if most_artefacts is None else _thinned(image, most_artefacts, seed)


def _thinned(image: LabelledImage, most: int, seed: int) -> LabelledImage:
    artefacts = np.flatnonzero(~image.labelled.is_real)
    chosen = np.random.default_rng([seed, image.visit, image.detector]).permutation(artefacts)[:most]
    kept = np.sort(np.concatenate([np.flatnonzero(image.labelled.is_real), chosen]))
    return image._replace(labelled=image.labelled.select(kept))


def _labelled(
    work: DifferenceWork, repo: SurveyRepo, linked: frozenset[int], config: InjectionConfig, seed: int
) -> LabelledImage:
    context = WorkerContext.of(work.repo_root)
    science = context.image(work.science)
    sources = context.catalog(work.reference_sources)
    data_id = DataId(visit=work.info.exposure_id, detector=work.detector_id)
    before = context.catalog(repo.path("dia_source", data_id))
    is_linked = np.isin(before["dia_source_id"], list(linked))
    hosts = science.wcs.sky_to_pixel(ra=sources["ra"], dec=sources["dec"])
    visit_seed = (seed * 1_000_003 + work.info.exposure_id + work.detector_id) % 2**63
    limit = limiting_magnitude(science)
    if limit is None:
        raise DataError(f"visit {work.info.exposure_id}, detector {work.detector_id} has no usable pixel")
    random = np.random.default_rng(visit_seed)
    injected = InjectSources(config).run(science, limiting_mag=limit, random=random, hosts=hosts)
    faded = ShowFaded(injected.sources, science.wcs, random=random)
    made = make_difference(work, context, injected.image, StepTimer(), change_reference=faded)
    found = made.dia_sources
    chosen, is_real = label_detections(
        found, injected.sources, known=(before["x"][is_linked], before["y"][is_linked]),
        radius=max(1.5, 0.5 * science.psf.central_fwhm),
    )  # fmt: skip
    triplet = Triplet(injected.image.pixels, made.warped.pixels, made.result.difference.pixels)
    views = views_of(found, triplet).select(chosen)
    known = found.select(chosen)
    kind = kinds_by_facts(known, is_real, fwhm=science.psf.central_fwhm, scale=science.wcs.pixel_scale_arcsec)
    rows = LABELLED_SOURCE.catalog(dict(DIA_SOURCE.catalog(dict(known))) | {"is_real": is_real, "kind": kind})
    return LabelledImage(
        work.info.exposure_id, work.detector_id, LabelledDetections(rows, views), int(injected.sources.x.size)
    )


def _work_of(repo: SurveyRepo, job: Job, settings: PipelineSettings) -> DifferenceWork:
    """Return the comparison that a job made, with the reference that it used."""
    row = repo.ledger.exposure(job.exposure_id or 0)
    if row is None or job.detector is None:
        raise DataError(f"job {job.id} is of no known exposure")
    reference = repo.find("reference_image", field=row.info.field, detector=job.detector, band=row.info.band)[0]
    return DifferenceWork(
        job_id=job.id, repo_root=repo.root, info=row.info, detector_id=job.detector,
        science=repo.path("science_image", DataId(visit=row.id, detector=job.detector)), reference=reference.path,
        reference_sources=repo.path("reference_source", reference.data_id), settings=settings,
    )  # fmt: skip


def _linked_detections(repo: SurveyRepo) -> frozenset[int]:
    """Return the dia_source_ids of the survey's longer tracklets."""
    linked: set[int] = set()
    for job in repo.ledger.jobs(kind="tracklets", state=JobState.DONE):
        for tracklet in job.metrics.get("tracklets", []):
            if tracklet["n_detections"] >= _MIN_LINKED:
                linked.update(tracklet["dia_source_ids"])
    return frozenset(linked)
