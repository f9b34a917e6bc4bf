"""Detections on the difference image, measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.algorithms.association.sky_index import unit_vectors
from gueststar.algorithms.subtraction.fine_psf import cell_centres
from gueststar.algorithms.subtraction.measure import (
    Apertures,
    BoxFeatures,
    Moments,
    core_bits,
    fit_candidates,
    forced_flux,
    is_sharper_than_psf,
    measure_apertures,
    measure_boxes,
    measure_moments,
)
from gueststar.algorithms.subtraction.peaks import Peaks, drop_side_lobes, find_peaks, score_response
from gueststar.algorithms.subtraction.saturated import find_saturated_cores
from gueststar.algorithms.subtraction.shapes import Dipoles, Trails, fit_dipoles, fit_trails
from gueststar.algorithms.subtraction.surroundings import (
    Constant,
    Excess,
    constant_light,
    is_at_edge,
    is_cut_off,
    is_small_part,
    measure_excess,
    measure_ray_level,
    measure_surrounding_rms,
    noise_factor,
)
from gueststar.core.bits import UNUSABLE, MaskPlane, SourceFlag
from gueststar.core.ids import MAX_PER_SIGN, wire_candid, wire_pid
from gueststar.model.catalog import Catalog
from gueststar.model.columns import DIA_SOURCE
from gueststar.model.image import CalibratedImage
from gueststar.model.psf import Psf
from gueststar.model.wcs import Wcs
from gueststar.pipelines.difference._stars import fine_psf_of
from gueststar.pipelines.difference.subtract import DifferenceResult

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
BrightStars = tuple[Floats, Floats, Floats]
"""(x, y, magnitude) of bright catalog stars on (or near) the science image, pixels."""


@dataclass(frozen=True)
class DetectionConfig:
    """How detections are found and measured on a difference image."""

    threshold: float = 5.0
    """Least absolute score, over the noise about the peak."""
    surroundings_fwhm: tuple[float, float] = (2.5, 6.0)
    """Radii of the ring in which that noise is measured, FWHM of the difference's PSF."""
    ray_fwhm: tuple[float, float] = (1.5, 4.5)
    """Distances between which the score is looked at along the ray from a saturated star, on both sides, FWHM."""
    ray_reach_fwhm: float = 100.0
    """How far from a saturated star a detection may belong to its spikes or its bleed trail, FWHM."""
    saturated_reach_fwhm: float = 4.0
    """A peak cut off by masked pixels is the flank of a saturated star if one of its pixels is this near, FWHM."""
    merge_radius_fwhm: float = 0.8
    """Peaks of one sign closer than this are one detection, FWHM."""
    edge_change: float = 0.5
    """Where the score ends at an edge, a detection is more than this part of the reference's light there: less is the
    flank of a star that the edge cuts, of which both images know too little to be alike."""
    lobe_tolerance: float = 0.02
    """Fraction of a bright peak's score below which peaks about it are taken for its side lobes."""
    aperture_fwhm: float = 3.0
    """Diameter of the small aperture, FWHM of the science image."""
    big_aperture_fwhm: float = 6.0
    """Diameter of the wide aperture, FWHM."""
    max_fit_shift: float = 1.5
    """How far a PSF fit may move from the peak, pixels."""
    reference_radius_arcsec: float = 30.0
    """Search radius for the nearest reference source."""
    bright_inflation: float = 2.0
    """Noise inflation by mismatch beyond which a detection is near a bright star."""
    bright_radius_fwhm: float = 5.0
    """Radius about a bright star of magnitude ``bright_mag``, FWHM; it grows tenfold in area per 2.5 mag."""
    bright_mag: float = 14.0
    """See ``bright_radius_fwhm``; fainter stars do not count."""
    max_per_sign: int = MAX_PER_SIGN
    """Detections of one sign that are kept, the most significant first."""


class DetectionContext(NamedTuple):
    """To which image the detections belong."""

    visit: int
    detector: int
    rcid: int
    """Readout channel on the wire."""
    mjd_start: float
    """Start of the exposure, MJD TAI (the wire's processing id is made from it)."""
    mjd_tai: float
    """Middle of the exposure."""
    band_id: int
    program: int


