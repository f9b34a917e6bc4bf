"""Find sources in what is left of an image when the known ones are subtracted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.algorithms.detection.matched_filter import FilteredImage, Subtracted, matched_filter, matched_score
from gueststar.algorithms.detection.peaks import Peaks, detect_peaks
from gueststar.algorithms.psf.scene import Scene, SourceState
from gueststar.algorithms.stats.select import median_of

Booleans = NDArray[np.bool_]
Float32Image = NDArray[np.float32]
Floats64 = NDArray[np.float64]


@dataclass(frozen=True)
class HiddenSourceConfig:
    """What distinguishes a hidden source from the remains of a subtracted one."""

    threshold: float = 5.5
    """Least signal to noise of a detection in what is left of the image, which holds more than noise."""
    max_misfit: float = 0.5
    """As ``max_misfit`` of the sources of the first round, which are not so easily mistaken."""
    min_separation_fwhm: float = 0.55
    """New sources must be at least this far from known ones, in FWHM."""
    model_error: float = 0.03
    """Error of the model, as a fraction, that counts as noise when the residual image is searched."""
    ring_factor: float = 2.5
    """A residual peak near a source must exceed so many times the median residual around that source..."""
    spike_factor: float = 1.5
    """...and so many times its 90th percentile."""
    ring_reach_fwhm: float = 5.0
    """Sources at most this far from a residual peak are thought of, in FWHM."""
    bright_reach_fwhm: float = 15.0
    """The same for bright stars."""


def find_hidden_peaks(
    scene: Scene,
    kernels: NDArray[np.float32],
    state: SourceState,
    *,
    half: int,
    fwhm: float,
    config: HiddenSourceConfig = HiddenSourceConfig(),
) -> Peaks:
    """Return new sources in the residual image, weighed against the noise and the error of what was subtracted.

    ``half`` is the half side of the PSF's stamps: sources subtracted that far out are bright.
    """
    score = matched_score(
        scene.residual, scene.sky_variance, scene.is_masked, kernels,
        subtracted=Subtracted(scene.image, scene.slope, config.model_error),
    )  # fmt: skip
    peaks = detect_peaks(score, config.threshold)
    if peaks.x.size == 0 or len(state.x) == 0:
        return peaks
    tree = cKDTree(np.column_stack([state.x, state.y]))
    separation = config.min_separation_fwhm * fwhm
    nearest, _ = tree.query(np.column_stack([peaks.x, peaks.y]), distance_upper_bound=separation)
    peaks = peaks.select(~np.isfinite(nearest))
    return peaks.select(~_is_in_ring(score, peaks, state, half, fwhm, config))


def filter_residual(scene: Scene, kernels: NDArray[np.float32], *, model_error: float) -> FilteredImage:
    """Return the matched filter of the residual image, in units of its noise with that of the subtracted sources."""
    subtracted = Subtracted(scene.image, scene.slope, model_error)
    return matched_filter(scene.residual, scene.sky_variance, scene.is_masked, kernels, subtracted=subtracted)


def blank_noise_ratio(scene: Scene, kernels: NDArray[np.float32], *, tile: int = 256, tiles: int = 3) -> float:
    """Return the scatter of the matched filter of the residual image over what the variance says.

    It is one for white noise; correlated noise and unseen sources raise it. The median absolute deviation is taken over
    ``tiles`` x ``tiles`` samples of ``tile`` pixels a side, spread over the image; 1 where there is too little to tell.
    """
    ny, nx = scene.image.shape
    middle = kernels if kernels.ndim == 2 else kernels[kernels.shape[0] // 2, kernels.shape[1] // 2]
    values = []
    for y in np.linspace(0, max(ny - tile, 0), tiles if ny > tile else 1).astype(int):
        for x in np.linspace(0, max(nx - tile, 0), tiles if nx > tile else 1).astype(int):
            part = (slice(y, y + tile), slice(x, x + tile))
            sample = Scene(
                scene.image[part].copy(), scene.residual[part].copy(),
                scene.sky_variance[part].copy(), scene.is_masked[part].copy(), scene.slope, scene.model_error,
            )  # fmt: skip
            found = filter_residual(sample, middle, model_error=scene.model_error)
            values.append(found.score[found.information > 0])
    score = np.concatenate(values)
    if score.size < 100:
        return 1.0
    return 1.4826 * median_of(np.abs(score - np.float32(median_of(score))))


def _is_in_ring(
    score: Float32Image, peaks: Peaks, state: SourceState, half: int, fwhm: float, config: HiddenSourceConfig
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
    peaks: Peaks, state: SourceState, half: int, fwhm: float, config: HiddenSourceConfig
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
