"""Calibration products learned from a night's science images: what lamps and covers do not show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from gueststar.model.calibration import CalibrationKind, CalibrationProduct
from gueststar.pipelines.engine.outcome import Outcome, Result, StepTimer, attempt
from gueststar.pipelines.night.calibrations.distortion import learn_distortion
from gueststar.pipelines.night.calibrations.electronics import learn_crosstalk
from gueststar.pipelines.night.calibrations.frames import stage_calibration
from gueststar.pipelines.night.calibrations.illumination import learn_defects, learn_fringe, learn_illumination
from gueststar.pipelines.night.calibrations.making import LearnedImage, Learning, NothingMade
from gueststar.pipelines.night.calibrations.photometry import learn_relative_photometry
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.pipelines.night.worker import WorkerContext
from gueststar.store.product_files import read_product
from gueststar.store.products import product_named


@dataclass(frozen=True)
class LearningWork:
    """The science images of one detector (and filter) of one night that a product is learned from."""

    job_id: int
    repo_root: Path
    kind: CalibrationKind
    day_obs: int
    detector_id: int
    images: tuple[LearnedImage, ...]
    settings: PipelineSettings
    physical_filter: str | None = None
    previous: Path | None = None


Learner = Callable[[Learning], CalibrationProduct | NothingMade]

LEARNERS: Mapping[CalibrationKind, Learner] = MappingProxyType(
    {
        "crosstalk": learn_crosstalk,
        "defects": learn_defects,
        "fringe": learn_fringe,
        "illumination": learn_illumination,
        "distortion": learn_distortion,
        "relative_photometry": learn_relative_photometry,
    }
)
"""How each kind is learned from a night's science images, in order."""


def run_learning(work: LearningWork) -> Outcome:
    """Learn one product and stage it; where the images do not show the effect nothing is made, which is no failure."""
    return attempt(work.job_id, lambda: _stage_learned(work))


def _stage_learned(work: LearningWork) -> Result:
    context, timer = WorkerContext.of(work.repo_root), StepTimer()
    previous = read_product(product_named(work.kind), work.previous) if work.previous else None
    detector = context.camera.detector(work.detector_id)
    with timer("learn"):
        made = LEARNERS[work.kind](Learning(work.images, detector, context, previous, work.settings))
    inputs = {"images": [str(image.image) for image in work.images]}
    return stage_calibration(context, made, physical_filter=work.physical_filter, inputs=inputs, timer=timer)
