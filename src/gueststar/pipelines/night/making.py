"""What makers of calibration products get, and what they give back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from gueststar.model.calibration import CalibrationProduct, Calibrations
from gueststar.model.camera import Detector
from gueststar.model.exposure import ExposureInfo
from gueststar.pipelines.calibration._frames import RawSource
from gueststar.pipelines.night.settings import PipelineSettings


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


Maker = Callable[[Making], CalibrationProduct | NothingMade]
