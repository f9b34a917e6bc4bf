"""Make a PSF model from the stars of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.algorithms.detection.peaks import Peaks
from gueststar.algorithms.psf.evaluate import normalised, polynomial_terms
from gueststar.algorithms.psf.profile import (
    Moffat,
    drawn_on_grid,
    fit_moffat,
    mean_profile,
    moffat_of,
    radius_of_light,
    smooth_profile,
)
from gueststar.algorithms.psf.scene import Scene, SourceState, chosen, new_sources
from gueststar.algorithms.psf.simultaneous import (
    FitConfig,
    fit_in_place,
    measure_errors,
    subtract_anew_in_place,
)
from gueststar.algorithms.psf.solve import StarStamps, solve_samples
from gueststar.algorithms.psf.spline import SplinePsf, shifted_stamps, spline_psf

Booleans = NDArray[np.bool_]
Floats32 = NDArray[np.float32]
Floats64 = NDArray[np.float64]


_WINDOW_REACH = 6.0
"""Sigma up to which pixels matter to a centroid in a Gaussian window."""


@dataclass(frozen=True)
class PsfFitConfig:
    """How the PSF is modelled."""

    energy_outside: float = 0.004
    """Stamps reach to where this share of the light, as far as it can be seen, is left outside."""
    min_radius_fwhm: float = 4.5
    """Least half side of the stamps, in FWHM."""
    min_radius: int = 10
    """Least half side, pixels."""
    max_radius: int = 30
    """Largest half side, pixels."""
    oversample_below: float = 4.5
    """Two samples a pixel where the FWHM is smaller than this many pixels."""
    stars_for_order: tuple[int, int, int] = (20, 60, 300)
    """Fewest stars for a polynomial in position of degree 1, 2 and 3."""
    max_order: int = 3
    """Highest degree."""
    min_iterations: int = 3
    """Fewest rounds of fitting the stars with the model and the model to the stars."""
    max_iterations: int = 7
    """Most rounds; they end when the model's error no longer falls by a tenth. Undersampled images need more."""
    model_error: float = 0.01
    """Least fractional difference to be expected between a star and the model: keeps the brightest from ruling."""
    max_model_error: float = 0.1
    """Largest such difference; it is measured on the stars between these."""
    prior_fraction: float = 0.3
    """How far a sample is expected to be from the round profile, as a fraction of it."""
    prior_gradient: float = 0.15
    """The same for the terms that vary with position."""
    stars_for_profile: int = 150
    """Brightest stars that the round profile is measured on."""
    stars_at_first: int = 150
    """The model is made of at least so many stars, not of all, while another of the ``min_iterations`` follows."""
    min_stars: int = 3
    """With fewer stars the model is a round profile."""
    max_chi2: float = 4.0
    """Stars whose reduced chi-square, model error included, exceeds this are not used."""


class StarFits(NamedTuple):
    """Stars fitted with a model, their neighbours subtracted."""

    x: Floats64
    y: Floats64
    flux: Floats64
    flux_err: Floats64
    sharpness: Floats64
    sharpness_err: Floats64
    data: Floats32
    """``[n, side, side]`` pixels about each star's nearest pixel, neighbours subtracted, image units."""
    model: Floats32
    """The fitted model of the same pixels."""
    sky_variance: Floats32
    """Variance of the sky in the same pixels; infinite where masked or outside."""

    def select(self, index: Booleans | NDArray[np.int64]) -> StarFits:
        """Return some of the stars."""
        return StarFits._make(values[index] for values in self)


class PsfFit(NamedTuple):
    """A PSF model in the form of `gueststar.model.psf.Psf`, and what it was made from."""

    coefficients: Floats32
    order: int
    oversampling: int
    kind: str
    """"pixel": samples fitted to the stars; "profile": a round profile, for want of stars."""
    moffat: Moffat
    """Round profile that fits the core."""
    stars: StarFits
    """All given stars, fitted with the final model."""
    chi2: Floats64
    """Reduced chi-square of their cores, ``model_error`` included."""
    model_error: float
    """Fractional difference per pixel between bright stars and the model."""
    is_used: Booleans
    """Was used to the end."""


