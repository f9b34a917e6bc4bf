"""Master bias: the structure that is read without light."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gueststar.algorithms.detrend.defects import DefectConfig, find_offset_defects, find_unstable
from gueststar.algorithms.detrend.overscan import OverscanConfig
from gueststar.algorithms.response.flat_pair import measure_read_noise
from gueststar.algorithms.stats.stack import FrameNoise
from gueststar.model.calibration import CalibrationMaster
from gueststar.model.camera import Detector, parse_section
from gueststar.pipelines.calibration._checks import (
    check_bad_fraction,
    check_change,
    check_read_noise,
    check_read_noise_change,
    compare_with_previous,
)
from gueststar.pipelines.calibration._frames import FrameSet, RawSource, columns_of, masked_stack, unchanged


@dataclass(frozen=True)
class MakeBiasConfig:
    """How a master bias is made, and when it is refused."""

    min_frames: int = 3
    """Fewest usable frames."""
    clip_sigma: float = 4.0
    """Values further than this many sigma of the read noise from the others are left out."""
    max_level_offset: float = 3.0
    """A frame whose level is off the others' by more than this many times the read noise is left out."""
    max_shape_offset: float = 1.0
    """A frame whose blocks scatter against the others' by more than this many times the read noise is left out."""
    read_noise_tolerance: float = 0.3
    """The master is refused if the read noise is off the camera's by more than this fraction."""
    max_bad_fraction: float = 0.02
    """The master is refused if more than this fraction of the pixels is bad."""
    max_level_change: float = 20.0
    """ADU; the master is refused if its level moved by more than this since the previous one."""
    max_structure_change: float = 3.0
    """ADU; the same for the scatter of the change between blocks."""
    max_read_noise_change: float = 0.3
    """The same for the relative change of the read noise."""
    memory_mb: float = 1024.0
    """Frames that do not fit are read again for every band of rows."""
    overscan: OverscanConfig = field(default_factory=OverscanConfig)
    defects: DefectConfig = field(default_factory=DefectConfig)


class MakeBias:
    """Average bias frames and measure the read noise."""

    def __init__(self, config: MakeBiasConfig = MakeBiasConfig()) -> None:
        self.config = config

    def run(
        self, raws: Iterable[RawSource], detector: Detector, *, previous: CalibrationMaster | None = None
    ) -> CalibrationMaster:
        """Return the master bias (ADU, overscan subtracted where there is one) of one detector.

        Frames that cannot be used are listed with reasons in ``metadata["rejected"]``. Raises DataError
        when too few are left, or when what comes out is not to be believed.
        """
        config = self.config
        frames = FrameSet(
            detector, "bias", "adu", unchanged, overscan=config.overscan, memory_mb=config.memory_mb, keep_pedestal=True
        )
        frames.read(raws)
        frames.require(config.min_frames)
        noise = max(
            0.5, *(a.read_noise / a.gain for a in detector.amplifiers)
        )  # half a count: of a noiseless camera, too
        frames.reject_outliers(
            max_level=config.max_level_offset * noise, max_shape=config.max_shape_offset * noise, is_ratio=False
        )
        frames.require(config.min_frames)
        read_noise_adu = _read_noise(frames)
        stack = frames.stack(
            lambda _, name: FrameNoise(constant=read_noise_adu[name] ** 2), scale_of=lambda _: 1.0,
            n_sigma=config.clip_sigma,
        )  # fmt: skip
        noise = max(read_noise_adu.values())
        is_bad = find_unstable(stack, config=config.defects)
        columns = columns_of(detector)
        is_bad |= find_offset_defects(stack.mean, noise=noise, both_signs=True, columns=columns, config=config.defects)
        read_noise = {a.name: read_noise_adu[a.name] * a.gain for a in detector.amplifiers}
        master = CalibrationMaster(
            kind="bias",
            detector_id=detector.id,
            pixels=masked_stack(stack, is_bad),
            mjd_tai=frames.mjd_tai,
            n_frames=len(frames.frames),
            metadata={**frames.metadata(), "read_noise": read_noise, "read_noise_adu": read_noise_adu},
        )
        return self._checked(master, detector, previous)

    def _checked(
        self, master: CalibrationMaster, detector: Detector, previous: CalibrationMaster | None
    ) -> CalibrationMaster:
        config = self.config
        read_noise = master.metadata["read_noise"]
        check_read_noise(detector, read_noise, config.read_noise_tolerance, f"bias of detector {detector.id}")
        found: dict[str, Any] = {"bad_fraction": check_bad_fraction(master, config.max_bad_fraction)}
        if previous is not None:
            limits = {"level": config.max_level_change, "structure": config.max_structure_change}
            comparison = check_change(master, compare_with_previous(master, previous), limits)
            comparison["read_noise_change"] = check_read_noise_change(master, previous, config.max_read_noise_change)
            found["comparison"] = comparison
        return replace(master, metadata={**master.metadata, **found})


def _read_noise(frames: FrameSet) -> dict[str, float]:
    """Return the read noise of each amplifier (ADU): the median over a few pairs of neighbouring frames."""
    pairs = list(zip(frames.frames[::2], frames.frames[1::2], strict=False))[:4]
    found: dict[str, list[float]] = {a.name: [] for a in frames.detector.amplifiers}
    for first, second in pairs:
        images = frames.values(first), frames.values(second)
        for amplifier in frames.detector.amplifiers:
            target = parse_section(amplifier.detector_section)
            found[amplifier.name].append(measure_read_noise(images[0][target], images[1][target]))
    return {name: float(np.median(values)) for name, values in found.items()}
