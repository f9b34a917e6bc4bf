"""Hold PSF fluxes against apertures: the aperture correction and what the PSF model leaves uncertain."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.photometry.apertures import aperture_photometry
from gueststar.algorithms.photometry.error_floor import NO_FLOOR, ErrorFloor, measure_error_floor
from gueststar.algorithms.psf.evaluate import normalised, polynomial_terms
from gueststar.algorithms.psf.spline import SplinePsf, shifted_stamps

Floats64 = NDArray[np.float64]


class ApertureCorrection(NamedTuple):
    """Ratio of an aperture's flux to what the PSF fit says should be in it."""

    ratio: float
    """1 where it could not be measured."""
    ratio_err: float
    """Error of the ratio; NaN where it could not be measured."""
    scatter: float
    """Scatter of single stars about it."""
    floor: ErrorFloor
    """Of the scatter what errors do not explain: squared fractional error of bright PSF fluxes; nought if unknown."""
    n_stars: int


def fraction_within(psf: SplinePsf, *, x: Floats64, y: Floats64, radius: float) -> Floats64:
    """Return the share of the PSF's stamp that lies within ``radius`` pixels of the centre, at each position."""
    stamps = shifted_stamps(psf, x=x, y=y, dx=x - np.rint(x), dy=y - np.rint(y))
    n, side, _ = stamps.shape
    tall = np.ascontiguousarray(stamps.reshape(n * side, side))
    inside = aperture_photometry(
        tall, tall, np.zeros(tall.shape, dtype=bool),
        x=side // 2 + x - np.rint(x),
        y=side // 2 + side * np.arange(n) + y - np.rint(y),
        radii=(min(radius, side / 2 - 1.0),),
    )  # fmt: skip
    return np.asarray(inside.flux[:, 0] if n else np.zeros(0))


def loss_correction(psf: SplinePsf, *, x: Floats64, y: Floats64, slopes: tuple[float, float] = (3.0, 7.0)) -> Floats64:
    """Return what PSF fluxes must be multiplied with for the light beyond the stamps, relative to the middle.

    Where the PSF is wider, more of it lies beyond its stamps, which are normalised to one everywhere. The profile is
    continued as a power law, whose exponent is taken from the outer half of the middle stamp (within ``slopes``), and
    scaled with the local width: the light outside goes as ``width**(exponent - 2)``.
    """
    ny, nx = psf.shape
    middle = shifted_stamps(
        psf, x=np.array([0.5 * (nx - 1)]), y=np.array([0.5 * (ny - 1)]), dx=np.zeros(1), dy=np.zeros(1)
    )[0].astype(np.float64)
    g = np.arange(-psf.half, psf.half + 1)
    r = np.hypot(g[:, None], g[None, :])
    rings = [middle[(r >= a * psf.half) & (r < b * psf.half)].mean() for a, b in ((0.45, 0.55), (0.9, 1.0))]
    if min(rings) <= 0.0:
        return np.ones(len(x))
    exponent = float(np.clip(np.log(rings[0] / rings[1]) / np.log(0.95 / 0.5), *slopes))
    ring, edge, angle = 0.95 * psf.half, psf.half + 0.5, np.linspace(0.0, np.pi / 4.0, 16)
    # Beyond a circle through the ring, then beyond the square that the stamp is.
    beyond = 2.0 * np.pi * ring**2 * rings[1] / (exponent - 2.0) / middle.sum()
    outside = beyond * (edge / ring) ** (2.0 - exponent) * float(np.mean(np.cos(angle) ** (exponent - 2.0)))
    width = _relative_width(psf, x=x, y=y)
    grown = np.minimum(outside * width ** (exponent - 2.0), 0.1)
    return np.asarray((1.0 - min(outside, 0.1)) / (1.0 - grown))


def _relative_width(psf: SplinePsf, *, x: Floats64, y: Floats64, nodes: int = 5) -> Floats64:
    """Return the width of the PSF over that in the middle, from its effective area, smooth in position."""
    ny, nx = psf.shape
    order = min(psf.order, 2)
    at_y, at_x = (a.ravel() for a in np.meshgrid(np.linspace(0, ny - 1, nodes), np.linspace(0, nx - 1, nodes)))
    stamps = shifted_stamps(psf, x=at_x, y=at_y, dx=np.zeros(at_x.size), dy=np.zeros(at_x.size))
    area = stamps.sum(axis=(1, 2), dtype=np.float64) ** 2 / np.sum(stamps.astype(np.float64) ** 2, axis=(1, 2))
    terms = polynomial_terms(*normalised(at_x, at_y, psf.shape), order)
    fit = np.linalg.lstsq(terms.T, 0.5 * np.log(area), rcond=None)[0]
    # The terms but the first vanish in the middle.
    return np.asarray(np.exp(fit[1:] @ polynomial_terms(*normalised(x, y, psf.shape), order)[1:]))


def measure_aperture_correction(
    psf_flux: Floats64,
    psf_flux_err: Floats64,
    aperture_flux: Floats64,
    aperture_flux_err: Floats64,
    fraction: Floats64,
    *,
    x: Floats64,
    y: Floats64,
    shape: tuple[int, int],
    min_stars: int = 10,
    max_correction: float = 0.15,
) -> ApertureCorrection:
    """Return the clipped weighted mean of ``aperture_flux / (psf_flux * fraction)`` of clean bright stars.

    ``fraction`` is `fraction_within` the aperture, ``x`` and ``y`` the places in an image of ``shape``. With fewer
    than ``min_stars`` stars, or a ratio further than ``max_correction`` from one, no correction is made. Both fluxes
    hold the same photons, so their ratio scatters by the difference of their variances.
    """
    ratio = aperture_flux / (psf_flux * fraction)
    variance = np.maximum((aperture_flux_err / fraction) ** 2 - psf_flux_err**2, 0.0) / psf_flux**2
    sigma = np.sqrt(variance)
    is_used = np.isfinite(ratio) & np.isfinite(sigma) & (sigma < 0.05)
    for _ in range(5):
        if is_used.sum() < min_stars:
            return ApertureCorrection(1.0, float("nan"), float("nan"), NO_FLOOR, int(is_used.sum()))
        centre = float(np.median(ratio[is_used]))
        scatter = _robust_scatter(ratio[is_used] - centre)
        is_used &= np.abs(ratio - centre) < 4.0 * np.hypot(sigma, scatter)
    # The faint half adds noise only.
    best = np.flatnonzero(is_used)[sigma[is_used] <= np.median(sigma[is_used])]
    floor = measure_error_floor(
        (ratio[best] - centre)[None], sigma[best][None], x=x[best], y=y[best], shape=shape
    )  # fmt: skip
    local = floor.variance(x=x[is_used], y=y[is_used], shape=shape)
    weight = 1.0 / (variance[is_used] + np.maximum(local, 1e-6))
    mean, error = float(np.sum(weight * ratio[is_used]) / weight.sum()), float(1.0 / np.sqrt(weight.sum()))
    if abs(mean - 1.0) > max_correction:
        mean = 1.0
    return ApertureCorrection(mean, error, scatter, floor, int(is_used.sum()))


def _robust_scatter(values: Floats64) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))