class Detections(NamedTuple):
    """What `DetectCandidates` makes."""

    catalog: Catalog
    """DIA_SOURCE rows; reliability and dia_object_id are for later stages (NaN, 0)."""
    metrics: dict[str, Any]


class _Found(NamedTuple):
    """Peaks, positive ones first, with the noise about them."""

    peaks: Peaks
    """Scores are over that noise."""
    surrounding_rms: Floats


class _Measured(NamedTuple):
    """Everything measured of the detections, image units."""

    sign: Floats
    fit: Floats
    is_fitted: Bools
    apertures: Apertures
    moments: Moments
    boxes: BoxFeatures
    dipoles: Dipoles
    trails: Trails
    science_flux: tuple[Floats, Floats]
    is_sharp: Bools
    """Sharper than a point source, and not because a star's seeing differs."""
    excess: Excess
    surrounding_rms: Floats


class DetectCandidates:
    """Find and measure what changed."""

    def __init__(self, config: DetectionConfig = DetectionConfig()) -> None:
        self.config = config

    def run(
        self,
        result: DifferenceResult,
        science: CalibratedImage,
        reference_warped: CalibratedImage,
        *,
        context: DetectionContext,
        reference_sources: Catalog | None = None,
        bright_stars: BrightStars | None = None,
    ) -> Detections:
        """Return positive and negative detections, each sign sorted by falling significance.

        ``reference_sources`` is a SOURCE catalog of the reference (ra, dec, mag...).
        """
        mask = science.pixels.mask | reference_warped.pixels.mask
        found, counts = self._find(result, mask, reference_warped.pixels.image)
        peaks, measured = found.peaks, self._measure(found, result, science, reference_warped)
        flags = self._flags(peaks, measured, result, science, reference_warped, bright_stars)
        columns = _identity_columns(peaks, context)
        columns |= _measured_columns(peaks, measured, science, result.difference.psf)
        columns |= _reference_columns(columns, reference_sources, self.config.reference_radius_arcsec)
        columns |= _bright_columns(columns, bright_stars, science.wcs.pixel_scale_arcsec)
        catalog = DIA_SOURCE.catalog(columns | {"flags": flags})
        return Detections(catalog, counts | {"limiting_mag": result.metrics.get("limiting_mag")})

    def _find(
        self, result: DifferenceResult, mask: NDArray[np.int32], reference: NDArray[np.float32]
    ) -> tuple[_Found, dict[str, Any]]:
        config = self.config
        psf = result.difference.psf
        positive, negative = (
            find_peaks(result.score, threshold=config.threshold, is_positive=sign) for sign in (True, False)
        )
        ny, nx = psf.shape
        response = score_response(psf.stamp(x=(nx - 1) / 2, y=(ny - 1) / 2))
        kept = drop_side_lobes(
            positive, negative, response, threshold=config.threshold,
            merge_radius=max(1.5, config.merge_radius_fwhm * psf.central_fwhm), tolerance=config.lobe_tolerance,
        )  # fmt: skip
        limit = min(config.max_per_sign, MAX_PER_SIGN)
        cores = find_saturated_cores((mask & int(MaskPlane.SATURATED)) != 0)
        whole = [self._not_flanks(peaks, result, mask, reference) for peaks in kept]
        judged = [self._judged(peaks, result, cores) for peaks in whole]
        counts = {
            "n_positive": int(judged[0].peaks.x.size),
            "n_negative": int(judged[1].peaks.x.size),
            "n_in_residuals": sum(int(peaks.x.size) for peaks in kept)
            - sum(int(found.peaks.x.size) for found in judged),
            "n_dropped_positive": max(0, int(judged[0].peaks.x.size) - limit),
            "n_dropped_negative": max(0, int(judged[1].peaks.x.size) - limit),
        }
        peaks = Peaks(
            *(np.concatenate([a[:limit], b[:limit]]) for a, b in zip(*(j.peaks for j in judged), strict=True))
        )
        return _Found(peaks, np.concatenate([found.surrounding_rms[:limit] for found in judged])), counts

    def _not_flanks(
        self, peaks: Peaks, result: DifferenceResult, mask: NDArray[np.int32], reference: NDArray[np.float32]
    ) -> Peaks:
        """Return the peaks that are not merely where the mask of a saturated star, or the score on a star, ends."""
        radius = self.config.saturated_reach_fwhm * result.difference.psf.central_fwhm
        x, y = peaks.x.astype(np.float64), peaks.y.astype(np.float64)
        near = (core_bits(mask, x=x, y=y, radius=radius) & int(MaskPlane.SATURATED | MaskPlane.BLEED)) != 0
        keep = ~(near & is_cut_off(result.score, x=peaks.x, y=peaks.y))
        difference = result.difference.pixels.image
        is_flank = is_small_part(difference, reference, x=peaks.x, y=peaks.y, part=self.config.edge_change)
        keep &= ~(is_flank & is_at_edge(result.score, x=peaks.x, y=peaks.y))
        return Peaks(peaks.x[keep], peaks.y[keep], peaks.score[keep])

    def _judged(self, peaks: Peaks, result: DifferenceResult, cores: tuple[Floats, Floats]) -> _Found:
        """Return the peaks that stick out of the noise about them, the most significant first.

        ``cores`` are the places (x, y) of saturated stars: what lies along a ray from one is taken off.
        """
        fwhm = result.difference.psf.central_fwhm
        inner, outer = (radius * fwhm for radius in self.config.surroundings_fwhm)
        ray = tuple(radius * fwhm for radius in self.config.ray_fwhm)
        rms = measure_surrounding_rms(
            result.score, x=peaks.x, y=peaks.y, inner=max(inner, 3.0), outer=max(outer, 8.0),
            tolerance=self.config.lobe_tolerance,
        )  # fmt: skip
        level = measure_ray_level(
            result.score, x=peaks.x, y=peaks.y, star_x=cores[0], star_y=cores[1],
            inner=max(ray[0], 3.0), outer=max(ray[1], 8.0), reach=self.config.ray_reach_fwhm * fwhm,
        )  # fmt: skip
        score = np.sign(peaks.score) * np.maximum(np.abs(peaks.score) - level, 0.0) / noise_factor(rms)
        order = np.argsort(-np.abs(score), kind="stable")
        order = order[np.abs(score[order]) >= self.config.threshold]
        return _Found(Peaks(peaks.x[order], peaks.y[order], score[order]), rms[order])

    def _measure(
        self, found: _Found, result: DifferenceResult, science: CalibratedImage, reference: CalibratedImage
    ) -> _Measured:
        peaks = found.peaks
        pixels, psf = result.difference.pixels, fine_psf_of(result.difference.psf)
        image, variance, usable = pixels.image, pixels.variance, pixels.is_usable(UNUSABLE | MaskPlane.REFERENCE_MASKED)
        fwhm, psf_fwhm = science.psf.central_fwhm, result.difference.psf.central_fwhm
        sign = np.sign(peaks.score)
        radius = max(3, round(1.5 * psf_fwhm))
        peak_x, peak_y = peaks.x.astype(np.float64), peaks.y.astype(np.float64)
        fit = fit_candidates(
            image, variance, usable, psf, x=peak_x, y=peak_y, radius=radius, max_shift=self.config.max_fit_shift
        )
        # The difference's pixels scatter less than its variance plane, which is made for fluxes, says.
        fit[:, 6] /= result.metrics.get("pixel_noise_ratio") or 1.0
        factor = noise_factor(found.surrounding_rms)
        fit[:, 3:6] *= factor[:, None]
        is_fitted = np.isfinite(fit[:, 0]) & (fit[:, 2] * sign > 0)
        fit = np.where(is_fitted[:, None], fit, _unfitted(peaks, factor, variance, result, psf_fwhm))
        x, y = fit[:, 0], fit[:, 1]
        moments = measure_moments(
            image, x=x, y=y, sign=sign, sigma=psf_fwhm / 2.3548, radius=max(4, round(2.5 * psf_fwhm))
        )
        length, angle = _trail_start(moments, psf_fwhm, np.abs(peaks.score))
        wide = max(4, round(2.5 * psf_fwhm))
        simple = science.pixels.image - reference.pixels.image
        excess = measure_excess(
            simple, science.pixels.variance + reference.pixels.variance, usable, fine_psf_of(science.psf),
            x=x, y=y, sign=sign, constant=_constant(reference, x, y),
        )  # fmt: skip
        matched = measure_excess(image, variance, usable, psf, x=x, y=y, sign=sign)
        is_on_light = is_small_part(simple, reference.pixels.image, x=peaks.x, y=peaks.y, part=_SEEING_PART)
        excess = _less_sharp(excess, matched, where=is_on_light)
        is_seeing = is_on_light & _is_smooth(matched)
        is_sharp = is_sharper_than_psf(simple, science.pixels.variance, fine_psf_of(science.psf), x=peak_x, y=peak_y)
        is_sharp |= _is_sharp(excess)
        return _Measured(
            sign, fit, is_fitted,
            measure_apertures(
                image, variance, usable, x=x, y=y,
                radius=self.config.aperture_fwhm * fwhm / 2, big_radius=self.config.big_aperture_fwhm * fwhm / 2,
            ),
            moments,
            measure_boxes(image, usable, x=peaks.x, y=peaks.y, sign=sign),
            fit_dipoles(image, variance, usable, psf, x=x, y=y, flux=fit[:, 2], radius=wide),
            fit_trails(
                image, variance, usable, psf, x=x, y=y, flux=fit[:, 2], length=length, angle_deg=angle, radius=wide
            ),
            forced_flux(
                science.pixels.image, science.pixels.variance, science.pixels.is_usable(), fine_psf_of(science.psf),
                x=x, y=y, radius=max(3, round(1.5 * fwhm)),
            ),
            is_sharp & ~is_seeing,
            excess,
            found.surrounding_rms,
        )  # fmt: skip

    def _flags(
        self,
        peaks: Peaks,
        found: _Measured,
        result: DifferenceResult,
        science: CalibratedImage,
        reference: CalibratedImage,
        bright_stars: BrightStars | None,
    ) -> NDArray[np.int32]:
        fwhm = science.psf.central_fwhm
        x, y = peaks.x.astype(np.float64), peaks.y.astype(np.float64)
        bits = core_bits(science.pixels.mask, x=x, y=y, radius=max(fwhm, 1.5))
        bits |= core_bits(reference.pixels.mask, x=x, y=y, radius=max(fwhm, 1.5)) & _FROM_REFERENCE
        flags = np.zeros(x.size, np.int32)
        ny, nx = science.shape
        edge = np.minimum(np.minimum(x, nx - 1 - x), np.minimum(y, ny - 1 - y)) < 2 * fwhm
        inflated = result.inflation[peaks.y, peaks.x] > self.config.bright_inflation
        snr = np.abs(peaks.score)
        tests = (
            (SourceFlag.SATURATED, bits & int(MaskPlane.SATURATED | MaskPlane.BLEED) != 0),
            (SourceFlag.BAD_PIXEL, bits & int(MaskPlane.BAD | MaskPlane.NO_DATA) != 0),
            (SourceFlag.COSMIC_RAY, (bits & int(MaskPlane.COSMIC_RAY) != 0) | (found.is_sharp & (found.sign > 0))),
            (SourceFlag.SATELLITE, bits & int(MaskPlane.SATELLITE) != 0),
            (SourceFlag.EDGE, (bits & int(MaskPlane.EDGE) != 0) | edge),
            (SourceFlag.SUSPECT, bits & int(MaskPlane.SUSPECT) != 0),
            (SourceFlag.FIT_FAILED, ~found.is_fitted),
            (SourceFlag.APERTURE_INCOMPLETE, found.apertures.n_masked > 0),
            (
                SourceFlag.NEAR_BRIGHT_STAR,
                inflated | (bits & int(MaskPlane.HALO) != 0) | self._is_near_star(x, y, fwhm, bright_stars),
            ),
            (SourceFlag.DIPOLE, _is_dipole(found.dipoles, fwhm)),
            (SourceFlag.TRAILED, (found.trails.length > fwhm) & (found.trails.chi2_ratio < 0.8) & (snr > 7)),
        )
        for bit, is_set in tests:
            flags |= np.where(is_set, np.int32(int(bit)), np.int32(0))
        return flags

    def _is_near_star(self, x: Floats, y: Floats, fwhm: float, bright_stars: BrightStars | None) -> Bools:
        """Return where a star at least as bright as ``bright_mag`` is within its radius."""
        near = np.zeros(x.size, bool)
        if bright_stars is None:
            return near
        for star_x, star_y, mag in zip(*bright_stars, strict=True):
            if mag <= self.config.bright_mag:
                radius = self.config.bright_radius_fwhm * fwhm * 10.0 ** (0.2 * (self.config.bright_mag - mag))
                near |= np.hypot(x - star_x, y - star_y) < radius
        return near


