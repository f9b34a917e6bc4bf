"""Find and fit all point sources of an image, the hidden ones after the bright ones are subtracted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.algorithms.detection.footprints import Footprints, find_footprints
from gueststar.algorithms.detection.matched_filter import FilteredImage, matched_filter
from gueststar.algorithms.detection.noise import NoiseModel
from gueststar.algorithms.detection.peaks import Peaks
from gueststar.algorithms.detection.saturated import SaturatedCores, find_saturated_cores
from gueststar.algorithms.detrend.cosmic_rays import CosmicRayConfig
from gueststar.algorithms.photometry.flags import mask_bits_within
from gueststar.algorithms.photometry.hidden import HiddenSourceConfig, blank_noise_ratio, find_hidden_peaks
from gueststar.algorithms.photometry.sky import ResidualBackground, annulus_sky, subtract_residual_background_in_place
from gueststar.algorithms.photometry.struck import take_out_rays_in_place
from gueststar.algorithms.psf.groups import BAND
from gueststar.algorithms.psf.scene import FreshScene, Scene, SourceState, chosen, joined, new_sources
from gueststar.algorithms.psf.simultaneous import (
    FitConfig,
    SourceErrors,
    fit_in_place,
    measure_errors,
    release_in_place,
    subtract_anew_in_place,
)
from gueststar.algorithms.psf.spline import SplinePsf, shifted_stamps, with_tiles

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
    max_passes: int = 3
    """Most rounds of detection: the image first, then what is left of it."""
    sweeps_between_passes: int = 2
    """Most visits to a source between rounds of detection (``fit.max_sweeps`` holds for the last)."""
    settled_between_passes: float = 0.5
    """Sources are left alone between rounds when their step is smaller than this fraction of their errors."""
    min_new_fraction: float = 0.003
    """Rounds end when fewer new sources than this fraction are found."""
    min_final_snr: float = 3.5
    """Sources whose fitted flux is less significant than this are dropped."""
    max_misfit: float = 3.0
    """Faint sources whose chi-square is further from one than so many of its sigmas are dropped as artefacts..."""
    misfit_growth: float = 0.2
    """...with this much more allowed per unit of signal to noise."""
    faint_snr: float = 50.0
    """Sources of more signal to noise are not dropped for a misfit."""
    max_remains: float = 0.7
    """What hidden sources leave, weighted by its noise, is at most this fraction of them: more is a bit of a spike."""
    spike_snr: float = 10.0
    """Sources on diffraction spikes of less signal to noise must look like the PSF."""
    max_sharpening: float = -0.5
    """Sources narrower than the PSF by more than this (see `SourceErrors.sharpness`) and ten sigma are artefacts."""
    merge_fwhm: float = 0.3
    """Of sources that come nearer to each other than this, in FWHM, the fainter is dropped."""
    background_box: int = 128
    """Side of the boxes, in pixels, in which the background left over is measured when sources are gone; 0: never."""
    hidden: HiddenSourceConfig = field(default_factory=HiddenSourceConfig)
    """Search for sources in the residual image."""
    fit: FitConfig = field(default_factory=FitConfig)
    """The fit itself."""
    rays: CosmicRayConfig | None = field(default_factory=CosmicRayConfig)
    """How cosmic rays are followed across stars, once these are subtracted. None: not at all."""


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
    sky_err: Floats64
    """Error of the background per pixel at the sources, which is in their flux errors."""
    ray_y: NDArray[np.int64]
    """Pixels that cosmic rays were found to have struck beyond those that were known."""
    ray_x: NDArray[np.int64]


def measure_point_sources(
    fresh: FreshScene,
    is_saturated: Booleans,
    psf: SplinePsf,
    *,
    fwhm: float,
    is_struck: Booleans | None = None,
    is_spike: Booleans | None = None,
    config: PointSourceConfig = PointSourceConfig(),
) -> PointSources:
    """Return all point sources of a background-subtracted image, fitted simultaneously with the PSF.

    ``fresh`` is the scene of that image, and is used up: its masked pixels (saturated ones among them) carry no weight.
    Connected ``is_saturated`` pixels are taken for one star, fitted by its wings. ``fwhm`` is the PSF's, in pixels.
    Beside pixels that a cosmic ray ``is_struck`` (masked ones), faint sources must look like the PSF, lest they be what
    the mask leaves of the ray; and so where the light of a diffraction spike falls (``is_spike``). The image may hold
    no source at all.
    """
    psf = with_tiles(psf)
    rough = replace(config.fit, max_sweeps=config.sweeps_between_passes, settled_at=config.settled_between_passes)
    noise, scene = fresh
    kernels = detection_kernels(psf, fwhm=fwhm)
    filtered = matched_filter(scene.image, noise.sky_variance, scene.is_masked, kernels)
    footprints = _first_footprints(filtered, noise, kernels, config)
    cores = find_saturated_cores(is_saturated)
    state, table = _first_sources(filtered, footprints, cores, fwhm, config)
    del filtered  # two images that nothing needs any more
    scene = scene._replace(model_error=config.fit.model_error)
    scene.residual[...] = scene.image
    fit_in_place(scene, psf, state, fwhm=fwhm, config=rough)
    scene = scene._replace(model_error=measured_model_error(scene, psf, state, table.core < 0, fwhm=fwhm))
    rays = _Rays(is_struck, is_spike)
    rays.follow(scene, psf, state, fwhm, config)
    for turn in range(1, config.max_passes):
        subtract_residual_background_in_place(scene, box=config.background_box)
        state, table = _without_doubtful(scene, psf, state, table, fwhm, config)
        hidden = replace(config.hidden, model_error=max(config.hidden.model_error, 2.0 * scene.model_error))
        extra = find_hidden_peaks(scene, kernels, state, half=psf.half, fwhm=fwhm, config=hidden)
        if extra.x.size <= config.min_new_fraction * len(state.x):
            break
        state, table = _with_new(state, table, extra, turn, fwhm, config)
        fit_in_place(scene, psf, state, fwhm=fwhm, config=rough)
    state, table = _without_doubtful(scene, psf, state, table, fwhm, config)
    background = subtract_residual_background_in_place(scene, box=config.background_box)
    state.is_settled[:] = False
    fit_in_place(scene, psf, state, fwhm=fwhm, config=config.fit)
    errors = measure_errors(scene, psf, state, fwhm=fwhm, config=config.fit)
    is_beside_ray, is_on_spike = _is_beside(rays.is_struck, state, fwhm), _is_beside(is_spike, state, 0.5 * fwhm)
    is_kept = ~_is_artefact(state, table, errors, is_beside_ray, is_on_spike, config)
    state, table = _keeping(scene, psf, state, table, is_kept, 2.0 * config.fit.fit_radius_fwhm * fwhm)
    rays.follow(scene, psf, state, fwhm, config)  # again, now that what was taken for sources on rays is gone
    errors, is_stale = errors.select(is_kept), ~state.is_settled
    fit_in_place(scene, psf, state, fwhm=fwhm, config=config.fit)
    errors = measure_errors(scene, psf, state, fwhm=fwhm, config=config.fit, known=errors, is_stale=is_stale)
    scene.residual[...] = scene.image
    subtract_anew_in_place(scene, psf, state, fwhm=fwhm, config=config.fit)
    return _measured(scene, state, table, errors, footprints, noise, kernels, fwhm, rays, background)


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

    Sources much wider than the PSF do not count. Without a bright star the scene's present value is returned.
    """
    bright = np.flatnonzero(is_regular & (state.flux > 200.0 * state.flux_err))
    some = chosen(state, bright[np.argsort(-state.flux[bright], kind="stable")[:600]])
    errors = measure_errors(scene, psf, some, fwhm=fwhm)
    is_point = (np.abs(errors.sharpness) < 0.15) & (errors.n_masked == 0)
    if not is_point.any():
        return scene.model_error
    some = chosen(some, is_point)
    trial = np.geomspace(0.001, 0.1, 9)

    def excess(k: int) -> float:
        fitted = measure_errors(scene._replace(model_error=float(trial[k])), psf, some, fwhm=fwhm)
        return float(np.log(np.nanmedian(fitted.chi2)))

    return float(np.exp(_zero_of(excess, np.log(trial))))


