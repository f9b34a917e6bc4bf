"""Shutter map: by how much each pixel's exposure differs from the commanded one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gueststar.algorithms.detrend.calibrate import subtract_in_place
from gueststar.algorithms.detrend.overscan import OverscanConfig
from gueststar.algorithms.illumination.shutter import ShutterConfig, ShutterMap, block_levels, fit_shutter
from gueststar.core.errors import DataError
from gueststar.model.calibration import CalibrationMaster, Calibrations
from gueststar.model.camera import Detector
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import Float32Image, MaskedImage
from gueststar.pipelines.calibration._checks import check_change, compare_with_previous
from gueststar.pipelines.calibration._frames import FrameSet, RawSource
from gueststar.pipelines.calibration._prepare import check_belongs, subtract_bias_in_place
from gueststar.pipelines.calibration.not_shown import NotShown
from gueststar.pipelines.electronics import electronics_of, measured_gains, with_gains


@dataclass(frozen=True)
class MakeShutterConfig:
    """How a shutter map is made, and when there is none."""

    min_frames: int = 3
    """Fewest usable flats of one filter."""
    max_level: float = 0.8
    """Brightest usable flat, as a fraction of saturation above the zero level."""
    min_level_e: float = 200.0
    """Faintest usable flat, electrons."""
    min_significance: float = 5.0
    """A map is made only if the shutter's delay, or its change over the detector, is so many times its error."""
    max_delay_s: float = 1.0
    """A map is refused if its mean is beyond this: the lamp was not steady."""
    max_structure_change_s: float = 0.05
    """A map is refused if it changed by more than this between blocks since the previous one."""
    memory_mb: float = 1024.0
    """Frames that do not fit are read again."""
    overscan: OverscanConfig = field(default_factory=OverscanConfig)
    fit: ShutterConfig = field(default_factory=ShutterConfig)


class MakeShutter:
    """Measure the shutter's travel on flats of short and long exposures."""

    def __init__(self, config: MakeShutterConfig = MakeShutterConfig()) -> None:
        self.config = config

    def suitable(self, infos: Sequence[ExposureInfo]) -> list[int]:
        """Return which flats serve: those of the filter with the widest range of exposures; NotShown if none."""
        best: list[int] = []
        widest = self.config.fit.min_ratio
        for glass in sorted({info.physical_filter or "" for info in infos}):
            rows = [i for i, info in enumerate(infos) if (info.physical_filter or "") == glass and info.exposure_s > 0]
            times = [infos[i].exposure_s for i in rows]
            if len(rows) >= self.config.min_frames and max(times) >= widest * min(times):
                best, widest = rows, max(times) / min(times)
        if not best:
            raise NotShown(f"no filter has flats whose exposures differ by a factor of {self.config.fit.min_ratio:g}")
        return best

    def run(
        self,
        raws: Iterable[RawSource],
        detector: Detector,
        *,
        known: Calibrations,
        previous: CalibrationMaster | None = None,
    ) -> CalibrationMaster:
        """Return the shutter map of one detector, seconds to add to the commanded exposure.

        The flats must be of one filter. Raises NotShown where it is too small to matter, DataError when too few flats
        are usable or what comes out is not to be believed.
        """
        config = self.config
        if known.photon_transfer is not None:
            detector = with_gains(detector, measured_gains(known.photon_transfer))

        def light(image: Float32Image, info: ExposureInfo) -> Float32Image:
            subtract_bias_in_place(image, detector, known.bias)
            if known.dark is not None:
                check_belongs(known.dark, detector)
                subtract_in_place(image, known.dark.pixels.image, factor=info.exposure_s)
            return image

        frames = FrameSet(
            detector, "flat", "electron", light, overscan=config.overscan, memory_mb=config.memory_mb,
            keep_pedestal=known.bias is not None, electronics=electronics_of(known, detector),
        )  # fmt: skip
        frames.read(raws)
        highest = config.max_level * min(a.gain * (a.saturation - a.bias_level) for a in detector.amplifiers)
        for frame in list(frames.frames):
            if not config.min_level_e <= frame.level <= highest:
                frames.reject(frame, f"level {frame.level:.6g} e- is outside {config.min_level_e:g} to {highest:.6g}")
        frames.require(config.min_frames)
        found = self._fit(frames, detector)
        if abs(found.mean) > config.max_delay_s:
            raise DataError(f"shutter of detector {detector.id}: mean delay {found.mean:.3f} s: was the lamp steady?")
        if found.significance < config.min_significance:
            raise NotShown(f"the shutter's delay is {1e3 * found.mean:.1f} +- {1e3 * found.mean_error:.1f} ms")
        return self._checked(_master(found, frames, detector), previous)

    def _fit(self, frames: FrameSet, detector: Detector) -> ShutterMap:
        block = self.config.fit.block
        blocks = []
        for frame in frames.frames:
            image = frames.values(frame)
            blocks.append(block_levels(image, ~np.isfinite(image), block=block))
        times = np.array([frame.info.exposure_s for frame in frames.frames])
        try:
            return fit_shutter(
                np.array([b[0] for b in blocks]), np.array([b[1] for b in blocks]), times,
                shape=(detector.shape[0], detector.shape[1]), config=self.config.fit,
            )  # fmt: skip
        except ValueError as error:
            raise DataError(f"shutter of detector {detector.id}: {error}") from None

    def _checked(self, master: CalibrationMaster, previous: CalibrationMaster | None) -> CalibrationMaster:
        if previous is None:
            return master
        limits = {"structure": self.config.max_structure_change_s}
        comparison = check_change(master, compare_with_previous(master, previous), limits)
        return replace(master, metadata={**master.metadata, "comparison": comparison})


def _master(found: ShutterMap, frames: FrameSet, detector: Detector) -> CalibrationMaster:
    facts: dict[str, Any] = {
        **frames.metadata(),
        "exposures_s": [frame.info.exposure_s for frame in frames.frames],
        "mean_delay_s": found.mean,
        "mean_delay_error_s": found.mean_error,
        "structure_s": found.structure,
        "map_error_s": float(np.median(found.error)),
        "significance": found.significance,
    }
    mask = np.zeros(found.seconds.shape, np.int32)
    return CalibrationMaster(
        kind="shutter", detector_id=detector.id, pixels=MaskedImage(found.seconds, found.error**2, mask),
        mjd_tai=frames.mjd_tai, n_frames=len(frames.frames), metadata=facts,
    )  # fmt: skip
