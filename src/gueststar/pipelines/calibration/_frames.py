"""The frames of a calibration: read one at a time, judged, and stacked in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.detrend.defects import Columns
from gueststar.algorithms.detrend.overscan import OverscanConfig
from gueststar.algorithms.stats.robust import median_and_sigma
from gueststar.algorithms.stats.stack import FrameNoise, Stack, empty_stack, row_bands, stack_values
from gueststar.core.bits import MaskPlane
from gueststar.core.errors import DataError
from gueststar.model.camera import Detector, parse_section
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import Float32Image, MaskedImage
from gueststar.model.raw import RawDetector
from gueststar.pipelines.assembly import assemble
from gueststar.pipelines.electronics import NO_ELECTRONICS, Electronics, read_with_gains

RawSource = RawDetector | Callable[[], RawDetector]
"""Raw pixels, or a function that reads them (and may be called more than once)."""

Prepare = Callable[[Float32Image, ExposureInfo], Float32Image]
"""Turns an assembled frame into the values to be stacked (bias subtracted, scaled...)."""


@dataclass(eq=False)
class Frame:
    """One frame that was read and judged."""

    source: RawSource
    info: ExposureInfo
    level: float
    """Median of the prepared frame."""
    block_levels: Float32Image
    """Medians of blocks of the prepared frame, for its shape."""
    saturated_fraction: float
    read_noise_adu: dict[str, float]
    """From the overscan, by amplifier; empty without one."""
    pixels: Float32Image | None = None
    """The prepared frame, if it is kept in memory."""


@dataclass(eq=False)
class FrameSet:
    """Frames of one detector and kind; what cannot be used is listed with its reason."""

    detector: Detector
    kind: str
    unit: Literal["adu", "electron"]
    prepare: Prepare
    overscan: OverscanConfig
    memory_mb: float
    """For frames that are kept; a quarter of it in addition for the band that is being stacked."""
    keep_pedestal: bool
    """Amplifiers without overscan keep their zero level: a bias takes it away, or is being made."""
    electronics: Electronics = NO_ELECTRONICS
    """What is done to the counts before anything else."""
    frames: list[Frame] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)

    def read(self, raws: Iterable[RawSource]) -> None:
        """Read every frame once and measure it; unreadable or misplaced ones are rejected."""
        for number, source in enumerate(raws):
            try:
                raw = source() if callable(source) else source
                self._check(raw)
                prepared, noises, saturated = self._prepared(raw)
            except DataError as error:
                self._reject_unread(number, str(error))
                continue
            block_levels = _block_medians(prepared)
            level = float(np.nanmedian(block_levels))
            frame = Frame(source, raw.info, level, block_levels, saturated, noises)
            n_kept = sum(other.pixels is not None for other in self.frames)
            if (n_kept + 1) * prepared.nbytes <= self.memory_mb * 2**20:
                frame.pixels = prepared
            self.frames.append(frame)

    def reject(self, frame: Frame, reason: str) -> None:
        """Take a frame out and note why."""
        self.frames.remove(frame)
        self.rejected.append({"exposure_id": frame.info.exposure_id, "reason": reason})

    def reject_outliers(self, *, max_level: float, max_shape: float, is_ratio: bool) -> None:
        """Take out frames whose level or large-scale shape is not that of the others.

        Levels are compared by difference; shapes (blocks less the frame's level, or divided by it with ``is_ratio``)
        by the robust scatter of their difference from the median shape.
        """
        if len(self.frames) < 3:
            return
        typical = self.typical_level()[0]
        shapes = [f.block_levels / f.level if is_ratio else f.block_levels - f.level for f in self.frames]
        median_shape = np.nanmedian(shapes, axis=0)
        for frame, shape in zip(list(self.frames), shapes, strict=True):
            scatter = median_and_sigma(shape - median_shape)[1]
            if abs(frame.level - typical) > max_level:
                self.reject(
                    frame, f"level {frame.level:.6g} is off the others' {typical:.6g} by more than {max_level:.4g}"
                )
            elif scatter > max_shape:
                self.reject(frame, f"shape differs from the others' by {scatter:.4g}, more than {max_shape:.4g}")

    def require(self, minimum: int) -> None:
        """Raise DataError if fewer than ``minimum`` frames are left."""
        if len(self.frames) < minimum:
            reasons = "; ".join(sorted({str(item["reason"]) for item in self.rejected})) or "no more were given"
            raise DataError(
                f"{self.kind} of detector {self.detector.id}: {len(self.frames)} usable frames, "
                f"needs {minimum} ({reasons})"
            )

    def values(self, frame: Frame) -> Float32Image:
        """Return the prepared pixels of a frame, from memory if kept there."""
        if frame.pixels is not None:
            return frame.pixels
        return self._prepared(frame.source() if callable(frame.source) else frame.source)[0]

    def stack(
        self, noise_of: Callable[[Frame, str], FrameNoise], *, scale_of: Callable[[Frame], float], n_sigma: float
    ) -> Stack:
        """Average the frames, each divided by its scale.

        ``noise_of`` gives the noise of a frame's scaled values in the amplifier of that name.
        """
        shape = (self.detector.shape[0], self.detector.shape[1])
        total = empty_stack(shape)
        scales = [np.float32(scale_of(frame)) for frame in self.frames]
        for band in row_bands(shape, n_frames=len(self.frames), memory_mb=0.25 * self.memory_mb):
            values = np.stack(
                [self.values(frame)[band] / scale for frame, scale in zip(self.frames, scales, strict=True)]
            )
            for amplifier in self.detector.amplifiers:
                rows, columns = parse_section(amplifier.detector_section)
                first, last = max(rows.start, band.start), min(rows.stop, band.stop)
                if first >= last:
                    continue
                noise = [noise_of(frame, amplifier.name) for frame in self.frames]
                part = values[:, first - band.start : last - band.start, columns]
                total.put((slice(first, last), columns), stack_values(part, noise=noise, n_sigma=n_sigma))
        return total

    def metadata(self) -> dict[str, Any]:
        """Return what went in and what did not."""
        times = [frame.info.mjd_tai for frame in self.frames]
        return {
            "inputs": [frame.info.exposure_id for frame in self.frames],
            "rejected": self.rejected,
            "mjd_first": min(times),
            "mjd_last": max(times),
            "levels": [frame.level for frame in self.frames],
        }

    @property
    def mjd_tai(self) -> float:
        """Mean time of the frames in use."""
        return float(np.mean([frame.info.mjd_tai for frame in self.frames]))

    def typical_level(self) -> tuple[float, float]:
        """Return median and robust scatter of the frames' levels."""
        return median_and_sigma([frame.level for frame in self.frames])

    def read_noise_adu(self, frame: Frame, amplifier: str) -> float:
        """Return the overscan's read noise of a frame, else the camera's, ADU."""
        if amplifier in frame.read_noise_adu and np.isfinite(frame.read_noise_adu[amplifier]):
            return frame.read_noise_adu[amplifier]
        known = next(a for a in self.detector.amplifiers if a.name == amplifier)
        return known.read_noise / known.gain

    def _check(self, raw: RawDetector) -> None:
        if raw.detector.id != self.detector.id:
            raise DataError(f"frame is of detector {raw.detector.id}, not {self.detector.id}")
        if raw.info.observation_type != self.kind:
            raise DataError(f"frame is a {raw.info.observation_type}, not a {self.kind}")

    def _prepared(self, raw: RawDetector) -> tuple[Float32Image, dict[str, float], float]:
        raw = read_with_gains(raw, {a.name: a.gain for a in self.detector.amplifiers})
        assembled = assemble(
            raw, overscan=self.overscan, unit=self.unit, keep_pedestal=self.keep_pedestal, electronics=self.electronics
        )
        is_saturated = (assembled.mask & int(MaskPlane.SATURATED)) != 0
        assembled.image[(assembled.mask != 0)] = np.nan
        noises = {name: level.read_noise for name, level in assembled.overscans.items()}
        return self.prepare(assembled.image, raw.info), noises, float(is_saturated.mean())

    def _reject_unread(self, number: int, reason: str) -> None:
        self.rejected.append({"frame": number, "reason": reason})


def masked_stack(stack: Stack, is_bad: NDArray[np.bool_]) -> MaskedImage:
    """Return mean and variance of a stack with BAD where said and NO_DATA where no frame was used."""
    mask = is_bad * int(MaskPlane.BAD) | (stack.n_used == 0) * int(MaskPlane.BAD | MaskPlane.NO_DATA)
    return MaskedImage(stack.mean, stack.variance, mask.astype(np.int32))


def columns_of(detector: Detector) -> Columns:
    """Return where the columns of a detector run and end."""
    return Columns(0 if detector.readout_axis == "y" else 1, detector.readout_blocks)


def unchanged(image: Float32Image, _: ExposureInfo) -> Float32Image:
    """Return the frame as it is: nothing to prepare."""
    return image


def _block_medians(image: Float32Image, block: int = 64) -> Float32Image:
    """Return medians of blocks, from every second pixel each way."""
    ny, nx = (max(1, n // block) for n in image.shape)
    rows, columns = np.array_split(np.arange(image.shape[0]), ny), np.array_split(np.arange(image.shape[1]), nx)
    medians = np.empty((ny, nx), np.float32)
    for i, y in enumerate(rows):
        for j, x in enumerate(columns):
            part = image[y[0] : y[-1] + 1 : 2, x[0] : x[-1] + 1 : 2]
            finite = part[np.isfinite(part)]
            medians[i, j] = np.median(finite) if finite.size else np.nan
    return medians
