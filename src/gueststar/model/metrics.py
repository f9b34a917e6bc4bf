"""Quality metrics by name: unit, meaning and the thresholds that colour them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from gueststar.model.camera import Camera


class Grade(StrEnum):
    """How a value stands against its thresholds."""

    GOOD = "good"
    FAIR = "fair"
    POOR = "poor"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Metric:
    """One named quality metric of a detector image."""

    name: str
    unit: str
    doc: str
    fair: float | None = None
    """Worse than this is fair, not good; None: not graded."""
    poor: float | None = None
    """Worse than this is poor."""
    is_higher_better: bool = False
    is_signed: bool = False
    """Zero is best: the size decides, whatever the sign."""
    is_relative_to: str | None = None
    """``fwhm``: thresholds multiply the camera's typical FWHM; ``depth``: they are added to its typical depth;
    ``pixel``: they multiply the pixel scale in mas."""

    def thresholds(self, camera: Camera) -> tuple[float, float] | None:
        """Return (fair, poor) in the metric's unit for one camera; None if the metric is not graded."""
        if self.fair is None or self.poor is None:
            return None
        if self.is_relative_to == "fwhm":
            return self.fair * camera.typical_fwhm_arcsec, self.poor * camera.typical_fwhm_arcsec
        if self.is_relative_to == "depth":
            return self.fair + camera.typical_depth_mag, self.poor + camera.typical_depth_mag
        if self.is_relative_to == "pixel":
            scale = camera.pixel_scale_arcsec * 1000.0
            return self.fair * scale, self.poor * scale
        return self.fair, self.poor

    def grade(self, value: float | None, camera: Camera) -> Grade:
        """Return the grade of a value."""
        limits = self.thresholds(camera)
        if limits is None or value is None or not math.isfinite(value):
            return Grade.UNKNOWN
        value = abs(value) if self.is_signed else value
        sign = -1.0 if self.is_higher_better else 1.0
        if sign * value > sign * limits[1]:
            return Grade.POOR
        return Grade.FAIR if sign * value > sign * limits[0] else Grade.GOOD


METRICS: tuple[Metric, ...] = (
    Metric("fwhm_arcsec", "arcsec", "width of the PSF at the detector's middle", 1.4, 2.2, is_relative_to="fwhm"),
    Metric(
        "psf_size_residual", "", "(measured - model) / measured PSF size, reserved stars", 0.02, 0.08, is_signed=True
    ),
    Metric("psf_ellipticity_residual", "", "measured - model ellipticity, reserved stars, modulus", 0.01, 0.04),
    Metric("sky_electrons", "electron", "sky level per pixel"),
    Metric("sky_rms_electrons", "electron", "pixel noise of the sky"),
    Metric("n_sources", "", "sources in the PSF catalog"),
    Metric("n_astrometric_matches", "", "catalog stars in the astrometric solution", 15, 6, is_higher_better=True),
    Metric(
        "astrometric_rms_mas",
        "mas",
        "scatter of bright stars about the solution, per axis",
        0.10,
        0.35,
        is_relative_to="pixel",
    ),
    Metric("zero_point", "mag", "AB magnitude of one electron per exposure"),
    Metric("zero_point_err", "mag", "its error", 0.02, 0.06),
    Metric("zero_point_rms_mag", "mag", "scatter of the calibrators", 0.05, 0.15),
    Metric(
        "colour_term_excess",
        "",
        "colour term less the filter's expected one; if large, another catalog band is in use",
        0.3,
        0.6,
        is_signed=True,
    ),
    Metric("cloud_extinction_mag", "mag", "zero point of a clear sky less that of the exposure", 0.1, 0.5),
    Metric(
        "zero_point_structure_mag", "mag", "change of the zero point from place to place, beyond noise (rms)", 0.03, 0.1
    ),
    Metric("n_calibrators", "", "stars in the photometric solution", 10, 4, is_higher_better=True),
    Metric("limiting_mag_worst", "mag", "5-sigma point source where the image is shallowest (one mesh in twenty)"),
    Metric(
        "limiting_mag",
        "mag",
        "5-sigma point source, typical place of the image",
        -0.7,
        -2.0,
        is_higher_better=True,
        is_relative_to="depth",
    ),
    Metric(
        "completeness_50_mag",
        "mag",
        "at which half of artificial stars are found in the catalog",
        -0.7,
        -2.0,
        is_higher_better=True,
        is_relative_to="depth",
    ),
    Metric("injection_flux_bias", "", "median fractional error of artificial stars' flux", 0.02, 0.05, is_signed=True),
    Metric("fraction_masked", "", "pixels that carry no usable flux", 0.05, 0.2),
    Metric("registration_rms_pixel", "pixel", "scatter of stars between reference and science", 0.15, 0.4),
    Metric("score_sigma", "", "rms of the score before it is brought to one (1: the noise is understood)", 1.05, 1.2),
    Metric(
        "difference_limiting_mag",
        "mag",
        "5-sigma on the difference",
        -1.0,
        -2.3,
        is_higher_better=True,
        is_relative_to="depth",
    ),
    Metric(
        "difference_completeness_50_mag",
        "mag",
        "at which half of artificial stars are found on the difference",
        -1.0,
        -2.3,
        is_higher_better=True,
        is_relative_to="depth",
    ),
    Metric(
        "difference_injection_flux_bias",
        "",
        "median fractional error of their fluxes on the difference",
        0.03,
        0.08,
        is_signed=True,
    ),
    Metric("n_candidates", "", "detections on the difference, both signs", 300, 2000),
    Metric("n_streaks", "", "likely streaks of satellites and fast asteroids"),
    Metric("n_alerts", "", "alerts", 200, 1500),
    Metric("cpu_s", "s", "CPU seconds spent on the detector image"),
    Metric("peak_rss_mb", "MB", "highest memory of the worker"),
)
"""Every metric that the nightly account shows."""

METRICS_BY_NAME = {metric.name: metric for metric in METRICS}
