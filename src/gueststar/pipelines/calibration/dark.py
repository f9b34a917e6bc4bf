"""Master dark: the charge that gathers without light."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gueststar.algorithms.detrend.defects import DefectConfig, find_offset_defects, find_unstable
from gueststar.algorithms.detrend.overscan import OverscanConfig
from gueststar.algorithms.stats.stack import FrameNoise
from gueststar.model.calibration import CalibrationMaster
from gueststar.model.camera import Detector
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import Float32Image
from gueststar.pipelines.calibration._checks import check_bad_fraction, check_change, compare_with_previous
from gueststar.pipelines.calibration._frames import Frame, FrameSet, RawSource, columns_of, masked_stack
from gueststar.pipelines.calibration._prepare import subtract_bias_in_place


@dataclass(frozen=True)
class MakeDarkConfig:
    """How a master dark is made, and when it is refused."""

    min_frames: int = 3
    """Fewest usable frames."""
    min_exposure_s: float = 1.0
    """Shorter darks are left out."""
    clip_sigma: float = 4.0
    """Values further than this many sigma of their noise from the others are left out (cosmic rays)."""
    max_rate_offset: float = 0.5
    """Electrons per second; a frame whose rate is off the others' by more than this is left out (light leak)."""
    max_shape_offset: float = 0.5
    """Electrons per second; the same for the scatter of its blocks."""
    max_bad_fraction: float = 0.05
    """The master is refused if more than this fraction of the pixels is bad."""
    max_level_change: float = 1.0
    """Electrons per second; the master is refused if its level moved by more than this since the previous one."""
    max_structure_change: float = 0.5
    """Electrons per second; the same for the scatter of the change between blocks."""
    memory_mb: float = 1024.0
    """Frames that do not fit are read again for every band of rows."""
    overscan: OverscanConfig = field(default_factory=OverscanConfig)
    defects: DefectConfig = field(default_factory=DefectConfig)


class MakeDark:
    """Average dark frames and find hot pixels."""

    def __init__(self, config: MakeDarkConfig = MakeDarkConfig()) -> None:
        self.config = config

    def run(
        self,
        raws: Iterable[RawSource],
        detector: Detector,
        *,
        bias: CalibrationMaster | None = None,
        previous: CalibrationMaster | None = None,
    ) -> CalibrationMaster:
        """Return the master dark of one detector, electrons per second.

        Frames that cannot be used are listed with reasons in ``metadata["rejected"]``. Raises DataError
        when too few are left, or when what comes out is not to be believed.
        """
        config = self.config

        def rate(image: Float32Image, info: ExposureInfo) -> Float32Image:
            subtract_bias_in_place(image, detector, bias)
            image /= np.float32(max(info.exposure_s, 1e-3))
            return image

        frames = FrameSet(
            detector, "dark", "electron", rate, overscan=config.overscan, memory_mb=config.memory_mb,
            keep_pedestal=bias is not None,
        )  # fmt: skip
        frames.read(raws)
        for frame in list(frames.frames):
            if frame.info.exposure_s < config.min_exposure_s:
                frames.reject(frame, f"exposure of {frame.info.exposure_s:g} s is too short")
        frames.require(config.min_frames)
        frames.reject_outliers(max_level=config.max_rate_offset, max_shape=config.max_shape_offset, is_ratio=False)
        frames.require(config.min_frames)
        gains = {a.name: a.gain for a in detector.amplifiers}

        def noise(frame: Frame, name: str) -> FrameNoise:
            exposure = frame.info.exposure_s
            read = frames.read_noise_adu(frame, name) * gains[name]
            return FrameNoise(constant=(read / exposure) ** 2, slope=1.0 / exposure)

        stack = frames.stack(noise, scale_of=lambda _: 1.0, n_sigma=config.clip_sigma)
        longest = max(frame.info.exposure_s for frame in frames.frames)
        read_noise = max(a.read_noise for a in detector.amplifiers)
        is_bad = find_unstable(stack, config=config.defects)
        is_bad |= find_offset_defects(
            stack.mean,
            noise=read_noise / longest,
            both_signs=False,
            columns=columns_of(detector),
            config=config.defects,
        )
        master = CalibrationMaster(
            kind="dark",
            detector_id=detector.id,
            pixels=masked_stack(stack, is_bad),
            mjd_tai=frames.mjd_tai,
            n_frames=len(frames.frames),
            metadata={**frames.metadata(), "rate": float(np.median(stack.mean)), "gain_assumed": gains},
        )
        return self._checked(master, previous)

    def _checked(self, master: CalibrationMaster, previous: CalibrationMaster | None) -> CalibrationMaster:
        found: dict[str, Any] = {"bad_fraction": check_bad_fraction(master, self.config.max_bad_fraction)}
        if previous is not None:
            limits = {"level": self.config.max_level_change, "structure": self.config.max_structure_change}
            found["comparison"] = check_change(master, compare_with_previous(master, previous), limits)
        return replace(master, metadata={**master.metadata, **found})
