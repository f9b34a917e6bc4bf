"""Where a faint streak ends, when noise leaves more than one place possible."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.streaks.line_fit import LineFit, Pixels
from gueststar.algorithms.streaks.strips import measure_along
from gueststar.algorithms.subtraction.fine_psf import FinePsf

Floats = NDArray[np.float64]

ERRORS_LOOKED_AT = 8.0
"""Ends are looked for within so many errors of the fit, at least `LEAST` and at most `MOST` pixels."""
LEAST, MOST = 6.0, 80.0
UNCERTAIN = 1.3
"""The fit's end is replaced where the places possible scatter by more than this, over the error of the fit."""


def weigh_ends(pixels: Pixels, psf: FinePsf, fit: LineFit, *, fwhm: float, noise: float) -> LineFit:
    """Return a fit whose free ends are the mean over all places possible, with their scatter as errors.

    A fit finds one best place, and its error holds near it. The brightness of each pixel of length, given the flux
    of the whole, tells the likelihood of every place for an end; with less than some 3 sigma in a FWHM of length there
    are several. ``noise`` is the scatter of sums over what the variance plane says.
    """
    moves, errors = [0.0, fit.segment.length], list(fit.end_err)
    for k in range(2):
        if not np.isfinite(fit.end_err[k]):
            continue
        reach = float(np.clip(ERRORS_LOOKED_AT * fit.end_err[k], LEAST, MOST))
        inner = min(reach, 0.5 * fit.segment.length)
        outward = -1.0 if k == 0 else 1.0
        window = fit.segment.moved(start=moves[k] - outward * inner, end=moves[k] + outward * reach)
        sums, weights = measure_along(pixels, psf, window, fwhm=fwhm)
        flux = fit.flux_per_pixel
        gains = (flux * sums - 0.5 * flux**2 * weights) / noise**2
        mean, scatter = _posterior(gains)
        if scatter > UNCERTAIN * fit.end_err[k]:
            moves[k] += outward * (mean * window.length / gains.size - inner)
            errors[k] = scatter * window.length / gains.size / noise
    if moves[1] - moves[0] < 2.0:
        return fit
    segment = fit.segment.moved(start=moves[0], end=moves[1])
    length_err = float(np.hypot(errors[0], errors[1])) if tuple(errors) != fit.end_err else fit.length_err
    return fit._replace(segment=segment, end_err=(errors[0], errors[1]), length_err=length_err)


def _posterior(gains: Floats) -> tuple[float, float]:
    """Return mean and scatter of where a line ends, in pieces, from what each piece adds if it is part."""
    log_likelihood = np.concatenate([[0.0], np.cumsum(gains)])
    weight = np.exp(log_likelihood - log_likelihood.max())
    weight /= weight.sum()
    places = np.arange(weight.size)
    mean = float(np.sum(weight * places))
    return mean, float(np.sqrt(np.sum(weight * (places - mean) ** 2)))
