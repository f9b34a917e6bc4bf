"""Hold PSF fluxes against apertures: the aperture correction and what the PSF model leaves uncertain."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.photometry.apertures import aperture_photometry
from gueststar.algorithms.photometry.error_floor import NO_FLOOR, ErrorFloor, measure_error_floor
from gueststar.algorithms.psf.spline import SplinePsf, shifted_stamps

Floats64 = NDArray[np.float64]


_LEAST_FAINTER = 30
"""Stars whose apertures are fainter than most, at least, for the scatter to be measured on these alone."""


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
    psf_noise: Floats64 | None = None,
    is_crowded: bool = False,
    min_stars: int = 10,
    max_correction: float = 0.15,
) -> ApertureCorrection:
    """Return the clipped weighted mean of ``aperture_flux / (psf_flux * fraction)`` of clean bright stars.

    ``fraction`` is `fraction_within` the aperture, ``x`` and ``y`` the places in an image of ``shape``. With fewer
    than ``min_stars`` stars, or a ratio further than ``max_correction`` from one, no correction is made. Both fluxes
    hold the same photons, so their ratio scatters by the difference of their variances. Of ``psf_flux_err`` only
    ``psf_noise`` is noise; the rest is the error of the model, which the scatter shows as well: so it is taken off the
    floor, lest it count twice. Neighbours that are not seen make apertures brighter, never fainter: where that is
    likely (``is_crowded``) the floor is that of the fainter side.
    """
    ratio = aperture_flux / (psf_flux * fraction)
    noise = psf_flux_err if psf_noise is None else np.minimum(psf_noise, psf_flux_err)
    variance = np.maximum((aperture_flux_err / fraction) ** 2 - noise**2, 0.0) / psf_flux**2
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
    fainter = best[ratio[best] <= np.median(ratio[best])]
    judged = fainter if is_crowded and fainter.size >= _LEAST_FAINTER else best
    floor = measure_error_floor(
        (ratio[judged] - centre)[None], sigma[judged][None], x=x[judged], y=y[judged], shape=shape
    )  # fmt: skip
    local = floor.variance(x=x[is_used], y=y[is_used], shape=shape)
    weight = 1.0 / (variance[is_used] + np.maximum(local, 1e-6))
    known = float(np.median((psf_flux_err[best] ** 2 - noise[best] ** 2) / psf_flux[best] ** 2))
    floor = floor._replace(middle=max(floor.middle - known, 0.0), corner=max(floor.corner - known, 0.0))
    mean, error = float(np.sum(weight * ratio[is_used]) / weight.sum()), float(1.0 / np.sqrt(weight.sum()))
    if abs(mean - 1.0) > max_correction:
        mean = 1.0
    return ApertureCorrection(mean, error, scatter, floor, int(is_used.sum()))


def _robust_scatter(values: Floats64) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))
