"""Raw counts of a detector to electrons of the sky, with variance and mask."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.background.estimate import Background, BackgroundConfig, estimate_background
from gueststar.algorithms.detrend.calibrate import (
    divide_by_flat_in_place,
    model_variance,
    subtract_in_place,
)
from gueststar.algorithms.detrend.cosmic_rays import CosmicRayConfig, remove_cosmic_rays_in_place
from gueststar.algorithms.detrend.edges import EdgeConfig, EdgeLines, mark_edges_in_place
from gueststar.algorithms.detrend.groups import add_bits_in_place, count_any, has_any, pixels_with
from gueststar.algorithms.detrend.interpolate import interpolate_in_place
from gueststar.algorithms.detrend.overscan import OverscanConfig, OverscanLevel
from gueststar.algorithms.detrend.satellites import find_trails, trail_pixels
from gueststar.algorithms.detrend.saturation import mark_bleeding_in_place
from gueststar.algorithms.detrend.spikes import SpikeConfig, Spikes, find_spikes
from gueststar.algorithms.detrend.star_sharpness import measure_star_sharpness
from gueststar.algorithms.detrend.trail_shape import Trail, TrailConfig
from gueststar.algorithms.illumination.fringe_fit import FringeFitConfig, fit_fringes, subtract_patterns_in_place
from gueststar.algorithms.response.brighter_fatter import BrighterFatterConfig, correct_brighter_fatter_in_place
from gueststar.algorithms.response.charge_transfer import ChargeTransferConfig
from gueststar.core.bits import UNUSABLE, MaskPlane
from gueststar.core.errors import ConfigError, DataError
from gueststar.model.calibration import (
    KINDS,
    NO_CALIBRATIONS,
    CalibrationKind,
    CalibrationMaster,
    Calibrations,
)
from gueststar.model.camera import Amplifier, Detector, parse_section
from gueststar.model.image import Float32Image, MaskedImage, MaskImage
from gueststar.model.raw import RawDetector
from gueststar.pipelines.assembly import assemble
from gueststar.pipelines.calibration._prepare import check_belongs, correct_shutter_in_place, subtract_bias_in_place
from gueststar.pipelines.calibration.fringe import patterns_of
from gueststar.pipelines.electronics import electronics_of, gains_of, read_with_gains
from gueststar.pipelines.science.deferred_charge import mark_deferred_charge
from gueststar.pipelines.science.doubtful_response import doubtful_response

_USUAL: tuple[CalibrationKind, ...] = ("bias", "dark", "flat")
_DEFECTS = int(MaskPlane.BAD | MaskPlane.NO_DATA)
_DOUBTFUL = int(UNUSABLE | MaskPlane.SUSPECT | MaskPlane.EDGE)
_CHARGED = int(MaskPlane.SATURATED | MaskPlane.BLEED)


@dataclass(frozen=True)
class DetrendConfig:
    """How raw exposures are detrended."""

    overscan: OverscanConfig = field(default_factory=OverscanConfig)
    sky: BackgroundConfig = field(default_factory=lambda: BackgroundConfig(box=256, iterations=3))
    """Of the sky by which variance, cosmic rays and trails are judged (it is not subtracted)."""
    cosmic_rays: CosmicRayConfig | None = field(default_factory=CosmicRayConfig)
    """None: no search for cosmic rays."""
    spikes: SpikeConfig | None = field(default_factory=SpikeConfig)
    """Of diffraction spikes, which are as sharp as rays. None: no search for them."""
    trails: TrailConfig | None = field(default_factory=TrailConfig)
    """None: no search for satellite trails."""
    saturation_margin: int = 1
    """Pixels around saturated and bled ones that are marked with them."""
    min_response: float = 0.1
    """Pixels whose flat is below this are BAD: too little light reaches them."""
    max_flat_error: float = 0.05
    """Pixels whose flat is known no better than this fraction are SUSPECT."""
    fringes: FringeFitConfig = field(default_factory=FringeFitConfig)
    """How the strength of fringes is fitted, where the filter has a fringe product."""
    brighter_fatter: BrighterFatterConfig = field(default_factory=BrighterFatterConfig)
    """Of the correction, where there is a kernel."""
    charge_transfer: ChargeTransferConfig = field(default_factory=ChargeTransferConfig)
    """Of the flags, where charge transfer was measured."""
    edges: EdgeConfig = field(default_factory=EdgeConfig)
    """What of the detector's rim is EDGE."""
    read_noise_tolerance: float = 0.5
    """Read noise measured in the overscan is used unless it is off the camera's by more than this fraction."""
    max_saturated_fraction: float = 0.5
    """An exposure with more saturated pixels than this is refused."""


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

    def run(self, raw: RawDetector, calibrations: Calibrations = NO_CALIBRATIONS) -> DetrendedImage:
        """Detrend one raw detector image; any calibration may be missing, and the metrics then say so.

        Bad pixels and cosmic rays are replaced by the mean of good neighbours, where there are any, for the sake
        of what convolves the image; they stay marked, with INTERPOLATED added. Saturated pixels keep
        their values. Raises DataError for pixels that cannot be used, ConfigError for masters that are not this
        detector's or filter's.
        """
        _check_belonging(raw, calibrations)
        raw = read_with_gains(raw, gains_of(calibrations))
        image, mask, overscans = assemble(
            raw, overscan=self.config.overscan, unit="electron", keep_pedestal=calibrations.bias is not None,
            electronics=electronics_of(calibrations, raw.detector),
        )  # fmt: skip
        n_deferred = mark_deferred_charge(
            mask, image, raw.detector, calibrations.charge_transfer, config=self.config.charge_transfer
        )
        moved = self._remove_calibrations(raw, image, mask, calibrations)
        self._require_light(mask)
        _fill_defects_in_place(image, mask)
        edge_metrics = self._mark_doubtful(raw.detector, mask, calibrations.flat)
        sky = self._measure_sky(image, mask)
        fringe_metrics = self._remove_fringes(image, mask, sky, calibrations.fringe)
        n_saturated = mark_bleeding_in_place(
            mask, image, sky.level, sky.rms, readout_axis=raw.detector.readout_axis,
            margin=self.config.saturation_margin,
        )  # fmt: skip
        ray_metrics = self._remove_cosmic_rays(raw.detector, image, mask, sky)
        trails = self._mark_trails(image, mask, sky)
        read_noise = {
            part.amplifier.name: self._read_noise(part.amplifier, overscans.get(part.amplifier.name))
            for part in raw.amplifiers
        }
        variance = _variance(raw, image, sky.level, read_noise, calibrations)
        metrics = {
            **_overscan_metrics(overscans),
            "read_noise": read_noise,
            "gain": {part.amplifier.name: part.amplifier.gain for part in raw.amplifiers},
            "sky_level": float(np.median(sky.mesh_level)),
            "sky_rms": float(np.median(sky.mesh_rms)),
            "n_saturated": n_saturated,
            "n_deferred_charge": n_deferred,
            "brighter_fatter_largest": moved,
            **edge_metrics,
            **ray_metrics,
            **fringe_metrics,
            "n_satellite_trails": len(trails),
            "satellite_trails": [list(trail) for trail in trails],
            "fraction_masked": count_any(mask, int(UNUSABLE)) / mask.size,
            **_calibration_metrics(raw, calibrations),
        }
        return DetrendedImage(MaskedImage(image, variance, mask), metrics)

    def _remove_calibrations(
        self, raw: RawDetector, image: Float32Image, mask: MaskImage, known: Calibrations
    ) -> float | None:
        """Take out what the camera added; return the largest charge that repulsion had moved, None if not corrected.

        Repulsion is a matter of the charge that was in the pixels: so before the flat evens out their response.
        """
        moved = None
        subtract_bias_in_place(image, raw.detector, known.bias)
        if known.dark is not None:
            subtract_in_place(image, known.dark.pixels.image, factor=raw.info.exposure_s)
        if known.brighter_fatter is not None:
            kernel = known.brighter_fatter.column("kernel", "potential")
            moved = correct_brighter_fatter_in_place(image, kernel, config=self.config.brighter_fatter)
        if known.shutter is not None:
            correct_shutter_in_place(image, known.shutter, raw.info.exposure_s)
        for response in (known.flat, known.illumination):
            if response is not None:
                divide_by_flat_in_place(image, mask, response.pixels.image, min_response=self.config.min_response)
        for product in known:
            if isinstance(product, CalibrationMaster):
                add_bits_in_place(mask, product.pixels.mask, int(MaskPlane.BAD))
        return moved

    def _mark_doubtful(self, detector: Detector, mask: MaskImage, flat: CalibrationMaster | None) -> dict[str, Any]:
        """Mark what the camera or the flat say of edge, vignetting and poorly known response; return what was found."""
        border = detector.edge_pixels
        lines = EdgeLines(border, border, border, border)
        fraction = 0.0
        if flat is not None:
            doubtful = doubtful_response(flat, edges=self.config.edges, max_error=self.config.max_flat_error)
            doubtful.mark_in_place(mask)
            lines = EdgeLines(*(max(border, found) for found in doubtful.lines))
            fraction = doubtful.vignetted_fraction
        mark_edges_in_place(mask, lines, int(MaskPlane.EDGE))
        return {"edge_lines": lines._asdict(), "vignetted_fraction": fraction}

    def _require_light(self, mask: MaskImage) -> None:
        saturated = count_any(mask, int(MaskPlane.SATURATED)) / mask.size
        if saturated > self.config.max_saturated_fraction:
            raise DataError(f"{saturated:.0%} of the pixels are saturated")

    def _measure_sky(self, image: Float32Image, mask: MaskImage) -> Background:
        try:
            return estimate_background(image, has_any(mask, int(UNUSABLE)), config=self.config.sky)
        except ValueError as error:
            raise DataError(f"exposure has no usable pixels: {error}") from None

    def _remove_fringes(
        self, image: Float32Image, mask: MaskImage, sky: Background, fringe: CalibrationMaster | None
    ) -> dict[str, Any]:
        """Fit the detector's fringe patterns and take them out where they are significant; return what was fitted."""
        if fringe is None:
            return {}
        patterns = patterns_of(fringe)
        fit = fit_fringes(image - sky.level, has_any(mask, _DOUBTFUL), patterns, config=self.config.fringes)
        is_removed = fit.significance >= self.config.fringes.min_significance
        if is_removed:
            subtract_patterns_in_place(image, patterns, fit.amplitudes)
        return {
            "fringe": {
                "amplitudes": fit.amplitudes.tolist(),
                "errors": fit.errors.tolist(),
                "significance": fit.significance,
                "is_removed": is_removed,
                "rms_before": fit.rms_before,
                "rms_after": fit.rms_after,
            }
        }

    def _remove_cosmic_rays(
        self, detector: Detector, image: Float32Image, mask: MaskImage, sky: Background
    ) -> dict[str, Any]:
        """Replace and mark cosmic rays; return their number and what they were told from."""
        if self.config.cosmic_rays is None:
            return {"n_cosmic_rays": 0}
        is_excluded = has_any(mask, _DEFECTS | _CHARGED)
        spikes = self._find_spikes(detector, image, mask, sky, is_excluded)
        stars = measure_star_sharpness(image, sky.level, sky.rms, is_excluded)
        rays = remove_cosmic_rays_in_place(
            image, sky.level, sky.rms, is_excluded, neighbour_ratio=stars.neighbour_ratio,
            spikes=None if spikes is None else (spikes.y, spikes.x),
            spike_angles_deg=None if spikes is None else spikes.angles_deg, config=self.config.cosmic_rays,
        )  # fmt: skip
        mask[rays.y, rays.x] |= int(MaskPlane.COSMIC_RAY | MaskPlane.INTERPOLATED)
        metrics = {"n_cosmic_rays": rays.n_rays, "n_cosmic_ray_pixels": int(rays.y.size), "star_fwhm_hint": stars.fwhm}
        if spikes is not None:
            mask[spikes.y, spikes.x] |= int(MaskPlane.HALO)
            metrics |= {"spike_angles_deg": spikes.angles_deg.tolist(), "n_spike_pixels": int(spikes.y.size)}
        return metrics

    def _find_spikes(
        self, detector: Detector, image: Float32Image, mask: MaskImage, sky: Background, is_excluded: NDArray[np.bool_]
    ) -> Spikes | None:
        """Return the diffraction spikes of saturated stars, None where they are not to be looked for."""
        if self.config.spikes is None:
            return None
        y, x = pixels_with(mask, int(MaskPlane.SATURATED))
        return find_spikes(
            image, sky.level, sky.rms, is_excluded, saturated_y=y, saturated_x=x,
            readout_axis=detector.readout_axis, config=self.config.spikes,
        )  # fmt: skip

    def _mark_trails(self, image: Float32Image, mask: MaskImage, sky: Background) -> list[Trail]:
        """Mark satellite trails and return them."""
        if self.config.trails is None:
            return []
        is_excluded = has_any(mask, _DEFECTS | _CHARGED)
        trails = find_trails(image, sky.level, sky.rms, is_excluded, config=self.config.trails)
        for trail in trails:
            y, x = trail_pixels(trail, shape=(mask.shape[0], mask.shape[1]))
            mask[y, x] |= int(MaskPlane.SATELLITE)
        return trails

    def _read_noise(self, amplifier: Amplifier, overscan: OverscanLevel | None) -> float:
        """Return the measured read noise in electrons, or the camera's where the measured is not believable."""
        measured = overscan.read_noise * amplifier.gain if overscan is not None else math.nan
        is_believable = abs(measured - amplifier.read_noise) <= self.config.read_noise_tolerance * amplifier.read_noise
        return measured if is_believable else amplifier.read_noise


