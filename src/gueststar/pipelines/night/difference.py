"""One detector of one visit, from science and reference image to vetted candidates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gueststar.pipelines.difference.reference_warp import WarpReference
from gueststar.pipelines.difference.subtract import MakeDifference
from gueststar.pipelines.difference.vet import VetCandidates
from gueststar.pipelines.night.cutouts import cut_candidates
from gueststar.pipelines.night.outcome import Outcome, Result, StepTimer, attempt
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.pipelines.night.worker import WorkerContext
from gueststar.store.products import DataId

BRIGHT_STAR_MAG = 14.5
"""Catalog stars brighter than this are told to the candidate finder, AB."""


@dataclass(frozen=True)
class DifferenceWork:
    """One science image and the reference it is compared with."""

    job_id: int
    repo_root: Path
    visit: int
    detector_id: int
    science: Path
    sources: Path
    reference: Path
    reference_sources: Path
    settings: PipelineSettings


def run_difference(work: DifferenceWork) -> Outcome:
    """Subtract, detect, vet and stage; every failure becomes an outcome."""
    return attempt(work.job_id, lambda: _stage_difference(work))


def _stage_difference(work: DifferenceWork) -> Result:
    context, timer = WorkerContext.of(work.repo_root), StepTimer()
    with timer("read"):
        science, reference = context.image(work.science), context.image(work.reference)
        sources, reference_sources = context.catalog(work.sources), context.catalog(work.reference_sources)
    settings, metrics = work.settings, dict[str, Any]()
    with timer("warp"):
        warped = WarpReference(settings.reference_warp).run(
            reference, science, science_sources=sources, reference_sources=reference_sources
        )
        metrics |= warped.metrics
    with timer("subtract"):
        result = MakeDifference(settings.subtraction).run(science, warped.reference)
        metrics |= result.metrics
    with timer("detect"):
        candidates = _candidates(work, context, science, warped.reference, reference_sources, result, metrics)
    with timer("vet"):
        candidates = VetCandidates(settings.vetting).run(candidates)
    metrics |= {"n_candidates": candidates.n_rows, "n_reliable": _n_reliable(candidates, settings)}
    with timer("cutouts"):
        cutouts = cut_candidates(candidates, science.pixels, warped.reference.pixels, result.difference.pixels)
    data_id = DataId(visit=work.visit, detector=work.detector_id)
    with timer("write"):
        staged = (
            context.stage("difference_image", data_id, result.difference),
            context.stage("dia_source", data_id, candidates),
            context.stage("candidate_cutouts", data_id, cutouts),
            context.stage("difference_metrics", data_id, metrics),
        )
    inputs = {"science": str(work.science), "reference": str(work.reference)}
    return Result(staged, metrics, inputs, timer.seconds)
