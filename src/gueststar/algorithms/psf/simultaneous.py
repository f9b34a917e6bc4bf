"""Fit many point sources at once: positions and fluxes, close ones together, all in one residual image.

The residual image (data minus all models) is the state. Sources closer than the linking length are solved
together by Gauss-Newton steps; groups are visited in turn, each seeing its neighbours already subtracted
(block Gauss-Seidel), until nothing moves: the fixed point is the simultaneous least-squares fit
(as DAOPHOT's ALLSTAR seeks: Stetson 1987, PASP 99, 191).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.psf.groups import group_sources, order_in_place, visiting_order
from gueststar.algorithms.psf.newton import (
    Limits,
    make_work,
    measure_groups,
    release,
    subtract_all,
    sweep,
    take_first_fluxes,
)
from gueststar.algorithms.psf.scene import Scene, SourceState
from gueststar.algorithms.psf.spline import SplinePsf, shifted_stamps
from gueststar.algorithms.stats.select import median_of, quantile_of

Booleans = NDArray[np.bool_]
Floats64 = NDArray[np.float64]


@dataclass(frozen=True)
class FitConfig:
    """How sources are fitted."""

    fit_radius_fwhm: float = 1.3
    """Radius of the pixels that a source is fitted to, in FWHM."""
    link_fwhm: float = 1.6
    """Sources closer than this, in FWHM, are solved together."""
    max_group: int = 8
    """Largest number of sources solved together; larger groups are cut at their widest gaps."""
    max_sweeps: int = 5
    """Most visits to a source in one fit."""
    settled_at: float = 0.1
    """A source is left alone when its last step was smaller than this fraction of its errors."""
    model_error: float = 0.005
    """Error of the PSF model, as a fraction of the model at each pixel, until it has been measured."""
    subtract_to_sigma: float = 0.1
    """Models are subtracted out to where they fall below this fraction of the sky noise."""
    max_shift_fwhm: float = 1.0
    """Furthest a source may move from where it was detected, in FWHM."""
    exact_snr: float = 200.0
    """Fainter sources are rendered with the PSF of the middle of their tile, if the PSF has tiles."""


class SourceErrors(NamedTuple):
    """Errors and quality of fitted sources, arrays of one length."""

    x_err: Floats64
    y_err: Floats64
    flux_err: Floats64
    chi2: Floats64
    """Reduced chi-square of the pixels within the fit radius, model error included in the noise."""
    sharpness: Floats64
    """Variance in excess of the PSF's, as a fraction of it: 0 for a point, positive if wider."""
    sharpness_err: Floats64
    sky_flux_err: Floats64
    """Error the flux would have from the noise of the sky alone."""
    n_pixels: NDArray[np.int64]
    """Usable pixels within the fit radius."""
    n_masked: NDArray[np.int64]
    """Masked pixels within it (and those outside the image)."""

    def select(self, index: Booleans | NDArray[np.int64]) -> SourceErrors:
        """Return some of the sources."""
        return SourceErrors._make(values[index] for values in self)


def fit_in_place(
    scene: Scene, psf: SplinePsf, state: SourceState, *, fwhm: float, config: FitConfig = FitConfig()
) -> None:
    """Fit all sources that are not settled, altering ``state`` and ``scene.residual``.

    New sources (nothing subtracted) first get their flux at their place, the brightest first; then groups
    take Gauss-Newton steps until they settle or ``config.max_sweeps`` is reached.
    """
    if len(state.x) == 0:
        return
    limits = _limits(scene, psf, fwhm, config)
    groups = group_sources(
        x=state.x, y=state.y, flux=state.flux, link=config.link_fwhm * fwhm, max_size=config.max_group
    )
    work = make_work(psf, state, groups.starts, psf.half)
    new = np.flatnonzero(state.reach < 0)
    order = visiting_order(x=state.x[new], y=state.y[new], flux=state.flux[new])
    take_first_fluxes(scene, psf, state, new[order], limits, work)
    for _ in range(config.max_sweeps):
        if sweep(scene, psf, state, groups.members, groups.starts, limits, work) == 0:
            break


