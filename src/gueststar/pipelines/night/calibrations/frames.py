"""Calibration products of one detector from a night's calibration frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from gueststar.core.errors import MissingInput
from gueststar.formats.raw import read_detector
from gueststar.model.calibration import CalibrationKind, CalibrationMaster, CalibrationProduct
from gueststar.model.camera import Detector
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import MaskedImage
from gueststar.model.raw import RawDetector
from gueststar.pipelines.calibration._frames import RawSource
from gueststar.pipelines.calibration.bias import MakeBias
from gueststar.pipelines.calibration.dark import MakeDark
from gueststar.pipelines.calibration.flat import MakeFlat
from gueststar.pipelines.calibration.fringe import FringeImage, MakeFringe
from gueststar.pipelines.calibration.shutter import MakeShutter
from gueststar.pipelines.calibration.validity import validity_of
from gueststar.pipelines.engine.outcome import Outcome, Result, StepTimer, attempt
from gueststar.pipelines.night.calibrations.electronics import ELECTRONICS_MAKERS
from gueststar.pipelines.night.calibrations.known import CalibrationPaths, read_calibrations
from gueststar.pipelines.night.calibrations.making import Maker, Making, NothingMade, nothing_where_not_shown
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.pipelines.night.worker import WorkerContext
from gueststar.pipelines.science.detrend import Detrend
from gueststar.store.product_files import read_product
from gueststar.store.products import DataId, product_named


@dataclass(frozen=True)
class CalibrationWork:
    """The frames of one detector (and filter) of one night that a product of one kind is made from."""

    job_id: int
    repo_root: Path
    kind: CalibrationKind
    day_obs: int
    detector_id: int
    frames: tuple[tuple[Path, ExposureInfo], ...]
    settings: PipelineSettings
    physical_filter: str | None = None
    calibrations: CalibrationPaths = field(default_factory=dict)
    """Products of the kinds made before this one."""
    previous: Path | None = None


def _make_bias(making: Making) -> CalibrationMaster:
    config = making.settings.bias
    _require_frames(making, config.min_frames)
    return MakeBias(config).run(making.frames, making.detector, previous=making.previous)


def _make_dark(making: Making) -> CalibrationMaster:
    config = making.settings.dark
    _require_frames(making, config.min_frames)
    return MakeDark(config).run(making.frames, making.detector, bias=making.known.bias, previous=making.previous)


def _make_flat(making: Making) -> CalibrationMaster:
    config, known = making.settings.flat, making.known
    _require_frames(making, config.min_frames)
    return MakeFlat(config).run(
        making.frames, making.detector, bias=known.bias, dark=known.dark, shutter=known.shutter,
        previous=making.previous, known=known,
    )  # fmt: skip


@nothing_where_not_shown
def _make_shutter(making: Making) -> CalibrationMaster | NothingMade:
    task = MakeShutter(making.settings.shutter)
    frames = [making.frames[row] for row in task.suitable(making.infos)]
    return task.run(frames, making.detector, known=making.known, previous=making.previous)


@nothing_where_not_shown
def _make_lamp_fringe(making: Making) -> CalibrationMaster | NothingMade:
    """Make fringe patterns from flats, for cameras whose own light interferes."""
    known = making.known
    if known.flat is None:
        raise MissingInput("fringe patterns of lamp light need a flat first")
    detrend = Detrend(replace(making.settings.detrend, cosmic_rays=None, trails=None))
    images = []
    step = -(-len(making.frames) // making.settings.fringe.max_images)
    for frame in making.frames[:: max(step, 1)]:
        raw = frame() if callable(frame) else frame
        found = detrend.run(raw, replace(known, fringe=None))
        level = float(found.metrics["sky_level"])
        pixels = found.pixels
        pixels = MaskedImage(pixels.image - np.float32(level), pixels.variance, pixels.mask)
        images.append(FringeImage.of(raw.info, pixels, level))
    return MakeFringe(making.settings.fringe).run(images, making.detector, flat=known.flat, previous=making.previous)


def _require_frames(making: Making, needed: int) -> None:
    if len(making.frames) < needed:
        what = " ".join(filter(None, (making.infos[0].physical_filter, making.infos[0].observation_type)))
        raise MissingInput(f"{len(making.frames)} {what} frames, {needed} are needed")


MAKERS: Mapping[CalibrationKind, Maker] = MappingProxyType(
    {
        "bias": _make_bias,
        "dark": _make_dark,
        **ELECTRONICS_MAKERS,
        "shutter": _make_shutter,
        "flat": _make_flat,
        "fringe": _make_lamp_fringe,
    }
)
"""How each kind is made from a night's calibration frames, in order: each may need the ones before it."""


def run_calibration(work: CalibrationWork) -> Outcome:
    """Make one product and stage it; a bad one is refused, too few frames are held."""
    return attempt(work.job_id, lambda: _stage_product(work))


def _stage_product(work: CalibrationWork) -> Result:
    context, timer = WorkerContext.of(work.repo_root), StepTimer()
    with timer("stack"):
        made = make_calibration(work, context.camera.detector(work.detector_id))
    inputs: dict[str, Any] = {
        "frames": [str(path) for path, _ in work.frames],
        **{str(kind): str(path) for kind, path in work.calibrations.items()},
    }
    return stage_calibration(context, made, physical_filter=work.physical_filter, inputs=inputs, timer=timer)


def stage_calibration(
    context: WorkerContext,
    made: CalibrationProduct | NothingMade,
    *,
    physical_filter: str | None,
    inputs: dict[str, Any],
    timer: StepTimer,
) -> Result:
    """Write a calibration product to staging; its metrics tell from when to when it may serve."""
    if isinstance(made, NothingMade):
        return Result(metrics={"nothing_made": made.reason}, inputs=inputs, steps=timer.seconds)
    data_id = DataId(detector=made.detector_id, physical_filter=physical_filter)
    with timer("write"):
        staged = context.stage(made.kind, data_id, made)
    valid_from, valid_to = validity_of(made)
    metrics = dict(made.metadata) | {
        "n_frames": made.n_frames,
        "mjd_tai": made.mjd_tai,
        "valid_from_mjd": valid_from,
        "valid_to_mjd": valid_to,
    }
    return Result(staged=(staged,), metrics=metrics, inputs=inputs, steps=timer.seconds)


def make_calibration(work: CalibrationWork, detector: Detector) -> CalibrationProduct | NothingMade:
    """Return the product of ``work``; frames are read again for each band of rows, never all at once."""
    known = read_calibrations(work.calibrations)
    previous = read_product(product_named(work.kind), work.previous) if work.previous else None
    frames: list[RawSource] = [_Frame(path, detector, info) for path, info in work.frames]
    infos = [info for _, info in work.frames]
    return MAKERS[work.kind](Making(frames, infos, detector, known, previous, work.settings))


class _Frame:
    """A picklable call that reads one frame when asked."""

    def __init__(self, path: Path, detector: Detector, info: ExposureInfo) -> None:
        self.path, self.detector, self.info = path, detector, info

    def __call__(self) -> RawDetector:
        return read_detector(self.path, self.detector, self.info)
