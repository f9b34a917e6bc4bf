"""Masters of one detector from a night's calibration frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gueststar.core.errors import MissingInput
from gueststar.formats.calibration_master import read_calibration_master
from gueststar.formats.raw import read_detector
from gueststar.model.calibration import CalibrationKind, CalibrationMaster
from gueststar.model.camera import Detector
from gueststar.model.exposure import ExposureInfo
from gueststar.model.raw import RawDetector
from gueststar.pipelines.calibration.bias import MakeBias
from gueststar.pipelines.calibration.dark import MakeDark
from gueststar.pipelines.calibration.flat import MakeFlat
from gueststar.pipelines.calibration.validity import validity_of
from gueststar.pipelines.night.outcome import Outcome, Result, StepTimer, attempt
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.pipelines.night.worker import WorkerContext
from gueststar.store.products import DataId


@dataclass(frozen=True)
class CalibrationWork:
    """The frames of one kind, detector (and filter) of one night."""

    job_id: int
    repo_root: Path
    kind: CalibrationKind
    day_obs: int
    detector_id: int
    frames: tuple[tuple[Path, ExposureInfo], ...]
    settings: PipelineSettings
    physical_filter: str | None = None
    bias: Path | None = None
    dark: Path | None = None
    previous: Path | None = None


def run_calibration(work: CalibrationWork) -> Outcome:
    """Make one master and stage it; a bad one is refused, too few frames are held."""
    return attempt(work.job_id, lambda: _stage_master(work))


def _stage_master(work: CalibrationWork) -> Result:
    context, timer = WorkerContext.of(work.repo_root), StepTimer()
    with timer("stack"):
        master = make_master(work, context.camera.detector(work.detector_id))
    data_id = DataId(detector=work.detector_id, physical_filter=work.physical_filter)
    with timer("write"):
        staged = context.stage(work.kind, data_id, master)
    inputs = {
        "frames": [str(path) for path, _ in work.frames],
        "bias": str(work.bias or ""),
        "dark": str(work.dark or ""),
    }
    valid_from, valid_to = validity_of(master)
    metrics = dict(master.metadata) | {
        "n_frames": master.n_frames,
        "mjd_tai": master.mjd_tai,
        "valid_from_mjd": valid_from,
        "valid_to_mjd": valid_to,
    }
    return Result(staged=(staged,), metrics=metrics, inputs=inputs, steps=timer.seconds)


def make_master(work: CalibrationWork, detector: Detector) -> CalibrationMaster:
    """Return the master of ``work``; frames are read again for each band of rows, never all at once."""
    frames = [_Frame(path, detector, info) for path, info in work.frames]
    bias, dark, previous = (
        read_calibration_master(path) if path else None for path in (work.bias, work.dark, work.previous)
    )
    settings = work.settings
    if work.kind == "bias":
        if len(frames) < settings.bias.min_frames:
            raise MissingInput(f"{len(frames)} bias frames, {settings.bias.min_frames} are needed")
        return MakeBias(settings.bias).run(frames, detector, previous=previous)
    if work.kind == "dark":
        if len(frames) < settings.dark.min_frames:
            raise MissingInput(f"{len(frames)} dark frames, {settings.dark.min_frames} are needed")
        return MakeDark(settings.dark).run(frames, detector, bias=bias, previous=previous)
    if len(frames) < settings.flat.min_frames:
        raise MissingInput(f"{len(frames)} {work.physical_filter} flats, {settings.flat.min_frames} are needed")
    return MakeFlat(settings.flat).run(frames, detector, bias=bias, dark=dark, previous=previous)


class _Frame:
    """A picklable call that reads one frame when asked."""

    def __init__(self, path: Path, detector: Detector, info: ExposureInfo) -> None:
        self.path, self.detector, self.info = path, detector, info

    def __call__(self) -> RawDetector:
        return read_detector(self.path, self.detector, self.info)