_FROM_REFERENCE = int(MaskPlane.SATURATED | MaskPlane.BLEED | MaskPlane.NO_DATA | MaskPlane.BAD)
"""Planes of the reference that spoil a detection."""

_SEEING_PART = 2.0
"""A plain difference of more than this part of the reference's light cannot be sharp because the seeing differs."""


def _constant(reference: CalibratedImage, x: Floats, y: Floats) -> Constant:
    """Return what shines about the places on the reference."""
    pixels, psf = reference.pixels, reference.psf
    return constant_light(
        pixels.image, pixels.variance, pixels.is_usable(), fine_psf_of(psf), x=x, y=y, reach=1.5 * psf.central_fwhm
    )


def _less_sharp(plain: Excess, matched: Excess, *, where: Bools) -> Excess:
    """Return the less significant of two excesses ``where`` the reference shines, the plain difference's elsewhere."""
    with np.errstate(invalid="ignore"):
        pixel = where & ~(plain.pixel_sigma <= matched.pixel_sigma)
        pair = where & ~(plain.pair_sigma <= matched.pair_sigma)
    return Excess(
        np.where(pixel, matched.pixel, plain.pixel), np.where(pixel, matched.pixel_sigma, plain.pixel_sigma),
        np.where(pair, matched.pair, plain.pair), np.where(pair, matched.pair_sigma, plain.pair_sigma), plain.flux,
    )  # fmt: skip


