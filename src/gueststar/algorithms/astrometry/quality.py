"""Figures by which a solution is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from gueststar.algorithms.astrometry.config import AstrometryConfig
from gueststar.algorithms.astrometry.plane_fit import largest_error
from gueststar.algorithms.astrometry.polynomial import PlaneMap
from gueststar.algorithms.astrometry.refinement import MeasuredPoints
from gueststar.algorithms.astrometry.refraction import Air, zenith_distance_deg
from gueststar.algorithms.astrometry.solve import PlaneSolution, sky_of
from gueststar.algorithms.astrometry.tangent import tangent_project

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class AstrometryMetrics:
    """Figures of a solution; errors and residuals are on the sky."""

    n_sources: int
    n_reference: int
    """Catalog stars that fall on the detector."""
    n_matches: int
    """Sources with a catalog star at their place."""
    n_fitted: int
    """Matches that the fit used."""
    rms_ra_mas: float
    """Of the fitted matches."""
    rms_dec_mas: float
    rms_bright_ra_mas: float
    """Of the quarter of them with the smallest errors: the bright, clean ones."""
    rms_bright_dec_mas: float
    systematic_mas: float
    """Error per axis that the scatter asks for beyond the given errors."""
    reduced_chi2: float
    """With the given errors alone."""
    order: int
    """Of the fitted correction; 0: shift, rotation and scale only."""
    pointing_offset_arcsec: float
    """Of the detector's centre from where the start had it."""
    pointing_offset_ra_arcsec: float
    """Along right ascension, on the sky, true minus start."""
    pointing_offset_dec_arcsec: float
    rotation_deg: float
    """True minus start, counter-clockwise in the plane (from +xi, east, to +eta, north)."""
    scale_ratio: float
    """Pixel scale over the start's."""
    shear: float
    """Ratio of the larger to the smaller stretch of the linear part against the start's, less 1."""
    coverage: float
    """Part of the detector's area within the convex hull of the fitted matches."""
    largest_error_mas: float
    """Formal error per axis where it is largest on the detector."""
    scale_variation: float
    """Largest relative change of the local pixel scale over the detector."""
    log10_false_probability: float
    """Of the chance that an unrelated field had matched as well anywhere within the tolerances."""
    is_mirrored: bool
    """The parity is the opposite of the start's."""
    is_prior_held: bool = False
    """A learned distortion held the fit; false if there was none or the stars refuted it."""
    chromatic_mas: float | None = None
    """How much nearer to the zenith stars bluer by 1 mag are seen where tan z is 1; None: not corrected."""
    chromatic_err_mas: float | None = None
    displacement_mas: float | None = None
    """Rms per axis of the air's displacement that was taken out of the catalogs' positions; None: none."""
    displacement_length_arcsec: float | None = None
    """Where its correlation falls to a half."""
    displacement_gain: float | None = None
    """By what fraction the variance of stars that were kept aside became smaller."""
    zenith_distance_deg: float | None = None
    """Of the detector's centre; None: the air was not known, and differential refraction not corrected."""


class LinearChange(NamedTuple):
    """How the linear part of a map differs from that of another."""

    rotation_deg: float
    """Counter-clockwise in the plane."""
    scale: float
    """Ratio of the pixel scales (root of the area's)."""
    shear: float
    """Ratio of the larger to the smaller stretch, less 1."""


def linear_change(before: Floats, after: Floats) -> LinearChange:
    """Return rotation, scale and shear of ``after`` against ``before`` (2 x 2 each, same parity)."""
    change = after @ np.linalg.inv(before)
    left, stretch, right = np.linalg.svd(change)
    turn = left @ right
    rotation = float(np.degrees(np.arctan2(turn[1, 0] - turn[0, 1], turn[0, 0] + turn[1, 1])))
    return LinearChange(rotation, float(np.sqrt(stretch[0] * stretch[1])), float(stretch[0] / stretch[1] - 1.0))


def covered_fraction(x: Floats, y: Floats, shape: tuple[int, int]) -> float:
    """Return the area of the points' convex hull over that of the detector (0 if they lie on a line)."""
    if x.size < 3:
        return 0.0
    try:
        return float(ConvexHull(np.stack([x, y], axis=1)).volume / (shape[0] * shape[1]))
    except QhullError:
        return 0.0


def scale_variation(plane_map: PlaneMap, shape: tuple[int, int]) -> float:
    """Return the largest relative difference of the local pixel scale from the centre's, over the detector.

    Infinite where the map folds over.
    """
    x, y = (g.ravel() for g in np.meshgrid(np.linspace(0, shape[1] - 1, 9), np.linspace(0, shape[0] - 1, 9)))
    area = np.linalg.det(plane_map.jacobian(x, y)) / np.linalg.det(plane_map.matrix)
    if np.any(area <= 0.0):
        return float("inf")
    return float(np.max(np.abs(np.sqrt(area) - 1.0)))


def rms(values: Floats) -> float:
    """Return the root mean square, NaN of nothing."""
    return float(np.sqrt(np.mean(values**2))) if values.size else float("nan")