def _zero_of(falling: Callable[[int], float], at: Floats64) -> float:
    """Return where a falling function, known by its values at the places ``at``, passes zero, linear between them.

    It is asked for as few of them as tell; beyond the first or the last place the answer is that place.
    """
    known: dict[int, float] = {}
    low, high = -1, len(at)  # above zero at the one, not above it at the other
    while high - low > 1:
        middle = (low + high) // 2
        known[middle] = falling(middle)
        low, high = (middle, high) if known[middle] > 0 else (low, middle)
    if low < 0 or high == len(at):
        return float(at[max(low, 0)])
    return float(np.interp(0.0, [-known[low], -known[high]], [at[low], at[high]]))


_REMAINS_SNR = 20.0
"""Signal to noise from which on what a source leaves tells more than its noise."""
_RAY_ROUNDS = 4
"""Most times that rays are followed and the sources that they crossed fitted anew."""


class _Rays:
    """Where cosmic rays struck, known before and found on the sources."""

    def __init__(self, is_struck: Booleans | None, is_spike: Booleans | None) -> None:
        self.is_struck = None if is_struck is None else is_struck.copy()
        self.is_spike = is_spike
        self.y = self.x = np.zeros(0, dtype=np.int64)

    def follow(self, scene: Scene, psf: SplinePsf, state: SourceState, fwhm: float, config: PointSourceConfig) -> None:
        """Follow rays across the sources, fitting these anew as more of a ray's light is taken from them."""
        if self.is_struck is None or config.rays is None:
            return
        planes = np.zeros(self.is_struck.shape, np.float32), np.zeros(self.is_struck.shape, np.float32)
        for _ in range(_RAY_ROUNDS):
            y, x = take_out_rays_in_place(
                scene, psf, self.is_struck, is_spike=self.is_spike, config=config.rays, planes=planes
            )
            if y.size == 0 or len(state.x) == 0:
                break
            self.y, self.x = np.concatenate([self.y, y]), np.concatenate([self.x, x])
            rows = np.flatnonzero(_is_near(state, x, y, 2.0 * config.fit.fit_radius_fwhm * fwhm))
            crossed = chosen(state, rows)
            crossed.is_settled[:] = False
            fit_in_place(scene, psf, crossed, fwhm=fwhm, config=config.fit)
            for values, fitted in zip(state, crossed, strict=True):
                values[rows] = fitted
            state.is_settled[rows] = False


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
    rows = rows[np.lexsort((peaks.x[rows], np.floor(peaks.y[rows] / BAND)))]
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
    if cores.x.size == 0:
        return np.zeros(peaks.x.size, dtype=bool)
    return mask_bits_within(cores.labels, x=peaks.x, y=peaks.y, radius=1.5 * fwhm) != 0