def _check_belonging(raw: RawDetector, calibrations: Calibrations) -> None:
    for product in calibrations:
        check_belongs(product, raw.detector)
        if KINDS[product.kind].is_per_filter and product.physical_filter != raw.info.physical_filter:
            raise ConfigError(
                f"{product.kind} is of filter {product.physical_filter}, exposure of {raw.info.physical_filter}: "
                f"certify a {product.kind} of that filter"
            )


def _fill_defects_in_place(image: Float32Image, mask: MaskImage) -> None:
    """Interpolate over defects from pixels that are neither defective nor saturated."""
    y, x = pixels_with(mask, _DEFECTS)
    if y.size == 0:
        return
    is_filled = interpolate_in_place(image, has_any(mask, _DEFECTS | _CHARGED), y=y, x=x)
    mask[y[is_filled], x[is_filled]] |= int(MaskPlane.INTERPOLATED)


def _variance(
    raw: RawDetector, image: Float32Image, sky: Float32Image, read_noise: dict[str, float], known: Calibrations
) -> Float32Image:
    """Return the variance plane, amplifier by amplifier, with the calibrations' own noise in it."""
    variance = np.empty_like(image)
    response = _response(known)
    for part in raw.amplifiers:
        amplifier = part.amplifier
        target = parse_section(amplifier.detector_section)
        bias, dark = (
            None if master is None else _part_of(master.pixels, target) for master in (known.bias, known.dark)
        )
        flat = None if response is None else _part_of(response, target)
        model_variance(
            image[target],
            sky[target],
            read_variance=read_noise[amplifier.name] ** 2,
            gain=amplifier.gain,
            bias_variance=None if bias is None else bias.variance,
            exposure_s=raw.info.exposure_s,
            dark_rate=None if dark is None else dark.image,
            dark_variance=None if dark is None else dark.variance,
            flat=None if flat is None else flat.image,
            flat_variance=None if flat is None else flat.variance,
            out=variance[target],
        )
    return variance


