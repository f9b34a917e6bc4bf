"""What makers and learners of calibration products get, and what they give back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from gueststar.model.calibration import CalibrationProduct, Calibrations
from gueststar.model.camera import Detector
from gueststar.model.exposure import ExposureInfo
from gueststar.pipelines.calibration._frames import RawSource
from gueststar.pipelines.calibration.not_shown import NotShown
from gueststar.pipelines.night.calibrations.known import CalibrationPaths
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.pipelines.night.worker import WorkerContext


@dataclass(frozen=True)
class NothingMade:
    """The frames do not allow this product, and nobody need wait for it: which is no failure."""

    reason: str


class Making(NamedTuple):
    """What a maker gets."""

    frames: list[RawSource]
    """One a frame, read when called."""
    infos: list[ExposureInfo]
    """Of the same frames."""
    detector: Detector
    known: Calibrations
    """Products of the kinds made before this one."""
    previous: Any
    """The last product of this kind, or None."""
    settings: PipelineSettings


@dataclass(frozen=True)
class LearnedImage:
    """One calibrated detector image of the night, and what lies beside it."""

    info: ExposureInfo
    detector: int
    raw: Path | None
    """None: the image was brought in calibrated."""
    image: Path
    sources: Path
    apertures: Path
    calibrations: CalibrationPaths
    """Valid when it was taken; those it was calibrated with may have been fewer."""


class Learning(NamedTuple):
    """What a learner gets."""

    images: tuple[LearnedImage, ...]
    detector: Detector
    context: WorkerContext
    previous: Any
    """The last product of this kind, or None."""
    settings: PipelineSettings


Made = CalibrationProduct | NothingMade

Maker = Callable[[Making], Made]

Given = TypeVar("Given")


def nothing_where_not_shown(make: Callable[[Given], Made]) -> Callable[[Given], Made]:
    """Let a maker or learner end in nothing made where its task finds that the frames do not show the effect."""

    @wraps(make)
    def made(given: Given) -> Made:
        try:
            return make(given)
        except NotShown as reason:
            return NothingMade(str(reason))

    return made