def _with_new(
    state: SourceState, table: _Table, extra: Peaks, turn: int, fwhm: float, config: PointSourceConfig
) -> tuple[SourceState, _Table]:
    n = extra.x.size
    fresh = new_sources(
        extra.x, extra.y, fit_radius=config.fit.fit_radius_fwhm * fwhm, flux=extra.score.astype(np.float64)
    )
    state.is_settled[_is_near(state, extra.x, extra.y, 3.0 * config.fit.fit_radius_fwhm * fwhm)] = False
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
    ny, nx = scene.image.shape
    is_inside = (state.x > -0.5) & (state.x < nx - 0.5) & (state.y > -0.5) & (state.y < ny - 0.5)
    is_real = is_inside & np.isfinite(state.flux_err) & (state.flux > config.min_final_snr * state.flux_err)
    is_real &= np.isfinite(state.flux)
    pairs = cKDTree(np.column_stack([state.x, state.y])).query_pairs(config.merge_fwhm * fwhm, output_type="ndarray")
    is_first_fainter = state.flux[pairs[:, 0]] < state.flux[pairs[:, 1]]
    fainter = np.where(is_first_fainter, pairs[:, 0], pairs[:, 1])
    is_real[fainter] = False
    # The one that stays takes over the light of the other: it starts anew between them.
    brighter = np.where(is_first_fainter, pairs[:, 1], pairs[:, 0])
    release_in_place(scene, psf, state, np.isin(np.arange(len(state.x)), brighter))
    share = np.clip(state.flux[fainter] / np.maximum(state.flux[fainter] + state.flux[brighter], 1e-30), 0.0, 0.5)
    state.x[brighter] += share * (state.x[fainter] - state.x[brighter])
    state.y[brighter] += share * (state.y[fainter] - state.y[brighter])
    return _keeping(scene, psf, state, table, is_real, 2.0 * config.fit.fit_radius_fwhm * fwhm)


def _is_near(state: SourceState, x: NDArray[Any], y: NDArray[Any], reach: float) -> Booleans:
    """Return which sources lie nearer than ``reach`` pixels to one of the places."""
    places, tree = np.column_stack([state.x, state.y]), cKDTree(np.column_stack([x, y]))
    return np.isfinite(tree.query(places, distance_upper_bound=reach)[0])


