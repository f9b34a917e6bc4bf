"""Find and fit all point sources of an image, the hidden ones after the bright ones are subtracted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.algorithms.detection.footprints import Footprints, find_footprints
from gueststar.algorithms.detection.matched_filter import FilteredImage, matched_filter
from gueststar.algorithms.detection.noise import NoiseModel, split_variance
from gueststar.algorithms.detection.peaks import Peaks, detect_peaks
from gueststar.algorithms.detection.saturated import SaturatedCores, find_saturated_cores
from gueststar.algorithms.photometry.sky import annulus_sky, subtract_residual_background_in_place
from gueststar.algorithms.psf.simultaneous import (
    FitConfig,
    Scene,
    SourceErrors,
    SourceState,
    chosen,
    fit_in_place,
    joined,
    make_scene,
    measure_errors,
    new_sources,
    release_in_place,
)
from gueststar.algorithms.psf.spline import SplinePsf, shifted_stamps

Booleans = NDArray[np.bool_]
Float32Image = NDArray[np.float32]
Floats64 = NDArray[np.float64]


@dataclass(frozen=True)
class PointSourceConfig:
    """How point sources are found and fitted."""

    threshold: float = 5.0
    """Least signal to noise of a detection in the matched filter."""
    min_contrast: float = 2.5
    """Height of a peak above the saddle to a higher one, in sigma, that makes it a source of its own."""
    max_passes: int = 4
    """Most rounds of detection: the image first, then what is left of it."""
    min_new_fraction: float = 0.003
    """Rounds end when fewer new sources than this fraction are found."""
    min_final_snr: float = 3.5
    """Sources whose fitted flux is less significant than this are dropped."""
    max_misfit: float = 3.0
    """Faint sources whose chi-square is further from one than so many of its sigmas are dropped as artefacts..."""
    misfit_growth: float = 0.2
    """...with this much more allowed per unit of signal to noise."""
    min_separation_fwhm: float = 0.55
    """New sources must be at least this far from known ones, in FWHM."""
    residual_model_error: float = 0.03
    """Error of the model, as a fraction, that counts as noise when the residual image is searched."""
    ring_factor: float = 2.5
    """A residual peak near a source must exceed so many times the median residual around that source..."""
    spike_factor: float = 1.5
    """...and so many times its 90th percentile."""
    ring_reach_fwhm: float = 5.0
    """Sources at most this far from a residual peak are thought of, in FWHM."""
    bright_reach_fwhm: float = 15.0
    """The same for bright stars."""
    background_box: int = 128
    """Side of the boxes, in pixels, in which the background left over is measured when sources are gone; 0: never."""
    background_tolerance: float = 0.01
    """Sources are fitted anew when the background changes by more than this many sigma of a pixel."""
    fit: FitConfig = field(default_factory=FitConfig)
    """The fit itself."""


class PointSources(NamedTuple):
    """Fitted point sources and what they were found in."""

    state: SourceState
    errors: SourceErrors
    snr: Floats64
    """Matched-filter signal to noise at detection."""
    found_in_pass: NDArray[np.int16]
    is_saturated: Booleans
    """Made from a saturated region."""
    is_blended: Booleans
    """Shares its footprint, or found beside another source."""
    first_index: NDArray[np.int64]
    """Row of ``footprints.peaks`` for sources of the first pass that have one, else -1."""
    scene: Scene
    """Image, and residual after all sources."""
    footprints: Footprints
    """Of the first pass."""
    noise: NoiseModel
    noise_ratio: float
    """Scatter of the matched filter in blank sky over what the variance says (1 if noise is white)."""
    model_error: float
    """Fractional error of the PSF model per pixel, measured on the bright stars."""
    fwhm: float
    local_sky: Floats64
    """Mean residual per pixel between three and six FWHM, clipped."""


def measure_point_sources(
    image: Float32Image,
    variance: Float32Image,
    is_masked: Booleans,
    is_saturated: Booleans,
    psf: SplinePsf,
    *,
    fwhm: float,
    config: PointSourceConfig = PointSourceConfig(),
) -> PointSources:
    """Return all point sources of a background-subtracted image, fitted simultaneously with the PSF.

    ``is_masked`` pixels (saturated ones among them) carry no weight; connected ``is_saturated`` pixels are
    taken for one star, fitted by its wings. ``fwhm`` is the PSF's, in pixels. The image may hold no source at all.
    """
    noise = split_variance(image, variance, is_masked)
    kernels = detection_kernels(psf, fwhm=fwhm)
    filtered = matched_filter(image, noise.sky_variance, is_masked, kernels)
    footprints = _first_footprints(filtered, noise, kernels, config)
    cores = find_saturated_cores(is_saturated)
    scene = make_scene(image, noise, is_masked, model_error=config.fit.model_error)
    state, table = _first_sources(filtered, footprints, cores, fwhm, config)
    fit_in_place(scene, psf, state, fwhm=fwhm, config=config.fit)
    scene = scene._replace(model_error=measured_model_error(scene, psf, state, table.core < 0, fwhm=fwhm))
    for turn in range(1, config.max_passes):
        level = subtract_residual_background_in_place(scene, box=config.background_box)
        if level > config.background_tolerance * float(np.sqrt(np.median(noise.sky_variance[::16, ::16]))):
            state.is_settled[:] = False
        state, table = _without_doubtful(scene, psf, state, table, fwhm, config)
        extra = _hidden_peaks(scene, noise, kernels, state, psf.half, fwhm, config)
        if extra.x.size <= config.min_new_fraction * len(state.x):
            break
        state, table = _with_new(state, table, extra, turn, fwhm, config)
        fit_in_place(scene, psf, state, fwhm=fwhm, config=config.fit)
    state, table = _without_doubtful(scene, psf, state, table, fwhm, config)
    fit_in_place(scene, psf, state, fwhm=fwhm, config=config.fit)
    state, table = _without_artefacts(scene, psf, state, table, fwhm, config)
    fit_in_place(scene, psf, state, fwhm=fwhm, config=config.fit)
    return _measured(scene, psf, state, table, footprints, noise, kernels, fwhm, config)


def detection_kernels(psf: SplinePsf, *, fwhm: float) -> NDArray[np.float32]:
    """Return PSF stamps ``[rows, columns, k, k]`` for the matched filter: one, or 3 x 3 where the PSF varies."""
    ny, nx = psf.shape
    n = 1 if psf.order == 0 else 3
    radius = max(2, int(np.ceil(1.5 * fwhm)))
    centre = (np.arange(n) + 0.5) / n
    y, x = (a.ravel() for a in np.meshgrid(centre * ny, centre * nx, indexing="ij"))
    zero = np.zeros(x.size)
    stamps = shifted_stamps(psf, x=x, y=y, dx=zero, dy=zero, radius=radius)
    return stamps.reshape(n, n, *stamps.shape[1:])


def measured_model_error(
    scene: Scene, psf: SplinePsf, state: SourceState, is_regular: Booleans, *, fwhm: float
) -> float:
    """Return the fractional error of the model that brings the reduced chi-square of bright stars to one.

    Sources much wider than the PSF do not count. Without bright stars the scene's present value is returned.
    """
    errors = measure_errors(scene, psf, state, fwhm=fwhm)
    is_point = is_regular & (np.abs(errors.sharpness) < 0.15) & (errors.n_masked == 0)
    bright = np.flatnonzero(is_point & (state.flux > 300.0 * errors.sky_flux_err))
    if bright.size < 10:
        return scene.model_error
    bright = bright[np.argsort(-state.flux[bright], kind="stable")[:500]].astype(np.int64)
    some = chosen(state, bright)
    trial = np.geomspace(0.001, 0.1, 13)
    chi2 = [
        np.nanmedian(measure_errors(scene._replace(model_error=float(e)), psf, some, fwhm=fwhm).chi2) for e in trial
    ]
    return float(np.exp(np.interp(0.0, -np.log(chi2), np.log(trial))))


class _Table(NamedTuple):
    """What is remembered of each source beside its state."""

    snr: Floats64
    found_in_pass: NDArray[np.int16]
    core: NDArray[np.int64]
    """Number of the saturated core, or -1."""
    first_index: NDArray[np.int64]
    is_blended: Booleans


def _first_footprints(
    filtered: FilteredImage, noise: NoiseModel, kernels: NDArray[np.float32], config: PointSourceConfig
) -> Footprints:
    middle = kernels[kernels.shape[0] // 2, kernels.shape[1] // 2].astype(np.float64)
    sky = float(np.median(noise.sky_variance[::16, ::16]))
    growth = noise.slope * np.sqrt(np.sum(middle**2) / sky)
    return find_footprints(
        filtered.score, config.threshold, min_contrast=config.min_contrast, poisson_growth=float(growth)
    )


def _first_sources(
    filtered: FilteredImage, footprints: Footprints, cores: SaturatedCores, fwhm: float, config: PointSourceConfig
) -> tuple[SourceState, _Table]:
    peaks = footprints.peaks
    is_kept = ~_is_near_core(peaks, cores, fwhm)
    rows = np.flatnonzero(is_kept)
    iy, ix = np.rint(peaks.y[rows]).astype(int), np.rint(peaks.x[rows]).astype(int)
    information = np.maximum(filtered.information[iy, ix], 1e-30)
    flux = peaks.score[rows] / np.sqrt(information)
    radius = config.fit.fit_radius_fwhm * fwhm
    regular = new_sources(peaks.x[rows], peaks.y[rows], fit_radius=radius, flux=flux)
    n = cores.x.size
    brightest = 10.0 * float(np.max(flux, initial=1.0))
    wide = np.maximum(radius, cores.radius + 2.0 * fwhm)
    bright = new_sources(cores.x, cores.y, fit_radius=wide, flux=np.full(n, brightest) * (1 + cores.radius))
    table = _Table(
        np.concatenate([peaks.score[rows].astype(np.float64), np.full(n, np.nan)]),
        np.zeros(rows.size + n, dtype=np.int16),
        np.concatenate([np.full(rows.size, -1), np.arange(n)]),
        np.concatenate([rows, np.full(n, -1)]),
        np.concatenate([footprints.is_blended[rows], np.zeros(n, dtype=bool)]),
    )
    return joined(regular, bright), table


def _is_near_core(peaks: Peaks, cores: SaturatedCores, fwhm: float) -> Booleans:
    """Return which peaks are the rim of a saturated region."""
    y, x = np.nonzero(cores.labels)
    if x.size == 0 or peaks.x.size == 0:
        return np.zeros(peaks.x.size, dtype=bool)
    distance, nearest = cKDTree(np.column_stack([x, y])).query(np.column_stack([peaks.x, peaks.y]))
    number = cores.labels[y[nearest], x[nearest]]
    sizes = np.bincount(cores.labels.ravel())
    return (distance < 1.5 * fwhm) & (sizes[number] >= 2)


def _hidden_peaks(
    scene: Scene,
    noise: NoiseModel,
    kernels: NDArray[np.float32],
    state: SourceState,
    half: int,
    fwhm: float,
    config: PointSourceConfig,
) -> Peaks:
    """Return new sources in the residual image, weighed against the noise and the error of what was subtracted."""
    score = _residual_filter(scene, noise, kernels, config.residual_model_error).score
    peaks = detect_peaks(score, config.threshold)
    if peaks.x.size == 0 or len(state.x) == 0:
        return peaks
    tree = cKDTree(np.column_stack([state.x, state.y]))
    nearest, _ = tree.query(np.column_stack([peaks.x, peaks.y]))
    peaks = peaks.select(nearest > config.min_separation_fwhm * fwhm)
    return peaks.select(~_is_in_ring(score, peaks, state, half, fwhm, config))


def _residual_filter(
    scene: Scene, noise: NoiseModel, kernels: NDArray[np.float32], model_error: float
) -> FilteredImage:
    model = scene.image - scene.residual
    variance = (
        scene.sky_variance + np.float32(noise.slope) * np.maximum(model, 0) + (np.float32(model_error) * model) ** 2
    )
    return matched_filter(scene.residual, variance, scene.is_masked, kernels)


def _is_in_ring(
    score: Float32Image, peaks: Peaks, state: SourceState, half: int, fwhm: float, config: PointSourceConfig
) -> Booleans:
    """Return which peaks do not stand out from the residual all around a source.

    Galaxies and misfitted stars leave rings, bright stars spikes and lumps: a new source must be higher than
    ``ring_factor`` times the median and ``spike_factor`` times the 90th percentile of the score on the circle about the
    source that dominates there, its own surroundings left out.
    """
    if peaks.x.size == 0:
        return np.zeros(0, dtype=bool)
    host, r = _dominant_sources(peaks, state, half, fwhm, config)
    away = np.arctan2(peaks.y - state.y[host], peaks.x - state.x[host])
    angle = away[:, None] + np.arange(48) * (2 * np.pi / 48)
    x = state.x[host][:, None] + r[:, None] * np.cos(angle)
    y = state.y[host][:, None] + r[:, None] * np.sin(angle)
    is_own = np.hypot(x - peaks.x[:, None], y - peaks.y[:, None]) < 1.3 * fwhm
    ix, iy = (np.rint(np.nan_to_num(a)).astype(int) for a in (x, y))
    is_own |= (ix < 0) | (iy < 0) | (ix >= score.shape[1]) | (iy >= score.shape[0])
    ring = score[np.clip(iy, 0, score.shape[0] - 1), np.clip(ix, 0, score.shape[1] - 1)]
    ring = np.sort(np.where(is_own, np.nan, ring), axis=1)
    n = np.count_nonzero(~is_own, axis=1)
    rows = np.arange(len(n))
    middle, high = ring[rows, n // 2], ring[rows, np.maximum((9 * n) // 10 - 1, 0)]
    needed = np.maximum(config.ring_factor * middle, config.spike_factor * high)
    return (n >= 8) & np.isfinite(r) & (peaks.score < needed)


def _dominant_sources(
    peaks: Peaks, state: SourceState, half: int, fwhm: float, config: PointSourceConfig
) -> tuple[NDArray[np.int64], Floats64]:
    """Return the source whose light matters most at each peak, and its distance (NaN where there is none).

    Wings are taken to fall with the power -2.5 of the distance, and bright stars to matter beyond their stamps.
    """
    places = np.column_stack([peaks.x, peaks.y])
    is_bright = state.reach >= half
    best, r_best = np.zeros(len(places), dtype=np.int64), np.full(len(places), np.nan)
    strength = np.zeros(len(places))
    bounds = (config.ring_reach_fwhm * fwhm, config.bright_reach_fwhm * fwhm)
    for rows, bound in zip((np.arange(len(state.x)), np.flatnonzero(is_bright)), bounds, strict=True):
        if rows.size == 0:
            continue
        k = min(6, rows.size)
        tree = cKDTree(np.column_stack([state.x[rows], state.y[rows]]))
        distance, which = tree.query(places, k=k, distance_upper_bound=bound)
        distance, which = distance.reshape(-1, k), which.reshape(-1, k)
        flux = np.append(state.flux[rows], 0.0)[which]
        light = np.where(np.isfinite(distance), flux / np.maximum(distance, 1.0) ** 2.5, 0.0)
        top = np.argmax(light, axis=1)
        here = np.arange(len(places))
        is_stronger = light[here, top] > strength
        best = np.where(is_stronger, np.append(rows, 0)[which[here, top]], best)
        r_best = np.where(is_stronger, distance[here, top], r_best)
        strength = np.maximum(strength, light[here, top])
    return best, r_best


def _with_new(
    state: SourceState, table: _Table, extra: Peaks, turn: int, fwhm: float, config: PointSourceConfig
) -> tuple[SourceState, _Table]:
    n = extra.x.size
    fresh = new_sources(
        extra.x, extra.y, fit_radius=config.fit.fit_radius_fwhm * fwhm, flux=extra.score.astype(np.float64)
    )
    tree = cKDTree(np.column_stack([extra.x, extra.y]))
    near, _ = tree.query(np.column_stack([state.x, state.y]))
    is_touched = near < 3.0 * config.fit.fit_radius_fwhm * fwhm
    state.is_settled[is_touched] = False
    more = _Table(
        extra.score.astype(np.float64),
        np.full(n, turn, dtype=np.int16),
        np.full(n, -1),
        np.full(n, -1),
        np.ones(n, dtype=bool),
    )
    return joined(state, fresh), _Table._make(np.concatenate(list(pair)) for pair in zip(table, more, strict=True))


def _without_doubtful(
    scene: Scene, psf: SplinePsf, state: SourceState, table: _Table, fwhm: float, config: PointSourceConfig
) -> tuple[SourceState, _Table]:
    """Drop sources that faded away, left the image, or fell upon a brighter one; their light goes back."""
    if len(state.x) == 0:
        return state, table
    errors = measure_errors(scene, psf, state, fwhm=fwhm, config=config.fit)
    ny, nx = scene.image.shape
    is_inside = (state.x > -0.5) & (state.x < nx - 0.5) & (state.y > -0.5) & (state.y < ny - 0.5)
    is_real = is_inside & np.isfinite(errors.flux_err) & (state.flux > config.min_final_snr * errors.flux_err)
    is_real &= np.isfinite(state.flux)
    pairs = cKDTree(np.column_stack([state.x, state.y])).query_pairs(
        0.5 * config.min_separation_fwhm * fwhm, output_type="ndarray"
    )
    fainter = np.where(state.flux[pairs[:, 0]] < state.flux[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
    is_real[fainter] = False
    return _keeping(scene, psf, state, table, is_real, 2.0 * config.fit.fit_radius_fwhm * fwhm)


def _without_artefacts(
    scene: Scene, psf: SplinePsf, state: SourceState, table: _Table, fwhm: float, config: PointSourceConfig
) -> tuple[SourceState, _Table]:
    """Drop faint sources that the PSF fits badly: bits of spikes, trails and badly subtracted stars.

    Sources of the first pass that are significantly wider than the PSF stay: they may be galaxies.
    """
    if len(state.x) == 0:
        return state, table
    errors = measure_errors(scene, psf, state, fwhm=fwhm, config=config.fit)
    misfit = (errors.chi2 - 1.0) * np.sqrt(np.maximum(errors.n_pixels - 3, 1) / 2.0)
    snr = state.flux / errors.flux_err
    is_galaxy = (table.found_in_pass == 0) & (errors.sharpness > 1.5 * errors.sharpness_err)
    is_artefact = misfit > config.max_misfit + config.misfit_growth * snr
    is_artefact &= ~is_galaxy & (table.core < 0) & (snr < 50.0)
    return _keeping(scene, psf, state, table, ~is_artefact, 2.0 * config.fit.fit_radius_fwhm * fwhm)


def _keeping(
    scene: Scene, psf: SplinePsf, state: SourceState, table: _Table, is_kept: Booleans, reach: float
) -> tuple[SourceState, _Table]:
    """Put the light of the others back, and unsettle what lies within ``reach`` pixels of them."""
    release_in_place(scene, psf, state, ~is_kept)
    if not is_kept.all() and is_kept.any():
        gone = cKDTree(np.column_stack([state.x[~is_kept], state.y[~is_kept]]))
        near, _ = gone.query(np.column_stack([state.x, state.y]))
        state.is_settled[near < reach] = False
    return chosen(state, is_kept), _Table._make(values[is_kept] for values in table)


def _measured(
    scene: Scene,
    psf: SplinePsf,
    state: SourceState,
    table: _Table,
    footprints: Footprints,
    noise: NoiseModel,
    kernels: NDArray[np.float32],
    fwhm: float,
    config: PointSourceConfig,
) -> PointSources:
    errors = measure_errors(scene, psf, state, fwhm=fwhm, config=config.fit)
    blank = _residual_filter(scene, noise, kernels, scene.model_error)
    values = blank.score[::3, ::3][blank.information[::3, ::3] > 0]
    ratio = 1.0
    if values.size > 100:
        ratio = float(1.4826 * np.median(np.abs(values - np.median(values))))
    extra = np.maximum(ratio**2 - 1.0, 0.0)
    grown = np.sqrt(1.0 + extra * (errors.sky_flux_err / errors.flux_err) ** 2)
    errors = errors._replace(flux_err=errors.flux_err * grown, x_err=errors.x_err * grown, y_err=errors.y_err * grown)
    snr = np.where(np.isfinite(table.snr), table.snr, state.flux / errors.flux_err)
    return PointSources(
        state, errors, snr, table.found_in_pass, table.core >= 0, table.is_blended, table.first_index,
        scene, footprints, noise, ratio, scene.model_error, fwhm,
        annulus_sky(scene, x=state.x, y=state.y, inner=3.0 * fwhm, outer=6.0 * fwhm),
    )  # fmt: skip