def _is_sharp(excess: Excess, *, least: float = 0.4, n_sigma: float = 4.0) -> Bools:
    """Return where the light in one pixel, or two, is that of a cosmic ray; ``least`` allows for errors of the PSF."""
    with np.errstate(invalid="ignore"):
        in_pixel = (excess.pixel > least) & (excess.pixel_sigma > n_sigma)
        return np.asarray(in_pixel | ((excess.pair > least) & (excess.pair_sigma > n_sigma)))


def _is_smooth(excess: Excess, *, n_sigma: float = 2.0) -> Bools:
    """Return where no pixel, nor pair, of the difference sticks out of a point source's, so that no ray struck.

    Where the seeing of the two images differs, a star leaves a core or a ring in their plain difference, sharper than
    the PSF, and with it a variable star looks like a ray. Matched PSFs leave no such thing. Rays stay sharp there, less
    so where the science image had to be convolved: to be asked only where there is a star or the core of a galaxy.
    """
    with np.errstate(invalid="ignore"):
        return np.asarray((excess.pixel_sigma < n_sigma) & (excess.pair_sigma < n_sigma))


def _unfitted(
    peaks: Peaks, factor: Floats, variance: NDArray[np.float32], result: DifferenceResult, fwhm: float
) -> Floats:
    """Return rows as a fit gives them, from the score alone: the peak's pixel and score times flux error."""
    ny, nx = result.score.shape
    power = float(np.sum(result.difference.psf.stamp(x=(nx - 1) / 2, y=(ny - 1) / 2).astype(np.float64) ** 2))
    error = factor * np.sqrt(variance[peaks.y, peaks.x] / power)
    place_error = np.maximum(fwhm / 2.3548 / np.maximum(np.abs(peaks.score), 1.0), 0.5)
    return np.stack(
        [peaks.x, peaks.y, peaks.score * error, place_error, place_error, error, np.full(error.size, np.nan)], axis=1
    )


