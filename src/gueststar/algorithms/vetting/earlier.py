"""What earlier images show at the place of a detection, and what that makes of its reliability.

One image cannot tell the highest peaks of its noise from sources as faint as they are; the same place on earlier
differences can. Detections are of two kinds, and each leaves one of three histories:

====================================  ======  ===================
fluxes at the place before            real    noise or artefact
====================================  ======  ===================
alike: of the same sign, of any size  ``p``   ``q(r)``
flipped: of the other sign            ``w``   ``w``
dark: noise                           rest    rest
====================================  ======  ===================

A star that varies has shone before, a transient mostly; a mover or what is new today was dark. A peak of noise was dark,
too, but **artefacts repeat**: the residual of a bright star is there each night. So a flux alike speaks for a detection
only as far as artefacts among detections of its score are not likely to repeat,

    q(r) = q_lone + (q_artefact - q_lone) (1 - r)^2,

which is near ``p`` where the score ``r`` is low: such a detection stays low whatever is seen. A flux of the other sign is left by
variables and by residuals that turn with the focus; it decides nothing.

Fluxes are d_k, in units of their errors and of the detection's sign, the detection itself having the flux f in these units.
Of an earlier flux alike is known only that it was positive and, in the mean, as large as now: an exponential
distribution of mean f, which with the error of the measurement is

    A(d, f) = 1/f exp(1 / (2 f^2) - d/f) Phi(d - 1/f).

Noise is N(d) = (1 - t) phi(d) + t phi(d/3) / 3, with tails, since errors are not all Gaussian. With the ratio of each image

    l_k = dim + (1 - dim) min(A(d_k, f) / N(d_k), most)

(even a source that shone before was not there on each image), L = prod l_k and, with -d_k for d_k, M = prod m_k, the odds are

    R / (1 - R) = r / (1 - r) (1 - p - w + p L + w M) / (1 - q - w + q L + w M).

However much is seen, odds grow by no more than p/q(r) and shrink by no more than 1 - p - w; one image alone
multiplies L by ``dim`` at least and by ``most`` at most. Images that tell nothing (NaN) change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_ndtr, logit

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

_LEAST_SIGNIFICANCE = 1.0
"""A detection counts as having at least this flux over the earlier errors: an image much shallower tells nothing."""
_CERTAIN = 1e-9
"""Reliabilities are taken to be at least so far from 0 and 1."""
_TAIL_WIDTH = 3.0
"""Sigmas of the tails of noise."""


@dataclass(frozen=True)
class EarlierConfig:
    """What is known of real and false detections before earlier images are looked at."""

    real_alike: float = 0.7
    """``p``: real detections whose source shone before, too."""
    flipped: float = 0.05
    """``w``: detections, real or not, whose place had the other sign before."""
    artefact_alike: float = 0.7
    """``q`` of false detections of the lowest score: most are residuals, which repeat."""
    lone_alike: float = 0.02
    """``q`` of false detections of the highest score: most are peaks of noise."""
    dim: float = 0.1
    """Part of the images on which a source that shone before was too faint: the least that one image multiplies by."""
    most: float = 100.0
    """The most that one image multiplies the odds of having shone before by."""
    noise_tail: float = 0.02
    """Part of the fluxes at places without a source that scatter by three times their error."""


def reliability_with_earlier(
    reliability: Floats,
    *,
    flux: Floats,
    is_positive: Bools,
    earlier_flux: Floats,
    earlier_flux_err: Floats,
    config: EarlierConfig = EarlierConfig(),
) -> Floats:
    """Return the probability of being real of detections ``[n]``, with fluxes at their places on earlier images.

    ``reliability`` is that of their own image; ``flux`` is on their own difference, ``earlier_flux`` ``[n, k]`` on earlier
    ones, of one unit. Earlier fluxes that are not finite, or without a positive error, tell nothing; where none
    tells anything the reliability stays. A reliability of NaN stays NaN.
    """
    n = len(reliability)
    if earlier_flux.shape != earlier_flux_err.shape or earlier_flux.shape[:1] != (n,):
        raise ValueError(f"fluxes are {earlier_flux.shape}, errors {earlier_flux_err.shape}, detections {n}")
    ratio = likelihood_ratio(
        reliability, flux=flux, is_positive=is_positive, earlier_flux=earlier_flux, earlier_flux_err=earlier_flux_err,
        config=config,
    )  # fmt: skip
    known = np.clip(reliability, _CERTAIN, 1.0 - _CERTAIN)
    return np.where(ratio == 1.0, reliability, expit(logit(known) + np.log(ratio)))


def tells(earlier_flux: Floats, earlier_flux_err: Floats) -> Bools:
    """Return which fluxes say something: finite, with a positive error."""
    with np.errstate(invalid="ignore"):
        return np.isfinite(earlier_flux) & np.isfinite(earlier_flux_err) & (earlier_flux_err > 0)


def likelihood_ratio(
    reliability: Floats,
    *,
    flux: Floats,
    is_positive: Bools,
    earlier_flux: Floats,
    earlier_flux_err: Floats,
    config: EarlierConfig = EarlierConfig(),
) -> Floats:
    """Return by how much the odds of being real change; 1 where no earlier flux says anything."""
    told = tells(earlier_flux, earlier_flux_err)
    error = np.where(told, earlier_flux_err, 1.0)
    sign = np.where(is_positive, 1.0, -1.0)[:, None]
    before = np.where(told, sign * earlier_flux, 0.0) / error
    now = np.maximum(sign * np.asarray(flux, dtype=np.float64)[:, None] / error, _LEAST_SIGNIFICANCE)
    alike, flipped = (_shone(side * before, now, told, config) for side in (1.0, -1.0))
    p, w = config.real_alike, config.flipped
    q = config.lone_alike + (config.artefact_alike - config.lone_alike) * (1.0 - reliability) ** 2
    real = (1.0 - p - w) + p * alike + w * flipped
    false = (1.0 - q - w) + q * alike + w * flipped
    return np.where(told.any(axis=1), real / false, 1.0)


def _shone(before: Floats, now: Floats, told: Bools, config: EarlierConfig) -> Floats:
    """Return the likelihood of all of a place's fluxes if a source shone there, over that of noise."""
    excess = np.minimum(_log_source(before, now) - _log_noise(before, config.noise_tail), np.log(config.most))
    each = config.dim + (1.0 - config.dim) * np.exp(excess)
    return np.asarray(np.prod(np.where(told, each, 1.0), axis=1))


def _log_source(before: Floats, now: Floats) -> Floats:
    """Return the logarithm of A(d, f), an exponential distribution of mean f with an error of 1."""
    return np.asarray(-np.log(now) + 0.5 / now**2 - before / now + log_ndtr(before - 1.0 / now))


def _log_noise(before: Floats, tail: float) -> Floats:
    """Return the logarithm of N(d): Gaussian noise with tails."""
    core = np.log1p(-tail) - 0.5 * before**2
    wings = np.log(tail / _TAIL_WIDTH) - 0.5 * (before / _TAIL_WIDTH) ** 2
    return np.asarray(np.logaddexp(core, wings) - 0.5 * np.log(2.0 * np.pi))
