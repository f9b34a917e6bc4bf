"""PSF fluxes at given places of an image with its other sources fitted at the same time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.algorithms.photometry.sky import annulus_sky
from gueststar.algorithms.psf.scene import fresh_scene, new_sources
from gueststar.algorithms.psf.simultaneous import FitConfig, fit_in_place, measure_errors
from gueststar.algorithms.psf.spline import SplinePsf, shifted_stamps

Floats64 = NDArray[np.float64]

_SAME_FWHM = 0.5
"""A known source within this distance of a place, in FWHM, is taken for what the place is about."""


class ForcedFit(NamedTuple):
    """Fluxes at the places, arrays of one length, in the image's unit."""

    flux: Floats64
    """NaN where no usable pixel lies under the PSF."""
    flux_err: Floats64
    chi2: Floats64
    sky: Floats64
    """Background left over about each place, per pixel; subtracted."""
    n_neighbours: NDArray[np.int64]
    """Sources that were solved together with the place."""
    n_masked: NDArray[np.int64]


def fit_at_places(
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    is_masked: NDArray[np.bool_],
    psf: SplinePsf,
    *,
    x: Floats64,
    y: Floats64,
    neighbour_x: Floats64,
    neighbour_y: Floats64,
    neighbour_flux: Floats64,
    fwhm: float,
    config: FitConfig,
    model_error: float = 0.0,
) -> ForcedFit:
    """Return least-squares PSF fluxes at fixed places (x, y) of a background-subtracted image.

    Known sources near a place (``neighbour_...``, all those of the image) are held where they are and fitted together
    with it, as in the catalog; one at the place itself is left out, for the place takes its light. What is
    then left in a ring about each place is subtracted as background. Fluxes may be negative: nothing is detected here.
    """
    places = np.column_stack([x, y])
    known = np.column_stack([neighbour_x, neighbour_y])
    near, counts = np.zeros(0, dtype=np.int64), np.zeros(len(x), dtype=np.int64)
    if len(x) and len(known):
        tree = cKDTree(places)
        distance, _ = tree.query(known)
        reach = 2.0 * psf.half
        near = np.flatnonzero((distance > _SAME_FWHM * fwhm) & (distance < reach))
        groups = cKDTree(known[near]).query_ball_point(places, config.link_fwhm * fwhm, return_length=True)
        counts = np.asarray(groups, dtype=np.int64)
    _, scene = fresh_scene(image, variance, is_masked, model_error=model_error)
    state = new_sources(
        np.concatenate([x, known[near, 0]]), np.concatenate([y, known[near, 1]]),
        fit_radius=config.fit_radius_fwhm * fwhm,
        flux=np.concatenate([np.zeros(len(x)), neighbour_flux[near]]), is_fixed=True,
    )  # fmt: skip
    fit_in_place(scene, psf, state, fwhm=fwhm, config=config)
    errors = measure_errors(scene, psf, state, fwhm=fwhm, config=config)
    n = len(x)
    sky = np.nan_to_num(annulus_sky(scene, x=x, y=y, inner=3.0 * fwhm, outer=6.0 * fwhm))
    is_known = (errors.flux_err[:n] > 0) & np.isfinite(errors.flux_err[:n])
    flux = np.where(is_known, state.flux[:n] - sky * _response(psf, x, y, config.fit_radius_fwhm * fwhm), np.nan)
    return ForcedFit(
        flux, np.where(is_known, errors.flux_err[:n], np.nan), errors.chi2[:n], sky, counts, errors.n_masked[:n]
    )


def _response(psf: SplinePsf, x: Floats64, y: Floats64, radius: float) -> Floats64:
    """Return the flux that a background of one per pixel gives a fit in white noise."""
    reach = min(int(np.ceil(radius)), psf.half)
    dx, dy = x - np.rint(x), y - np.rint(y)
    stamps = shifted_stamps(psf, x=x, y=y, dx=dx, dy=dy, radius=reach).astype(np.float64)
    g = np.arange(-reach, reach + 1)
    inside = np.hypot(g[None, None, :] - dx[:, None, None], g[None, :, None] - dy[:, None, None]) <= radius
    stamps = np.where(inside, stamps, 0.0)
    return np.asarray(stamps.sum(axis=(1, 2)) / np.maximum((stamps**2).sum(axis=(1, 2)), 1e-30))