def _response(known: Calibrations) -> MaskedImage | None:
    """Return what images were divided by: the flat, times the illumination correction where there is one."""
    if known.flat is None or known.illumination is None:
        only = known.flat or known.illumination
        return None if only is None else only.pixels
    flat, correction = known.flat.pixels, known.illumination.pixels
    variance = flat.variance * correction.image**2 + flat.image**2 * correction.variance
    return MaskedImage(flat.image * correction.image, variance, flat.mask)


def _part_of(pixels: MaskedImage, part: tuple[slice, slice]) -> MaskedImage:
    """Return a view of a part of an image."""
    return MaskedImage(pixels.image[part], pixels.variance[part], pixels.mask[part])


def _overscan_metrics(overscans: dict[str, OverscanLevel]) -> dict[str, Any]:
    """Return level and read noise of each overscan, and how often the level jumped."""
    return {
        "overscan_level_adu": {name: level.level for name, level in overscans.items()},
        "overscan_noise_adu": {name: level.read_noise for name, level in overscans.items()},
        "n_bias_jumps": sum(len(level.jumps) for level in overscans.values()),
    }


def _calibration_metrics(raw: RawDetector, calibrations: Calibrations) -> dict[str, Any]:
    """Return what was used and how old it was, and which of the masters that most cameras need were missing."""
    used = {product.kind: product for product in calibrations}
    return {
        "calibrations": {
            kind: {
                "mjd_tai": product.mjd_tai,
                "age_days": raw.info.mjd_tai - product.mjd_tai,
                "n_frames": product.n_frames,
            }
            for kind, product in used.items()
        },
        "calibrations_missing": [kind for kind in _USUAL if kind not in used],
    }
