"""Make a PSF model from the stars of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.algorithms.detection.noise import NoiseModel
from gueststar.algorithms.detection.peaks import Peaks
from gueststar.algorithms.psf.evaluate import normalised, polynomial_terms
from gueststar.algorithms.psf.profile import (
    Moffat,
    drawn_on_grid,
    fit_moffat,
    mean_profile,
    moffat_of,
    smooth_profile,
)
from gueststar.algorithms.psf.scene import chosen, make_scene, new_sources
from gueststar.algorithms.psf.simultaneous import FitConfig, fit_in_place, measure_errors
from gueststar.algorithms.psf.solve import StarStamps, solve_samples
from gueststar.algorithms.psf.spline import SplinePsf, shifted_stamps, spline_psf

Booleans = NDArray[np.bool_]
Floats32 = NDArray[np.float32]
Floats64 = NDArray[np.float64]


@dataclass(frozen=True)
class PsfFitConfig:
    """How the PSF is modelled."""

    radius_fwhm: float = 5.5
    """Half side of the stamps, in FWHM."""
    min_radius: int = 10
    """Least half side, pixels."""
    max_radius: int = 30
    """Largest half side, pixels."""
    oversample_below: float = 4.5
    """Two samples a pixel where the FWHM is smaller than this many pixels."""
    oversample_more_below: float = 1.7
    """Three samples a pixel where it is smaller than this."""
    stars_for_order: tuple[int, int, int] = (20, 60, 400)
    """Fewest stars for a polynomial in position of degree 1, 2 and 3."""
    max_order: int = 3
    """Highest degree."""
    iterations: int = 3
    """Rounds of fitting the stars with the model and the model to the stars."""
    model_error: float = 0.01
    """Expected fractional difference between a star and the model: keeps the brightest from ruling."""
    prior_fraction: float = 0.3
    """How far a sample is expected to be from the round profile, as a fraction of it."""
    prior_gradient: float = 0.15
    """The same for the terms that vary with position."""
    min_stars: int = 3
    """With fewer stars the model is a round profile."""
    max_chi2: float = 4.0
    """Stars whose reduced chi-square exceeds this many times the median are dropped."""


class PsfFit(NamedTuple):
    """A PSF model in the form of `gueststar.model.psf.Psf`, and what it was made from."""

    coefficients: Floats32
    order: int
    oversampling: int
    kind: str
    """"pixel": samples fitted to the stars; "profile": a round profile, for want of stars."""
    moffat: Moffat
    """Round profile that fits the core."""
    x: Floats64
    """Fitted positions of the given stars."""
    y: Floats64
    flux: Floats64
    """Fitted fluxes, image units."""
    chi2: Floats64
    """Reduced chi-square of each with the final model."""
    is_used: Booleans
    """Was used to the end."""


class StarFits(NamedTuple):
    """Stars fitted with a model, their neighbours subtracted."""

    x: Floats64
    y: Floats64
    flux: Floats64
    flux_err: Floats64
    chi2: Floats64
    sharpness: Floats64
    sharpness_err: Floats64
    data: Floats32
    """``[n, side, side]`` pixels about each star's nearest pixel, neighbours subtracted, image units."""
    model: Floats32
    """The fitted model of the same pixels."""
    sky_variance: Floats32
    """Variance of the sky in the same pixels; infinite where masked or outside."""

    def select(self, index: Booleans) -> StarFits:
        """Return some of the stars."""
        return StarFits._make(values[index] for values in self)


def fit_psf(
    image: Floats32,
    noise: NoiseModel,
    is_masked: Booleans,
    peaks: Peaks,
    stars: NDArray[np.int64],
    *,
    sigma: float,
    config: PsfFitConfig = PsfFitConfig(),
) -> PsfFit:
    """Return the PSF that the ``stars`` (rows of ``peaks``) share, varying with position as their number allows.

    ``peaks`` are all detections: those near the stars are fitted and subtracted. ``sigma`` is the stars'
    size (pixels). The model is centred (its windowed centroid is at the middle sample everywhere) and normalised
    to one over its stamp. At least one star is needed.
    """
    fwhm, shape = 2.3548 * sigma, (image.shape[0], image.shape[1])
    radius = stamp_radius(fwhm, config)
    oversampling = oversampling_for(fwhm, stars.size, config)
    side = 2 * radius * oversampling + 1
    moffat = moffat_of(fwhm)
    samples = drawn_on_grid(np.zeros(1), moffat.at(np.zeros(1)), moffat, side=side, oversampling=oversampling)[None]
    order, kind = 0, "profile"
    is_used = np.ones(stars.size, dtype=bool)
    for iteration in range(config.iterations + 1):
        model = spline_psf(samples.astype(np.float32), order, shape, oversampling)
        error = max(config.model_error, 0.1 / 4.0**iteration)
        fits = fit_stars(image, noise, is_masked, peaks, stars, model, fwhm=fwhm, model_error=error)
        is_used = _still_used(fits, is_used, config)
        if iteration == config.iterations:
            break
        usable = fits.select(is_used)
        stamps, radii = _stamps(usable, noise.slope, error, model)
        moffat, round_samples = _round_model(stamps, radii, fwhm=fwhm, side=side, oversampling=oversampling)
        if usable.x.size < config.min_stars:
            samples, order = round_samples[None], 0
            continue
        order, start = (0, None) if iteration == 0 else (_order_for(usable.x.size, config), samples)
        samples = _solved(usable, stamps, round_samples, start, order, shape, oversampling, config)
        kind = "pixel"
    return PsfFit(
        samples.astype(np.float32), order, oversampling, kind, moffat,
        fits.x, fits.y, fits.flux, fits.chi2, is_used,
    )  # fmt: skip