def subtract_anew_in_place(
    scene: Scene, psf: SplinePsf, state: SourceState, *, fwhm: float, config: FitConfig = FitConfig()
) -> None:
    """Subtract sources, as they stand, from a ``scene.residual`` that holds them all: the PSF has changed."""
    limits = _limits(scene, psf, fwhm, config)
    work = make_work(psf, state, np.zeros(1, dtype=np.int64), psf.half)
    state.is_settled[:] = False
    subtract_all(scene, psf, state, order_in_place(x=state.x, y=state.y), limits, work)


def measure_errors(
    scene: Scene,
    psf: SplinePsf,
    state: SourceState,
    *,
    fwhm: float,
    config: FitConfig = FitConfig(),
    known: SourceErrors | None = None,
    is_stale: Booleans | None = None,
) -> SourceErrors:
    """Return the errors of fitted sources from the inverse of their group's normal matrix, and their quality.

    Where some are ``known``, only groups that hold one that ``is_stale`` are measured again.
    """
    n = len(state.x)
    out, counts = np.full((7, n), np.nan), np.zeros((2, n), dtype=np.int64)
    wanted = np.ones(n, dtype=bool)
    if known is not None and is_stale is not None:
        out[:], counts[:], wanted = known[:7], known[7:], is_stale
    if n:
        groups = group_sources(
            x=state.x, y=state.y, flux=state.flux, link=config.link_fwhm * fwhm, max_size=config.max_group
        )
        work = make_work(psf, state, groups.starts, psf.half)
        measure_groups(
            scene, psf, state, groups.members, groups.starts, wanted, psf.half, (fwhm / 2.3548) ** 2, work, out, counts
        )
    return SourceErrors(*out, *counts)


def release_in_place(scene: Scene, psf: SplinePsf, state: SourceState, which: Booleans) -> None:
    """Put the light of some sources back into ``scene.residual``, as if they had never been subtracted."""
    if which.any():
        release(scene, psf, state, np.flatnonzero(which), make_work(psf, state, np.zeros(1, dtype=np.int64), psf.half))


def radial_envelope(psf: SplinePsf) -> Floats64:
    """Return how large the PSF is on and beyond the square ring at each whole distance from the middle.

    It is the 75th percentile of the absolute value, over the corners and the middle of the image.
    """
    ny, nx = psf.shape
    x = np.array([0.0, nx - 1.0, 0.0, nx - 1.0, (nx - 1) / 2])
    y = np.array([0.0, 0.0, ny - 1.0, ny - 1.0, (ny - 1) / 2])
    stamps = np.abs(shifted_stamps(psf, x=x, y=y, dx=np.zeros(5), dy=np.zeros(5)))
    g = np.arange(-psf.half, psf.half + 1)
    box = np.maximum(np.abs(g)[:, None], np.abs(g)[None, :])
    rings = np.array([quantile_of(stamps[:, box == r], 0.75) for r in range(psf.half + 1)])
    return np.asarray(np.maximum.accumulate(rings[::-1])[::-1], dtype=np.float64)


def _limits(scene: Scene, psf: SplinePsf, fwhm: float, config: FitConfig) -> Limits:
    sample = scene.sky_variance[:: max(1, scene.image.shape[0] // 64)]
    sigma = float(np.sqrt(median_of(sample)))
    # A Gaussian's noise-equivalent area is 4 pi sigma^2.
    sky_flux_err = sigma * np.sqrt(4.0 * np.pi) * fwhm / 2.3548
    return Limits(
        profile=radial_envelope(psf),
        faintest=config.subtract_to_sigma * sigma,
        exact_above=float(config.exact_snr * sky_flux_err),
        max_shift=config.max_shift_fwhm * fwhm,
        settled_at=config.settled_at,
    )
