"""Master flat: the relative response of the pixels to even light."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.detrend.calibrate import subtract_in_place
from gueststar.algorithms.detrend.defects import DefectConfig, find_flat_defects
from gueststar.algorithms.detrend.overscan import OverscanConfig
from gueststar.algorithms.illumination.bad_pixels import BadPixelConfig, find_unlike_response
from gueststar.algorithms.response.flat_pair import measure_gain
from gueststar.algorithms.stats.robust import median_and_sigma
from gueststar.algorithms.stats.stack import FrameNoise, Stack
from gueststar.core.errors import DataError
from gueststar.model.calibration import NO_CALIBRATIONS, CalibrationMaster, Calibrations
from gueststar.model.camera import Detector, parse_section
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import Float32Image
from gueststar.pipelines.calibration._checks import check_bad_fraction, check_change, compare_with_previous
from gueststar.pipelines.calibration._frames import Frame, FrameSet, RawSource, columns_of, masked_stack
from gueststar.pipelines.calibration._prepare import check_belongs, correct_shutter_in_place, subtract_bias_in_place
from gueststar.pipelines.electronics import electronics_of, measured_gains, with_gains


@dataclass(frozen=True)
class MakeFlatConfig:
    """How a master flat is made, and when it is refused."""

    min_frames: int = 3
    """Fewest usable frames."""
    level_range: tuple[float, float] = (0.05, 0.8)
    """Median level of a usable frame, as a fraction of saturation above the zero level."""
    max_saturated_fraction: float = 0.02
    """A frame with more saturated pixels than this fraction is left out."""
    max_shape_offset: float = 0.03
    """A frame is left out if its blocks, relative to its level, scatter against the others' by more than this."""
    clip_sigma: float = 3.5
    """Values further than this many sigma of their noise from the others are left out (stars in twilight)."""
    gain_tolerance: float = 0.5
    """The master is refused if the gain by photon transfer is off the camera's by more than this fraction."""
    level_ratio: float = 3.0
    """Two or more frames so many times fainter than the bright ones show pixels that respond unlike in faint light."""
    level_dependence: BadPixelConfig = field(default_factory=BadPixelConfig)
    """When such a pixel is bad."""
    max_bad_fraction: float = 0.05
    """The master is refused if more than this fraction of the pixels is bad."""
    max_structure_change: float = 0.03
    """The master is refused if its ratio to the previous one scatters by more than this between blocks."""
    memory_mb: float = 1024.0
    """Frames that do not fit are read again for every band of rows."""
    overscan: OverscanConfig = field(default_factory=OverscanConfig)
    defects: DefectConfig = field(default_factory=DefectConfig)