def _trail_start(moments: Moments, fwhm: float, snr: Floats) -> tuple[Floats, Floats]:
    """Return starting lengths (0 where the source is not longer than the PSF) and angles of trails."""
    with np.errstate(invalid="ignore"):
        extra = moments.a**2 - (fwhm / 2.3548) ** 2
        is_long = (moments.a > 1.25 * fwhm / 2.3548) & (moments.a > 1.2 * moments.b) & (snr > 6)
        return np.where(is_long, np.sqrt(12.0 * np.maximum(extra, 0.0)), 0.0), np.nan_to_num(moments.theta_deg)


def _is_dipole(dipoles: Dipoles, fwhm: float) -> Bools:
    weaker = np.minimum(np.abs(dipoles.positive), np.abs(dipoles.negative))
    stronger = np.maximum(np.abs(dipoles.positive), np.abs(dipoles.negative))
    has_both = (weaker > 0.2 * stronger) & (weaker > 0)
    return np.asarray(has_both & (dipoles.chi2_ratio < 0.8) & (dipoles.separation < 3.0 * fwhm))


def _identity_columns(peaks: Peaks, context: DetectionContext) -> dict[str, Any]:
    n = peaks.x.size
    is_positive = peaks.score > 0
    pid = wire_pid(context.mjd_start, context.rcid)
    n_positive = int(is_positive.sum())
    serial = np.where(is_positive, np.arange(n), np.arange(n) - n_positive)
    ids = [wire_candid(pid, is_positive=bool(p), serial=int(k)) for p, k in zip(is_positive, serial, strict=True)]
    return {
        "dia_source_id": np.array(ids, dtype=np.int64),
        "visit": np.full(n, context.visit),
        "detector": np.full(n, context.detector),
        "mjd_tai": np.full(n, context.mjd_tai),
        "band_id": np.full(n, context.band_id),
        "program": np.full(n, context.program),
        "is_positive": is_positive,
        "snr": peaks.score,
        "reliability": np.full(n, np.nan),
        "dia_object_id": np.zeros(n, np.int64),
    }