def fit_psf(
    scene: Scene,
    peaks: Peaks,
    stars: NDArray[np.int64],
    *,
    sigma: float,
    is_reserved: Booleans | None = None,
    config: PsfFitConfig = PsfFitConfig(),
) -> PsfFit:
    """Return the PSF that the ``stars`` (rows of ``peaks``) share, varying with position as their number allows.

    The scene's residual image is what the last model of the stars and their neighbours left of it.
    ``peaks`` are all detections: those near the stars are fitted and subtracted. ``sigma`` is the stars'
    size (pixels). Stars that ``is_reserved`` are fitted with the model but do not make it. The model is centred (its
    windowed centroid is at the middle sample everywhere) and normalised to one over its stamp. At least one
    star that is not reserved is needed.
    """
    fwhm = 2.3548 * sigma
    kept_aside = np.zeros(stars.size, dtype=bool) if is_reserved is None else is_reserved
    scene = scene._replace(model_error=config.max_model_error)
    grid, moffat = first_model(scene, peaks, stars[~kept_aside], fwhm=fwhm, config=config)
    crowd = _Crowd.around(peaks, stars, half=grid.half, fwhm=fwhm)
    kind, error = "profile", config.max_model_error
    for iteration in range(config.max_iterations + 1):
        fits = crowd.fitted(scene._replace(model_error=error), grid.spline(), fwhm=fwhm)
        previous, error = error, measured_error(fits, scene.slope, fwhm=fwhm, config=config)
        chi2 = core_chi2(fits, scene.slope, error, fwhm=fwhm)
        is_used = ~kept_aside & _is_usable(fits, chi2, config, leniency=3.0 if iteration == 0 else 1.0)
        is_done = iteration >= config.min_iterations and error > 0.9 * previous
        if is_done or iteration == config.max_iterations or is_used.sum() < config.min_stars:
            break
        makers = np.flatnonzero(is_used)
        if iteration < config.min_iterations - 1:
            makers = makers[:: max(1, makers.size // config.stars_at_first)]
        grid = _improved(fits.select(makers), scene.slope, error, grid, fwhm=fwhm, config=config)
        kind = "pixel"
    return PsfFit(
        grid.samples.astype(np.float32), grid.order, grid.oversampling, kind, moffat, fits, chi2, error, is_used
    )


class SampleGrid(NamedTuple):
    """A model in the making."""

    samples: Floats64
    """``[n_terms, k, k]``."""
    order: int
    oversampling: int
    shape: tuple[int, int]
    round_samples: Floats64
    """``[k, k]`` round profile: what is expected where the stars leave it open."""

    @property
    def half(self) -> int:
        """Half side of the stamps, image pixels."""
        return self.samples.shape[1] // 2 // self.oversampling

    def spline(self) -> SplinePsf:
        """Return the model for rendering."""
        return spline_psf(self.samples.astype(np.float32), self.order, self.shape, self.oversampling)


class _Crowd(NamedTuple):
    """The stars and their neighbours, as they are fitted, and which rows are the stars."""

    state: SourceState
    rows: NDArray[np.int64]

    @classmethod
    def around(cls, peaks: Peaks, stars: NDArray[np.int64], *, half: int, fwhm: float) -> _Crowd:
        """Return the stars with all that matters within ``half`` pixels of them.

        That is what lies in a stamp or has its core near it, and what is bright and not further than two stamps.
        """
        places = np.column_stack([peaks.x, peaks.y])
        distance, _ = cKDTree(places[stars]).query(places, distance_upper_bound=2.0 * half)
        is_bright = peaks.score > 0.2 * np.median(peaks.score[stars])
        near = np.flatnonzero(np.where(is_bright, distance < 2.0 * half, distance < half + 2.5 * fwhm))
        near = np.union1d(near, stars)
        radius = FitConfig().fit_radius_fwhm * fwhm
        state = new_sources(peaks.x[near], peaks.y[near], fit_radius=radius, flux=peaks.score[near].astype(np.float64))
        return cls(state, np.searchsorted(near, stars).astype(np.int64))

    def fitted(self, scene: Scene, model: SplinePsf, *, fwhm: float) -> StarFits:
        """Fit all with the model, from where they stand; return the stars, neighbours subtracted."""
        is_first = bool((self.state.reach < 0).all())
        scene.residual[...] = scene.image
        config = FitConfig(max_sweeps=3 if is_first else 2)
        if not is_first:
            subtract_anew_in_place(scene, model, self.state, fwhm=fwhm, config=config)
        fit_in_place(scene, model, self.state, fwhm=fwhm, config=config)
        return _star_fits(scene, model, chosen(self.state, self.rows), fwhm=fwhm)


def _star_fits(scene: Scene, model: SplinePsf, own: SourceState, *, fwhm: float) -> StarFits:
    errors = measure_errors(scene, model, own, fwhm=fwhm)
    ix, iy = np.rint(own.x).astype(np.int64), np.rint(own.y).astype(np.int64)
    unit = shifted_stamps(model, x=own.x, y=own.y, dx=own.x - ix, dy=own.y - iy)
    fitted = (own.flux.astype(np.float32)[:, None, None] * unit).astype(np.float32)
    variance = cutouts(scene.sky_variance, ix, iy, model.half, np.inf)
    return StarFits(
        own.x, own.y, own.flux, errors.flux_err, errors.sharpness, errors.sharpness_err,
        cutouts(scene.residual, ix, iy, model.half, 0.0) + fitted, fitted, variance,
    )  # fmt: skip


def first_model(
    scene: Scene, peaks: Peaks, stars: NDArray[np.int64], *, fwhm: float, config: PsfFitConfig
) -> tuple[SampleGrid, Moffat]:
    """Return the round model that the brightest stars' mean profile gives, its stamps as large as the light reaches."""
    widest = config.max_radius
    guess = moffat_of(fwhm)
    alone = drawn_on_grid(np.zeros(1), np.ones(1), guess, side=2 * 2 * widest + 1, oversampling=2)[None]
    shape = (scene.image.shape[0], scene.image.shape[1])
    brightest = np.sort(stars[np.argsort(-peaks.score[stars], kind="stable")[: config.stars_for_profile]])
    crowd = _Crowd.around(peaks, brightest, half=widest, fwhm=fwhm)
    fits = crowd.fitted(scene, SampleGrid(alone, 0, 2, shape, alone[0]).spline(), fwhm=fwhm)
    stamps, radii = _stamps(fits, scene.slope, config.max_model_error), _radii(fits, widest)
    value, weight = stamps.value.ravel().astype(np.float64), stamps.weight.ravel().astype(np.float64)
    rings = mean_profile(radii.ravel(), value, weight, fwhm=fwhm, reach=float(widest))
    moffat = fit_moffat(rings, fwhm=fwhm)
    profile = smooth_profile(rings, moffat)
    least = max(config.min_radius, round(config.min_radius_fwhm * moffat.fwhm))
    radius = int(np.clip(radius_of_light(*profile, outside=config.energy_outside), min(least, widest), widest))
    oversampling = 2 if moffat.fwhm < config.oversample_below else 1
    drawn = drawn_on_grid(*profile, moffat, side=2 * radius * oversampling + 1, oversampling=oversampling)
    return SampleGrid(drawn[None], 0, oversampling, shape, drawn), moffat


def core_chi2(fits: StarFits, slope: float, model_error: float, *, fwhm: float) -> Floats64:
    """Return the reduced chi-square of each star's pixels within 1.3 FWHM, the error of the model included."""
    return _Cores.of(fits, slope, fwhm=fwhm).chi2(model_error)


def measured_error(fits: StarFits, slope: float, *, fwhm: float, config: PsfFitConfig) -> float:
    """Return the fractional error of the model that gives the brighter half of the stars a median chi-square of one."""
    brightest = fits.select(np.argsort(-fits.flux, kind="stable")[: max(5, fits.flux.size // 2)])
    cores = _Cores.of(brightest, slope, fwhm=fwhm)
    trial = np.geomspace(config.model_error, config.max_model_error, 8)
    chi2 = np.array([np.nanmedian(cores.chi2(float(e))) for e in trial])
    if not np.isfinite(chi2).all():
        return config.max_model_error
    return float(np.exp(np.interp(0.0, -np.log(np.maximum(chi2, 1e-30)), np.log(trial))))


class _Cores(NamedTuple):
    """The stars' pixels within 1.3 FWHM; zero where they do not count."""

    square: Floats32
    """``[n, side, side]`` (data - model)**2."""
    noise: Floats32
    """Variance of sky and photons; infinite where masked."""
    signal: Floats32
    """The model."""
    n_pixels: NDArray[np.int64]

    @classmethod
    def of(cls, fits: StarFits, slope: float, *, fwhm: float) -> _Cores:
        """Return the cores of stars whose noise grows by ``slope`` with the light."""
        middle = fits.data.shape[1] // 2
        reach = min(int(np.ceil(1.3 * fwhm)) + 1, middle)
        core = (slice(None), *2 * (slice(middle - reach, middle + reach + 1),))
        data, model, sky = fits.data[core], fits.model[core], fits.sky_variance[core]
        is_core = (_radii(fits, reach) < 1.3 * fwhm) & np.isfinite(sky)
        square = np.where(is_core, (data - model) ** 2, np.float32(0))
        noise = np.asarray(sky + slope * np.maximum(model, 0), dtype=np.float32)
        return cls(square, noise, model, np.count_nonzero(is_core, axis=(1, 2)))

    def chi2(self, model_error: float) -> Floats64:
        """Return each star's reduced chi-square for a fractional error of the model."""
        variance = self.noise + (model_error * self.signal) ** 2
        total = np.sum(self.square / variance, axis=(1, 2), dtype=np.float64)
        return np.where(self.n_pixels > 3, total / np.maximum(self.n_pixels - 3, 1), np.nan)


def cutouts(image: Floats32, ix: NDArray[np.int64], iy: NDArray[np.int64], half: int, fill: float) -> Floats32:
    """Return ``[n, 2 half + 1, 2 half + 1]`` pixels about whole positions; ``fill`` beyond the image."""
    out = np.full((len(ix), 2 * half + 1, 2 * half + 1), fill, dtype=np.float32)
    _copy_cutouts(image, ix, iy, out)
    return out


@njit(cache=True, error_model="numpy")
def _copy_cutouts(image: Floats32, ix: NDArray[np.int64], iy: NDArray[np.int64], out: Floats32) -> None:
    ny, nx = image.shape
    half = out.shape[1] // 2
    for n in range(ix.size):
        x0, x1 = max(ix[n] - half, 0), min(ix[n] + half + 1, nx)
        for y in range(max(iy[n] - half, 0), min(iy[n] + half + 1, ny)):
            if x0 < x1:
                out[n, y - iy[n] + half, x0 - ix[n] + half : x1 - ix[n] + half] = image[y, x0:x1]


def _is_usable(fits: StarFits, chi2: Floats64, config: PsfFitConfig, *, leniency: float) -> Booleans:
    """Return which stars are good: clearly detected, and neither worse fitted nor wider than the rest.

    ``leniency`` widens the limits while the model is a rough one, lest it never learn where the PSF differs.
    """
    is_good = (fits.flux > 5.0 * fits.flux_err) & (chi2 < leniency * config.max_chi2)
    if is_good.sum() < config.min_stars:
        return is_good
    width = np.median(fits.sharpness[is_good])
    scatter = 1.4826 * np.median(np.abs(fits.sharpness[is_good] - width))
    limit = 4.0 * leniency * np.hypot(np.maximum(scatter, 0.02), fits.sharpness_err)
    return is_good & (np.abs(fits.sharpness - width) < limit)


def _order_for(n_stars: int, config: PsfFitConfig) -> int:
    allowed = sum(n_stars >= least for least in config.stars_for_order)
    return min(allowed, config.max_order)


def _stamps(fits: StarFits, slope: float, model_error: float) -> StarStamps:
    """Return the stars' pixels over their fluxes with robust weights."""
    flux = fits.flux.astype(np.float32)[:, None, None]
    variance = fits.sky_variance + slope * np.maximum(fits.model, 0) + (model_error * fits.model) ** 2
    pull = np.abs(fits.data - fits.model) / np.sqrt(variance)
    weight = flux**2 / variance * np.minimum(1.0, 4.0 / np.maximum(pull, 1e-6))
    dx, dy = fits.x - np.rint(fits.x), fits.y - np.rint(fits.y)
    return StarStamps((fits.data / flux).astype(np.float32), weight.astype(np.float32), dx, dy, np.ones((len(dx), 1)))


def _radii(fits: StarFits, reach: int) -> Floats64:
    """Return the distance from the stars' centres of the pixels up to ``reach`` from the middle of their stamps."""
    dx, dy = fits.x - np.rint(fits.x), fits.y - np.rint(fits.y)
    g = np.arange(-reach, reach + 1)
    return np.asarray(np.hypot(g - dx[:, None, None], g[:, None] - dy[:, None, None]))


def _improved(
    fits: StarFits, slope: float, error: float, grid: SampleGrid, *, fwhm: float, config: PsfFitConfig
) -> SampleGrid:
    """Return the samples that fit the stars best, as they now stand."""
    order = _order_for(fits.x.size, config)
    stamps = _stamps(fits, slope, error)
    terms = polynomial_terms(*normalised(fits.x, fits.y, grid.shape), order).T
    common = min(terms.shape[1], grid.samples.shape[0])
    offset_x, offset_y = _windowed_offsets(grid.samples[:common], terms[:, :common], grid.oversampling)
    stamps = stamps._replace(dx=stamps.dx + offset_x, dy=stamps.dy + offset_y, terms=terms)
    prior = np.zeros((terms.shape[1], *grid.round_samples.shape))
    prior[0] = grid.round_samples
    scale = np.maximum(grid.round_samples, 1e-6 * grid.round_samples.max())
    prior_sigma = np.broadcast_to(config.prior_gradient * scale, prior.shape).copy()
    prior_sigma[0] = config.prior_fraction * scale
    start = np.zeros_like(prior)
    start[:common] = grid.samples[:common]
    found = solve_samples(stamps, prior, prior_sigma, oversampling=grid.oversampling, start=start)
    return grid._replace(samples=_normalised_samples(found, grid.oversampling), order=order)


def _windowed_offsets(samples: Floats64, terms: Floats64, oversampling: int) -> tuple[Floats64, Floats64]:
    """Return the windowed centroid of the model at each star, image pixels from the middle."""
    k = samples.shape[1]
    g = (np.arange(k) - k // 2) / oversampling
    mean = samples[0]
    spread = np.sum(mean * (g[:, None] ** 2 + g**2) * (np.hypot(g[:, None], g) < g[-1] / 3)) / mean.sum()
    seen = np.abs(g) < _WINDOW_REACH * np.sqrt(spread)  # the window leaves nothing beyond
    g, inner = g[seen], samples[:, seen][:, :, seen]
    local = (terms @ inner.reshape(len(samples), -1)).reshape(-1, g.size, g.size)
    x, y = np.zeros(len(local)), np.zeros(len(local))
    for _ in range(6):
        wx = np.exp(-0.5 * (g - x[:, None]) ** 2 / spread)
        wy = np.exp(-0.5 * (g - y[:, None]) ** 2 / spread)
        rows, moments = np.moveaxis(local @ np.stack([wx, wx * (g - x[:, None])], axis=-1), -1, 0)
        total = np.sum(wy * rows, axis=1)
        x, y = (
            x + 2.0 * np.sum(wy * moments, axis=1) / total,
            y + 2.0 * np.sum(wy * (g - y[:, None]) * rows, axis=1) / total,
        )
    return x, y


def _normalised_samples(samples: Floats64, oversampling: int) -> Floats64:
    """Return samples whose sums over whole pixels are one, and their centroids alike, at every place and phase.

    The light that a grid of whole pixels catches is all there is, wherever on the grid the star lies, and its centroid
    moves with the star: exactly, and to 0.001 pixel where the FWHM is 1.3 pixels (what the pixels' own response
    leaves of the optics at one cycle per pixel). Stars of a phase tell of the samples of that phase only, and
    their fluxes and places are fitted too. So, unless the phases are made to agree, those of one may drift against
    those of the others, the more so where stars are few.
    """
    scaled = samples.copy()
    phases = [scaled[:, j::oversampling, i::oversampling] for j in range(oversampling) for i in range(oversampling)]
    for phase in phases:
        phase[0] /= phase[0].sum()
        phase[1:] -= phase[0] * phase[1:].sum(axis=(1, 2))[:, None, None]
    if oversampling > 1:
        g = (np.arange(samples.shape[1]) - samples.shape[1] // 2) / oversampling
        for axis in (0, 1):
            _agree_on_centroid_in_place(scaled, g, axis, oversampling)
    return scaled


def _agree_on_centroid_in_place(scaled: Floats64, g: Floats64, axis: int, oversampling: int) -> None:
    """Move the samples of each phase along an axis so that their centroids are those of all phases in the mean.

    Centroids are taken in a Gaussian window three times as wide as the PSF: smooth, so that they do not depend on the
    phase themselves, and without the wings, where neighbours' remains would rule.
    """
    sigma = np.sqrt(oversampling**2 / (4.0 * np.pi * np.sum(scaled[0] ** 2)))
    window = np.exp(-0.5 * (g / (3.0 * sigma)) ** 2)
    slope = np.gradient(scaled[0], axis=axis) * oversampling
    lever = window[:, None] * window * np.expand_dims(g, 1 - axis)
    cuts = [(slice(j, None, oversampling), slice(i, None, oversampling))
            for j in range(oversampling) for i in range(oversampling)]  # fmt: skip
    moments = np.array([np.sum(scaled[:, *cut] * lever[cut], axis=(1, 2)) for cut in cuts])
    excess = moments - moments.mean(axis=0)
    for cut, off in zip(cuts, excess, strict=True):
        move = slope[cut] - scaled[0][cut] * slope[cut].sum()
        scaled[:, *cut] -= off[:, None, None] * (move / np.sum(move * lever[cut]))