def _is_beside(is_struck: Booleans | None, state: SourceState, radius: float) -> Booleans:
    if is_struck is None:
        return np.zeros(len(state.x), dtype=bool)
    return mask_bits_within(is_struck.view(np.int8), x=state.x, y=state.y, radius=radius) != 0


def _is_artefact(
    state: SourceState,
    table: _Table,
    errors: SourceErrors,
    is_beside_ray: Booleans,
    is_on_spike: Booleans,
    config: PointSourceConfig,
) -> Booleans:
    """Return which sources are bits of spikes, trails and rays, or badly subtracted stars, or cannot be tested.

    Faint ones are, that the PSF fits badly; but those of the first pass that are significantly wider than the PSF
    may be galaxies. Hidden ones are, however bright, that leave about as much as was taken away with them. Nothing in
    the sky is narrower than the PSF.
    """
    misfit = (errors.chi2 - 1.0) * np.sqrt(np.maximum(errors.n_pixels - 3, 1) / 2.0)
    snr = np.fmax(state.flux / errors.flux_err, table.snr)
    is_first = table.found_in_pass == 0
    is_galaxy = is_first & (errors.sharpness > 1.5 * errors.sharpness_err)
    limit = np.where(is_first, config.max_misfit, config.hidden.max_misfit) + config.misfit_growth * snr
    is_artefact = (misfit > limit) & ~is_galaxy
    is_artefact |= is_beside_ray & ((misfit > 1.0) | (errors.sharpness < 0.0))
    is_artefact |= is_on_spike & (misfit > config.hidden.max_misfit) & (snr < config.spike_snr)
    is_artefact &= snr < config.faint_snr
    # Remains of a fraction of the source at each pixel raise chi-square times pixels by (fraction x S/N) squared.
    remains = np.sqrt(np.maximum(errors.chi2 - 1.0, 0.0) * np.maximum(errors.n_pixels - 3, 1)) / snr
    is_artefact |= ~is_first & (remains > config.max_remains) & (snr > _REMAINS_SNR)
    is_artefact |= errors.sharpness < np.minimum(config.max_sharpening, -10.0 * errors.sharpness_err)
    is_artefact |= ~np.isfinite(errors.chi2)
    return is_artefact & (table.core < 0)


def _keeping(
    scene: Scene, psf: SplinePsf, state: SourceState, table: _Table, is_kept: Booleans, reach: float
) -> tuple[SourceState, _Table]:
    """Put the light of the others back, and unsettle what lies within ``reach`` pixels of them."""
    release_in_place(scene, psf, state, ~is_kept)
    if not is_kept.all() and is_kept.any():
        state.is_settled[_is_near(state, state.x[~is_kept], state.y[~is_kept], reach)] = False
    return chosen(state, is_kept), _Table._make(values[is_kept] for values in table)


def _measured(
    scene: Scene,
    state: SourceState,
    table: _Table,
    errors: SourceErrors,
    footprints: Footprints,
    noise: NoiseModel,
    kernels: NDArray[np.float32],
    fwhm: float,
    rays: _Rays,
    background: ResidualBackground,
) -> PointSources:
    ratio = blank_noise_ratio(scene, kernels)
    extra = np.maximum(ratio**2 - 1.0, 0.0)
    grown = np.sqrt(1.0 + extra * (errors.sky_flux_err / errors.flux_err) ** 2)
    # A background of one per pixel gives a fit the flux 1 / sum(PSF**2), which the error from the sky's noise tells.
    sky_err = background.error_at(x=state.x, y=state.y)
    iy, ix = (
        np.clip(np.rint(a).astype(int), 0, n - 1) for a, n in zip((state.y, state.x), scene.image.shape, strict=True)
    )
    area = errors.sky_flux_err**2 / noise.sky_variance[iy, ix]
    flux_err = np.hypot(errors.flux_err * grown, np.nan_to_num(sky_err * area))
    errors = errors._replace(flux_err=flux_err, x_err=errors.x_err * grown, y_err=errors.y_err * grown)
    snr = np.where(np.isfinite(table.snr), table.snr, state.flux / errors.flux_err)
    return PointSources(
        state, errors, snr, table.found_in_pass, table.core >= 0, table.is_blended, table.first_index,
        scene, footprints, noise, ratio, scene.model_error, fwhm,
        annulus_sky(scene, x=state.x, y=state.y, inner=3.0 * fwhm, outer=6.0 * fwhm), sky_err, rays.y, rays.x,
    )  # fmt: skip