def _measured_columns(peaks: Peaks, found: _Measured, science: CalibratedImage, difference_psf: Psf) -> dict[str, Any]:
    njy = science.photocal.njy_per_unit
    x, y, flux, x_err, y_err, flux_err, chi2 = found.fit.T
    ra, dec, ra_err, dec_err = _sky(science.wcs, x, y, x_err, y_err)
    ny, nx = science.shape
    psf_sigma = _local_sigma(difference_psf, x, y)
    return {
        "x": x, "y": y, "x_err": x_err, "y_err": y_err,
        "ra": ra, "dec": dec, "ra_err": ra_err, "dec_err": dec_err,
        "psf_flux": flux * njy, "psf_flux_err": flux_err * njy, "chi2": chi2,
        "sharpness": _sharpness(found.moments, psf_sigma),
        "ap_flux": found.apertures.flux * njy, "ap_flux_err": found.apertures.flux_err * njy,
        "ap_big_flux": found.apertures.big_flux * njy, "ap_big_flux_err": found.apertures.big_flux_err * njy,
        "sky": found.apertures.sky * njy,
        "fwhm": found.moments.fwhm, "a_image": found.moments.a, "b_image": found.moments.b,
        "theta_deg": found.moments.theta_deg,
        "class_star": _star_likeness(found.moments, psf_sigma, np.abs(peaks.score)),
        "edge_distance": np.minimum(np.minimum(x, nx - 1 - x), np.minimum(y, ny - 1 - y)),
        "n_negative": found.boxes.n_negative, "n_bad": found.boxes.n_bad, "sum_ratio": found.boxes.sum_ratio,
        "surrounding_rms": found.surrounding_rms,
        "pixel_excess": found.excess.pixel, "pixel_excess_snr": found.excess.pixel_sigma,
        "plain_flux": found.sign * found.excess.flux * njy,
        "dipole_flux_positive": found.dipoles.positive * njy, "dipole_flux_negative": found.dipoles.negative * njy,
        "dipole_separation": found.dipoles.separation, "dipole_chi2_ratio": found.dipoles.chi2_ratio,
        "trail_length": found.trails.length, "trail_angle_deg": found.trails.angle_deg,
        "trail_chi2_ratio": found.trails.chi2_ratio,
        "science_flux": found.science_flux[0] * njy, "science_flux_err": found.science_flux[1] * njy,
    }  # fmt: skip