def stamp_radius(fwhm: float, config: PsfFitConfig = PsfFitConfig()) -> int:
    """Return the half side of the model's stamps, pixels."""
    return int(np.clip(round(config.radius_fwhm * fwhm), config.min_radius, config.max_radius))


def oversampling_for(fwhm: float, n_stars: int, config: PsfFitConfig = PsfFitConfig()) -> int:
    """Return the samples a pixel: more for narrow PSFs, as far as the number of stars gives phases enough."""
    if fwhm < config.oversample_more_below and n_stars >= config.stars_for_order[0]:
        return 3
    return 2 if fwhm < config.oversample_below else 1


def fit_stars(
    image: Floats32,
    noise: NoiseModel,
    is_masked: Booleans,
    peaks: Peaks,
    stars: NDArray[np.int64],
    model: SplinePsf,
    *,
    fwhm: float,
    model_error: float,
) -> StarFits:
    """Fit stars (rows of ``peaks``) and all peaks near them with the model; return the stars, neighbours subtracted."""
    near = _neighbourhood(peaks, stars, 1.5 * model.half)
    rows = np.searchsorted(near, stars).astype(np.int64)
    scene = make_scene(image, noise, is_masked, model_error=model_error)
    config = FitConfig(max_sweeps=5)
    state = new_sources(
        peaks.x[near], peaks.y[near],
        fit_radius=config.fit_radius_fwhm * fwhm, flux=peaks.score[near].astype(np.float64),
    )  # fmt: skip
    fit_in_place(scene, model, state, fwhm=fwhm, config=config)
    own = chosen(state, rows)
    errors = measure_errors(scene, model, own, fwhm=fwhm, config=config)
    ix, iy = np.rint(own.x).astype(np.int64), np.rint(own.y).astype(np.int64)
    unit = shifted_stamps(model, x=own.x, y=own.y, dx=own.x - ix, dy=own.y - iy)
    fitted = (own.flux.astype(np.float32)[:, None, None] * unit).astype(np.float32)
    residual = cutouts(scene.residual, ix, iy, model.half, 0.0)
    variance = cutouts(np.where(scene.is_masked, np.float32(np.inf), scene.sky_variance), ix, iy, model.half, np.inf)
    return StarFits(
        own.x, own.y, own.flux, errors.flux_err, errors.chi2, errors.sharpness, errors.sharpness_err,
        residual + fitted, fitted, variance,
    )  # fmt: skip


def cutouts(image: Floats32, ix: NDArray[np.int64], iy: NDArray[np.int64], half: int, fill: float) -> Floats32:
    """Return ``[n, 2 half + 1, 2 half + 1]`` pixels about whole positions; ``fill`` beyond the image."""
    g = np.arange(-half, half + 1)
    y, x = iy[:, None] + g, ix[:, None] + g
    is_in_y, is_in_x = (y >= 0) & (y < image.shape[0]), (x >= 0) & (x < image.shape[1])
    y, x = np.clip(y, 0, image.shape[0] - 1), np.clip(x, 0, image.shape[1] - 1)
    stamps = image[y[:, :, None], x[:, None, :]]
    return np.where(is_in_y[:, :, None] & is_in_x[:, None, :], stamps, np.float32(fill)).astype(np.float32)


def _neighbourhood(peaks: Peaks, stars: NDArray[np.int64], reach: float) -> NDArray[np.int64]:
    """Return the rows of the stars and of all peaks within ``reach`` pixels of one, in rising order."""
    tree = cKDTree(np.column_stack([peaks.x[stars], peaks.y[stars]]))
    distance, _ = tree.query(np.column_stack([peaks.x, peaks.y]), distance_upper_bound=reach)
    return np.union1d(np.flatnonzero(np.isfinite(distance)), stars)


def _still_used(fits: StarFits, is_used: Booleans, config: PsfFitConfig) -> Booleans:
    """Return which stars are still good: clearly detected, and neither worse fitted nor wider than the rest."""
    is_good = is_used & (fits.flux > 5.0 * fits.flux_err) & np.isfinite(fits.chi2)
    if is_good.sum() < config.min_stars:
        return is_good
    chi2 = np.median(fits.chi2[is_good])
    width = np.median(fits.sharpness[is_good])
    scatter = 1.4826 * np.median(np.abs(fits.sharpness[is_good] - width))
    limit = 4.0 * np.hypot(np.maximum(scatter, 0.02), fits.sharpness_err)
    return is_good & (fits.chi2 < config.max_chi2 * max(chi2, 1.0)) & (np.abs(fits.sharpness - width) < limit)