class MakeFlat:
    """Average flat frames, each divided by its level, and measure the gain."""

    def __init__(self, config: MakeFlatConfig = MakeFlatConfig()) -> None:
        self.config = config

    def run(
        self,
        raws: Iterable[RawSource],
        detector: Detector,
        *,
        bias: CalibrationMaster | None = None,
        dark: CalibrationMaster | None = None,
        shutter: CalibrationMaster | None = None,
        previous: CalibrationMaster | None = None,
        known: Calibrations = NO_CALIBRATIONS,
    ) -> CalibrationMaster:
        """Return the master flat of one detector and filter: response in electrons, its median one.

        Of ``known``, linearity and crosstalk correct the counts, and the gains of a photon-transfer curve are used.

        Frames of different filters are refused. Frames that cannot be used are listed with reasons in
        ``metadata["rejected"]``. Raises DataError when too few are left, or when what comes out is not to be believed.
        """
        config = self.config
        if known.photon_transfer is not None:
            detector = with_gains(detector, measured_gains(known.photon_transfer))

        def light(image: Float32Image, info: ExposureInfo) -> Float32Image:
            subtract_bias_in_place(image, detector, bias)
            if dark is not None:
                check_belongs(dark, detector)
                subtract_in_place(image, dark.pixels.image, factor=info.exposure_s)
            if shutter is not None:
                check_belongs(shutter, detector)
                correct_shutter_in_place(image, shutter, info.exposure_s)
            return image

        frames = FrameSet(
            detector, "flat", "electron", light, overscan=config.overscan, memory_mb=config.memory_mb,
            keep_pedestal=bias is not None, electronics=electronics_of(replace(known, bias=bias), detector),
        )  # fmt: skip
        frames.read(raws)
        physical_filter = _only_filter(frames)
        self._reject_unsuitable(frames)
        frames.require(config.min_frames)
        frames.reject_outliers(max_level=np.inf, max_shape=config.max_shape_offset, is_ratio=True)
        frames.require(config.min_frames)
        stack = self._stack(frames)
        scale = np.float32(np.median(stack.mean[stack.n_used > 0]))
        stack = stack._replace(mean=stack.mean / scale, variance=stack.variance / scale**2)
        is_bad = find_flat_defects(stack.mean, columns=columns_of(detector), config=config.defects)
        is_bad |= stack.n_used == 0
        is_dependent = self._level_dependent(frames)
        is_bad |= is_dependent
        master = CalibrationMaster(
            kind="flat",
            detector_id=detector.id,
            pixels=masked_stack(stack, is_bad),
            mjd_tai=frames.mjd_tai,
            n_frames=len(frames.frames),
            physical_filter=physical_filter,
            metadata={
                **frames.metadata(),
                "n_level_dependent": int(is_dependent.sum()),
                "gain": _gains(frames),
                "gain_assumed": {a.name: a.gain for a in detector.amplifiers},
                "clipped_fraction": float(stack.n_rejected.sum() / max(stack.n_used.sum() + stack.n_rejected.sum(), 1)),
            },
        )
        return self._checked(master, detector, previous)

    def _reject_unsuitable(self, frames: FrameSet) -> None:
        """Leave out frames that are too faint, too bright or saturated."""
        full = min(a.gain * (a.saturation - a.bias_level) for a in frames.detector.amplifiers)
        low, high = (fraction * full for fraction in self.config.level_range)
        for frame in list(frames.frames):
            if not low <= frame.level <= high:
                frames.reject(frame, f"level {frame.level:.6g} e- is outside {low:.6g} to {high:.6g}")
            elif frame.saturated_fraction > self.config.max_saturated_fraction:
                frames.reject(frame, f"{frame.saturated_fraction:.1%} of the pixels are saturated")

    def _level_dependent(self, frames: FrameSet) -> NDArray[np.bool_]:
        """Return the pixels whose response in the faintest frames is not that in the brightest (traps)."""
        highest = max(frame.level for frame in frames.frames)
        bright = [frame for frame in frames.frames if frame.level > 0.6 * highest]
        faint = [frame for frame in frames.frames if frame.level * self.config.level_ratio < highest]
        if len(bright) < 2 or len(faint) < 2:
            return np.zeros(frames.detector.shape, dtype=bool)
        read_noise = max(amplifier.read_noise for amplifier in frames.detector.amplifiers)
        means: list[Float32Image] = []
        variance = 0.0
        for group in (bright, faint):
            total = np.float32(sum(frame.level for frame in group))
            sums = np.zeros(frames.detector.shape, np.float32)
            for frame in group:
                sums += frames.values(frame)
            means.append(sums / total)
            variance += float(1.0 / total + len(group) * read_noise**2 / total**2)
        error = np.full(frames.detector.shape, np.sqrt(variance), np.float32)
        axis = frames.detector.readout_axis
        found = find_unlike_response(means[0], means[1], error, readout_axis=axis, config=self.config.level_dependence)
        return found.is_bad

    def _stack(self, frames: FrameSet) -> Stack:
        gains = {a.name: a.gain for a in frames.detector.amplifiers}
        shapes = [frame.block_levels / frame.level for frame in frames.frames]
        typical = np.nanmedian(shapes, axis=0)
        unevenness = {
            id(frame): median_and_sigma(shape / typical)[1] for frame, shape in zip(frames.frames, shapes, strict=True)
        }

        def noise(frame: Frame, name: str) -> FrameNoise:
            read = frames.read_noise_adu(frame, name) * gains[name]
            return FrameNoise((read / frame.level) ** 2, 1.0 / frame.level, relative=unevenness[id(frame)])

        return frames.stack(noise, scale_of=lambda frame: frame.level, n_sigma=self.config.clip_sigma)

    def _checked(
        self, master: CalibrationMaster, detector: Detector, previous: CalibrationMaster | None
    ) -> CalibrationMaster:
        config = self.config
        for amplifier in detector.amplifiers:
            gain = master.metadata["gain"].get(amplifier.name, {}).get("gain")
            if gain is not None and abs(gain / amplifier.gain - 1.0) > config.gain_tolerance:
                raise DataError(
                    f"flat of detector {detector.id}: gain of amplifier {amplifier.name} by photon transfer is "
                    f"{gain:.3f} e-/ADU, the camera says {amplifier.gain:.3f}: mend the camera file if this is right"
                )
        found: dict[str, Any] = {"bad_fraction": check_bad_fraction(master, config.max_bad_fraction)}
        if previous is not None:
            if previous.physical_filter != master.physical_filter:
                raise DataError(f"previous flat is of {previous.physical_filter}, new one of {master.physical_filter}")
            limits = {"structure": config.max_structure_change}
            found["comparison"] = check_change(master, compare_with_previous(master, previous), limits)
        return replace(master, metadata={**master.metadata, **found})


def _only_filter(frames: FrameSet) -> str | None:
    """Return the filter of most frames; the others are rejected."""
    names = [frame.info.physical_filter for frame in frames.frames]
    if not names:
        return None
    common = max(set(names), key=lambda name: (names.count(name), str(name)))
    for frame in list(frames.frames):
        if frame.info.physical_filter != common:
            frames.reject(frame, f"filter is {frame.info.physical_filter}, not {common}")
    return common


def _gains(frames: FrameSet) -> dict[str, dict[str, float]]:
    """Return gain and error of each amplifier, the median over a few pairs of frames of similar level."""
    ordered = sorted(frames.frames, key=lambda frame: frame.level)
    pairs = [p for p in zip(ordered[::2], ordered[1::2], strict=False) if p[0].level > 0.5 * p[1].level][:3]
    found: dict[str, list[tuple[float, float]]] = {}
    for pair in pairs:
        images = [frames.values(frame) for frame in pair]
        for amplifier in frames.detector.amplifiers:
            target = parse_section(amplifier.detector_section)
            counts = [image[target] / np.float32(amplifier.gain) for image in images]
            gain = measure_gain(
                counts[0], counts[1], read_noise=frames.read_noise_adu(pair[0], amplifier.name),
                is_masked=~(np.isfinite(counts[0]) & np.isfinite(counts[1])),
            )  # fmt: skip
            if np.isfinite(gain.gain):
                found.setdefault(amplifier.name, []).append((gain.gain, gain.error))
    return {
        name: {"gain": float(np.median([g for g, _ in values])), "error": float(np.median([e for _, e in values]))}
        for name, values in found.items()
    }