def measure_quality(
    solution: PlaneSolution, *, points: MeasuredPoints, shape: tuple[int, int], air: Air | None = None
) -> AstrometryMetrics:
    """Return the figures of a solution of ``points``, seen through ``air``."""
    fit, plane_map, verdict = solution.refined.fit, solution.plane_map, solution.pointing.verdict
    used = fit.is_used
    fitted = solution.paired[used]
    residuals, variance = fit.residuals[used], solution.refined.variance[used]
    order = np.argsort(variance.sum(axis=1), kind="stable")
    best = order[: max(min(10, order.size), order.size // 4)]
    moved = solution.displacement
    offset, chromatic = _pointing_offset(solution), solution.chromatic
    is_corrected = chromatic.reference_colour is not None
    change = linear_change(solution.pointing.start.matrix, plane_map.matrix)
    return AstrometryMetrics(
        n_sources=points.x.size,
        n_reference=solution.n_on_detector,
        n_matches=solution.matches.point.size,
        n_fitted=int(used.sum()),
        rms_ra_mas=1000.0 * rms(residuals[:, 0]),
        rms_dec_mas=1000.0 * rms(residuals[:, 1]),
        rms_bright_ra_mas=1000.0 * rms(residuals[best, 0]),
        rms_bright_dec_mas=1000.0 * rms(residuals[best, 1]),
        systematic_mas=1000.0 * fit.floor,
        reduced_chi2=float((residuals**2 / variance).sum() / max(residuals.size - fit.n_parameters, 1.0)),
        order=fit.order,
        pointing_offset_arcsec=float(np.hypot(*offset)),
        pointing_offset_ra_arcsec=float(offset[0]),
        pointing_offset_dec_arcsec=float(offset[1]),
        rotation_deg=change.rotation_deg,
        scale_ratio=change.scale,
        shear=change.shear,
        coverage=covered_fraction(points.x[fitted], points.y[fitted], shape),
        largest_error_mas=1000.0 * _largest_error(solution, points, shape),
        scale_variation=scale_variation(plane_map, shape),
        log10_false_probability=verdict.log10_false_probability if verdict else 0.0,
        is_mirrored=solution.pointing.is_mirrored,
        is_prior_held=fit.precision is not None,
        chromatic_mas=1000.0 * chromatic.arcsec if is_corrected else None,
        chromatic_err_mas=1000.0 * chromatic.error_arcsec if is_corrected else None,
        displacement_mas=None if moved is None else 1000.0 * rms(moved.values),
        displacement_length_arcsec=None if moved is None else moved.correlation.half_distance * _pixel_scale(plane_map),
        displacement_gain=None if moved is None else moved.gain,
        zenith_distance_deg=None if air is None else zenith_distance_deg(air, solution.centre),
    )


def _pixel_scale(plane_map: PlaneMap) -> float:
    return float(np.sqrt(abs(np.linalg.det(plane_map.matrix))))


def _largest_error(solution: PlaneSolution, points: MeasuredPoints, shape: tuple[int, int]) -> float:
    fit, rows = solution.refined.fit, solution.paired
    return largest_error(fit, points.x[rows], points.y[rows], solution.refined.variance, shape)


def _pointing_offset(solution: PlaneSolution) -> Floats:
    """Return where the detector's centre is on the plane about where the start had it, arcsec."""
    ra, dec = sky_of(solution.plane_map.coefficients[:, 0], solution.centre)
    ra0, dec0 = solution.start_centre
    return 3600.0 * np.array(tangent_project(np.array(ra), np.array(dec), ra0=ra0, dec0=dec0))


def reasons_to_refuse(
    metrics: AstrometryMetrics, *, pixel_scale: float, scale_tolerance: float, config: AstrometryConfig
) -> list[str]:
    """Return what is wrong with a solution, in words with figures; nothing if it is good.

    ``pixel_scale`` in arcsec.
    """
    best = max(metrics.rms_bright_ra_mas, metrics.rms_bright_dec_mas) / 1000.0
    limit = config.max_rms_pixel * pixel_scale
    checks = (
        (metrics.n_fitted < config.min_matches, f"fewer than {config.min_matches} matches"),
        (not best <= limit, f"rms {best:.2f} arcsec of the best ones (limit {limit:.2f})"),
        (metrics.coverage < config.min_coverage, f"they cover {metrics.coverage:.0%} of the detector"),
        (
            metrics.largest_error_mas / 1000.0 > limit,
            f"formal error up to {metrics.largest_error_mas / 1000.0:.2f} arcsec on the detector (limit {limit:.2f})",
        ),
        (
            abs(metrics.scale_ratio - 1.0) > 1.1 * scale_tolerance + 0.001,
            f"pixel scale is {metrics.scale_ratio:.4f} of the camera's (tolerance {scale_tolerance:.0%})",
        ),
        (metrics.shear > config.max_shear, f"axes differ by {metrics.shear:.1%}"),
        (
            metrics.scale_variation > config.max_scale_variation,
            f"pixel scale varies by {metrics.scale_variation:.1%} over the detector",
        ),
    )
    return [text for is_wrong, text in checks if is_wrong]