def _order_for(n_stars: int, config: PsfFitConfig) -> int:
    allowed = sum(n_stars >= least for least in config.stars_for_order)
    return min(allowed, config.max_order)


def _stamps(fits: StarFits, slope: float, model_error: float, model: SplinePsf) -> tuple[StarStamps, Floats64]:
    """Return the stars' pixels over their fluxes with robust weights, and each pixel's distance from the centre."""
    flux = fits.flux.astype(np.float32)[:, None, None]
    variance = fits.sky_variance + slope * np.maximum(fits.model, 0) + (model_error * fits.model) ** 2
    pull = np.abs(fits.data - fits.model) / np.sqrt(variance)
    weight = flux**2 / variance * np.minimum(1.0, 4.0 / np.maximum(pull, 1e-6))
    dx, dy = fits.x - np.rint(fits.x), fits.y - np.rint(fits.y)
    g = np.arange(-model.half, model.half + 1)
    radii = np.hypot(g - dx[:, None, None], g[:, None] - dy[:, None, None])
    return StarStamps(
        (fits.data / flux).astype(np.float32), weight.astype(np.float32), dx, dy, np.ones((len(dx), 1))
    ), radii


def _round_model(
    stamps: StarStamps, radii: Floats64, *, fwhm: float, side: int, oversampling: int
) -> tuple[Moffat, Floats64]:
    reach = (side // 2) / oversampling
    value, weight = stamps.value.ravel().astype(np.float64), stamps.weight.ravel().astype(np.float64)
    rings = mean_profile(radii.ravel(), value, weight, fwhm=fwhm, reach=reach)
    moffat = fit_moffat(rings, fwhm=fwhm)
    radius, value = smooth_profile(rings, moffat)
    return moffat, drawn_on_grid(radius, value, moffat, side=side, oversampling=oversampling)


def _solved(
    fits: StarFits,
    stamps: StarStamps,
    round_samples: Floats64,
    start: Floats64 | None,
    order: int,
    shape: tuple[int, int],
    oversampling: int,
    config: PsfFitConfig,
) -> Floats64:
    terms = polynomial_terms(*normalised(fits.x, fits.y, shape), config.max_order).T
    if start is not None:
        offset_x, offset_y = _windowed_offsets(start, terms[:, : start.shape[0]], oversampling)
        stamps = stamps._replace(dx=stamps.dx + offset_x, dy=stamps.dy + offset_y)
    terms = terms[:, : (order + 1) * (order + 2) // 2]
    stamps = stamps._replace(terms=terms)
    n_terms = terms.shape[1]
    prior, prior_sigma = np.zeros((n_terms, *round_samples.shape)), np.empty((n_terms, *round_samples.shape))
    prior[0] = round_samples
    scale = np.maximum(round_samples, 1e-6 * round_samples.max())
    prior_sigma[0], prior_sigma[1:] = config.prior_fraction * scale, config.prior_gradient * scale
    first = prior.copy()
    if start is not None:  # of a lower order, or of a higher one where stars were lost meanwhile
        shared = min(n_terms, start.shape[0])
        first[:shared] = start[:shared]
    found = solve_samples(stamps, prior, prior_sigma, oversampling=oversampling, start=first)
    return _normalised_samples(found, oversampling)


def _windowed_offsets(samples: Floats64, terms: Floats64, oversampling: int) -> tuple[Floats64, Floats64]:
    """Return the windowed centroid of the model at each star, image pixels from the middle."""
    k = samples.shape[1]
    g = (np.arange(k) - k // 2) / oversampling
    local = (terms @ samples.reshape(len(samples), -1)).reshape(-1, k, k)
    mean = samples[0]
    spread = np.sum(mean * (g[:, None] ** 2 + g**2) * (np.hypot(g[:, None], g) < g[-1] / 3)) / mean.sum()
    x, y = np.zeros(len(local)), np.zeros(len(local))
    for _ in range(6):
        wx = np.exp(-0.5 * (g - x[:, None]) ** 2 / spread)
        wy = np.exp(-0.5 * (g - y[:, None]) ** 2 / spread)
        total = np.einsum("nij,ni,nj->n", local, wy, wx, optimize=True)
        x = x + 2.0 * np.einsum("nij,ni,nj->n", local, wy, wx * (g - x[:, None]), optimize=True) / total
        y = y + 2.0 * np.einsum("nij,ni,nj->n", local, wy * (g - y[:, None]), wx, optimize=True) / total
    return x, y


def _normalised_samples(samples: Floats64, oversampling: int) -> Floats64:
    """Return samples whose pixel-sampled sum is one at every position, and at every sub-pixel phase in the mean."""
    total = samples.sum(axis=(1, 2)) / oversampling**2
    scaled = samples / total[0]
    scaled[1:] -= scaled[0] * (total[1:] / total[0])[:, None, None]
    for j in range(oversampling):
        for i in range(oversampling):
            scaled[:, j::oversampling, i::oversampling] /= scaled[0, j::oversampling, i::oversampling].sum()
    return scaled
