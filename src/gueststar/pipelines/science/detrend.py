"""Raw counts of a detector to electrons of the sky, with variance and mask."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from gueststar.algorithms.background.estimate import Background, BackgroundConfig, estimate_background
from gueststar.algorithms.detrend.assemble import place_amplifier_in_place
from gueststar.algorithms.detrend.calibrate import divide_by_flat_in_place, model_variance, subtract_in_place
from gueststar.algorithms.detrend.overscan import OverscanConfig, OverscanLevel, OverscanStrip, measure_overscan
from gueststar.core.bits import UNUSABLE, MaskPlane
from gueststar.core.errors import ConfigError, DataError
from gueststar.model.calibration import CalibrationMaster
from gueststar.model.camera import parse_section
from gueststar.model.image import Float32Image, MaskedImage, MaskImage
from gueststar.model.raw import AmplifierPixels, RawDetector


@dataclass(frozen=True)
class DetrendConfig:
    """How raw exposures are detrended."""

    overscan: OverscanConfig = field(default_factory=OverscanConfig)
    sky: BackgroundConfig = field(default_factory=lambda: BackgroundConfig(iterations=3))
    """Of the sky that variance and cosmic rays are judged by (not subtracted)."""
    read_noise_tolerance: float = 0.5
    """Read noise measured in the overscan is used unless it is off the camera's by more than this fraction."""


class DetrendedImage(NamedTuple):
    """A detrended exposure of one detector."""

    pixels: MaskedImage
    """Electrons with the sky still in."""
    metrics: dict[str, Any]
    """What was measured and which calibrations were used; plain values, JSON-able."""


class Detrend:
    """Remove what the camera added, mark what cannot be trusted, and say how certain each pixel is."""

    def __init__(self, config: DetrendConfig = DetrendConfig()) -> None:
        self.config = config

    def run(
        self,
        raw: RawDetector,
        *,
        bias: CalibrationMaster | None = None,
        dark: CalibrationMaster | None = None,
        flat: CalibrationMaster | None = None,
    ) -> DetrendedImage:
        """Detrend one raw detector image; any calibration may be missing, and the metrics then say so.

        Raises DataError for pixels that cannot be used, ConfigError for masters that are not this detector's
        or filter's.
        """
        _check_masters(raw, bias=bias, dark=dark, flat=flat)
        image, mask, levels = assemble(raw, overscan=self.config.overscan, is_bias_given=bias is not None)
        gains = {a.amplifier.name: a.amplifier.gain for a in raw.amplifiers}
        _remove_calibrations(raw, image, mask, bias=bias, dark=dark, flat=flat)
        sky = self._measure_sky(image, mask)
        variance = np.empty_like(image)
        noises = {}
        for part in raw.amplifiers:
            name = part.amplifier.name
            noises[name] = self._read_noise(part, levels.get(name))
            target = parse_section(part.amplifier.detector_section)
            variance[target] = model_variance(image[target], sky.level[target], read_variance=noises[name] ** 2)
        metrics: dict[str, Any] = {
            "overscan_level_adu": {name: level.level for name, level in levels.items()},
            "read_noise": noises,
            "gain": gains,
            "sky_level": float(np.median(sky.mesh_level)),
            "sky_rms": float(np.median(sky.mesh_rms)),
            "n_saturated": int(np.count_nonzero(mask & int(MaskPlane.SATURATED))),
            "fraction_masked": float(np.mean((mask & int(UNUSABLE)) != 0)),
            "calibrations": {
                name: {"mjd_tai": master.mjd_tai, "age_days": raw.info.mjd_tai - master.mjd_tai}
                for name, master in (("bias", bias), ("dark", dark), ("flat", flat))
                if master is not None
            },
        }
        return DetrendedImage(MaskedImage(image, variance, mask), metrics)

    def _measure_sky(self, image: Float32Image, mask: MaskImage) -> Background:
        try:
            return estimate_background(image, (mask & int(UNUSABLE)) != 0, config=self.config.sky)
        except ValueError as error:
            raise DataError(f"exposure has no usable pixels: {error}") from None

    def _read_noise(self, part: AmplifierPixels, level: OverscanLevel | None) -> float:
        """Return the measured read noise in electrons, or the camera's where the measured is not believable."""
        expected = part.amplifier.read_noise
        measured = level.read_noise * part.amplifier.gain if level else float("nan")
        is_believable = abs(measured - expected) <= self.config.read_noise_tolerance * expected
        return measured if is_believable else expected


def assemble(
    raw: RawDetector, *, overscan: OverscanConfig, is_bias_given: bool = False
) -> tuple[Float32Image, MaskImage, dict[str, OverscanLevel]]:
    """Return electrons and mask of the assembled detector, zero level removed, and the overscan of each amplifier.

    An amplifier without overscan keeps its pedestal if a bias master will remove it, else loses ``bias_level``.
    """
    image = np.empty(raw.detector.shape, np.float32)
    mask = np.empty(raw.detector.shape, np.int32)
    levels: dict[str, OverscanLevel] = {}
    for part in raw.amplifiers:
        amplifier = part.amplifier
        n_rows = part.data.shape[0]
        if part.overscans:
            level = measure_overscan(_strips(part), n_rows=n_rows, config=overscan)
            levels[amplifier.name] = level
            row_level = level.row_level
        else:
            row_level = np.full(n_rows, 0.0 if is_bias_given else amplifier.bias_level, np.float32)
        place_amplifier_in_place(
            image, mask, data=part.data, row_level=row_level, target=parse_section(amplifier.detector_section),
            flip_x=amplifier.flip_x, flip_y=amplifier.flip_y, gain=amplifier.gain, saturation=amplifier.saturation,
        )  # fmt: skip
    return image, mask, levels


def _strips(part: AmplifierPixels) -> list[OverscanStrip]:
    first_data_row = parse_section(part.amplifier.data_section)[0].start
    return [
        OverscanStrip(pixels, parse_section(region.section)[0].start - first_data_row)
        for region, pixels in zip(part.amplifier.overscans, part.overscans, strict=True)
    ]


def _check_masters(raw: RawDetector, **masters: CalibrationMaster | None) -> None:
    for name, master in masters.items():
        if master is None:
            continue
        if master.detector_id != raw.detector.id:
            raise ConfigError(f"{name} master is of detector {master.detector_id}, exposure of {raw.detector.id}")
        if master.pixels.shape != tuple(raw.detector.shape):
            raise ConfigError(f"{name} master is {master.pixels.shape}, detector {raw.detector.shape}")
        if name == "flat" and master.physical_filter != raw.info.physical_filter:
            raise ConfigError(f"flat is of filter {master.physical_filter}, exposure of {raw.info.physical_filter}")


def _remove_calibrations(
    raw: RawDetector,
    image: Float32Image,
    mask: MaskImage,
    *,
    bias: CalibrationMaster | None,
    dark: CalibrationMaster | None,
    flat: CalibrationMaster | None,
) -> None:
    if bias is not None:
        for part in raw.amplifiers:
            target = parse_section(part.amplifier.detector_section)
            subtract_in_place(image[target], bias.pixels.image[target], factor=part.amplifier.gain)
    if dark is not None:
        subtract_in_place(image, dark.pixels.image, factor=raw.info.exposure_s)
    if flat is not None:
        divide_by_flat_in_place(image, mask, flat.pixels.image)
    for master in (bias, dark, flat):
        if master is not None:
            mask |= master.pixels.mask & int(MaskPlane.BAD)