def _reference_columns(columns: dict[str, Any], sources: Catalog | None, radius_arcsec: float) -> dict[str, Any]:
    """Return the nearest reference source's columns; NaN where none lies within the radius."""
    n = columns["ra"].size
    names = {"reference_mag": "mag", "reference_mag_err": "mag_err", "reference_chi2": "chi2"}
    names |= {"reference_sharpness": "sharpness"}
    out: dict[str, Any] = {name: np.full(n, np.nan) for name in ("reference_distance", *names)}
    if sources is None or sources.n_rows == 0 or n == 0:
        return out
    distance, index = cKDTree(unit_vectors(sources["ra"], sources["dec"])).query(
        unit_vectors(columns["ra"], columns["dec"])
    )
    arcsec = np.degrees(2.0 * np.arcsin(np.minimum(distance / 2.0, 1.0))) * 3600.0
    near = arcsec <= radius_arcsec
    out["reference_distance"][near] = arcsec[near]
    for name, source in names.items():
        out[name][near] = sources[source][index[near]]
    return out


def _bright_columns(columns: dict[str, Any], stars: BrightStars | None, scale_arcsec: float) -> dict[str, Any]:
    n = columns["x"].size
    distance, magnitude = np.full(n, np.nan), np.full(n, np.nan)
    if stars is not None and stars[0].size and n:
        pixels, index = cKDTree(np.stack(stars[:2], axis=1)).query(np.stack([columns["x"], columns["y"]], axis=1))
        distance, magnitude = pixels * scale_arcsec, stars[2][index]
    return {"bright_distance": distance, "bright_mag": magnitude}


def _sky(wcs: Wcs, x: Floats, y: Floats, x_err: Floats, y_err: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return ra, dec (degrees) and their errors (arcsec on the sky)."""
    ra, dec = wcs.pixel_to_sky(x=x, y=y)
    cd = np.abs(wcs.cd) * 3600.0
    return ra, dec, np.hypot(cd[0, 0] * x_err, cd[0, 1] * y_err), np.hypot(cd[1, 0] * x_err, cd[1, 1] * y_err)


def _local_sigma(psf: Psf, x: Floats, y: Floats) -> Floats:
    """Return the adaptive Gaussian width (pixels) of a PSF at places, from the nearest of a grid of cells."""
    cells = 5
    grid_x, grid_y = cell_centres(psf.shape, (cells, cells))
    stamps = psf.stamps(x=grid_x, y=grid_y)
    c = float(stamps.shape[1] // 2)
    widths = np.array(
        [
            measure_moments(
                stamp, x=np.array([c]), y=np.array([c]), sign=np.ones(1), sigma=psf.central_fwhm / 2.3548, radius=int(c)
            ).fwhm[0]
            for stamp in stamps
        ]
    )
    widths = np.where(np.isfinite(widths), widths, psf.central_fwhm) / 2.3548
    ny, nx = psf.shape
    i = np.clip((x + 0.5) * cells / nx, 0, cells - 1).astype(int)
    j = np.clip((y + 0.5) * cells / ny, 0, cells - 1).astype(int)
    return np.asarray(widths[j * cells + i])


def _sharpness(moments: Moments, psf_sigma: Floats) -> Floats:
    """Return the signed root of the excess of the square of the width over the PSF's, pixels."""
    excess = (moments.fwhm / 2.3548) ** 2 - psf_sigma**2
    return np.asarray(np.sign(excess) * np.sqrt(np.abs(excess)))


def _star_likeness(moments: Moments, psf_sigma: Floats, snr: Floats) -> Floats:
    """Return 1 for the PSF's width, falling like a normal curve in the logarithm of the width over its error."""
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation = np.log(moments.fwhm / 2.3548 / psf_sigma) / np.hypot(0.1, 1.5 / np.maximum(snr, 1.0))
    return np.nan_to_num(np.exp(-0.5 * deviation**2), nan=0.0)
