"""What earlier images show at the place of a detection, and what that makes of its reliability.

One image cannot tell the highest peaks of its noise from sources as faint as they are; the same place on earlier
differences can. Detections are real or false, and each kind leaves one of three histories at its place:

====================================  ======  =========
fluxes at the place before            real    false
====================================  ======  =========
alike: of the same sign, of any size  ``p``   ``q(r)``
flipped: of the other sign            ``w``   ``w``
dark: noise                           rest    rest
====================================  ======  =========

A star that varies has shone before, a transient mostly; a mover, or what is new today, was dark. A peak of noise was
dark, too, but **artefacts repeat**: the residual of a bright star is there each night. So a flux alike speaks for a
detection only as far as false ones of its score are not likely to repeat,

    q(r) = q_lone + (q_artefact - q_lone) (1 - r)^2,

which is near ``p`` where the score ``r`` is low: such a detection stays low whatever is seen. **Near a bright star**,
where what is false is a residual of the star, q is ``q_artefact`` for any score: there earlier images decide nothing.
Nor does a flux of the other sign: variables leave it, and residuals that turn with the focus.

Let d_k be the earlier fluxes in units of their errors and of the detection's sign, and f the detection's own flux in
the same units. Noise has tails, since errors are not all Gaussian:

    N(d) = (1 - t) phi(d) + t/3 phi(d/3).

Of an earlier flux alike is known only that it was positive and, in the mean, as large as now: an exponential
distribution of mean f. With the noise of the measurement it is

    A(d, f) = (1 - t) a(d, f) + t/3 a(d/3, f/3),    a(d, f) = 1/f exp(1 / (2 f^2) - d/f) Phi(d - 1/f),

which is N(d) where f is small: a shallow image tells nothing. Each image multiplies the likelihood of having shone,
over that of noise, by

    l_k = dim + (1 - dim) min(A(d_k, f) / N(d_k), most);

even a source that shone before was too faint on some images. With L = prod l_k, and M the same of -d_k, the odds are

    R / (1 - R) = r / (1 - r) (1 - p - w + p L + w M) / (1 - q - w + q L + w M).

However much is seen, odds grow by p/q(r) at most (14 where r is near 1, none where it is near 0) and shrink to
1 - p - w at least (a quarter); one image multiplies L by ``dim`` at least and ``most`` at most. What tells nothing
(NaN) changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_ndtr, logit

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

_LEAST = 0.01
"""A flux over its error counts as at least this: with less the exponential is lost in the rounding of the noise."""
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
    """``q`` of false detections of the lowest score, and near bright stars: most are residuals, which repeat."""
    lone_alike: float = 0.05
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
    is_near_bright: Bools,
    earlier_flux: Floats,
    earlier_flux_err: Floats,
    config: EarlierConfig = EarlierConfig(),
) -> Floats:
    """Return the probability of being real of detections ``[n]``, with fluxes at their places on earlier images.

    ``reliability`` is that of their own image; ``is_near_bright`` tells where the residual of a bright star is the
    likeliest artefact; ``flux`` is on their own difference, ``earlier_flux`` ``[n, k]`` on earlier ones, of one
    unit. Earlier fluxes that are not finite, or without a positive error, tell nothing; where none tells anything
    the reliability stays. A reliability of NaN stays NaN.
    """
    n = len(reliability)
    if earlier_flux.shape != earlier_flux_err.shape or earlier_flux.shape[:1] != (n,):
        raise ValueError(f"fluxes are {earlier_flux.shape}, errors {earlier_flux_err.shape}, detections {n}")
    ratio = likelihood_ratio(
        reliability, flux=flux, is_positive=is_positive, is_near_bright=is_near_bright,
        earlier_flux=earlier_flux, earlier_flux_err=earlier_flux_err, config=config,
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
    is_near_bright: Bools,
    earlier_flux: Floats,
    earlier_flux_err: Floats,
    config: EarlierConfig = EarlierConfig(),
) -> Floats:
    """Return by how much the odds of being real change; 1 where no earlier flux says anything."""
    told = tells(earlier_flux, earlier_flux_err) & np.isfinite(flux)[:, None]
    error = np.where(told, earlier_flux_err, 1.0)
    sign = np.where(is_positive, 1.0, -1.0)[:, None]
    before = np.where(told, sign * earlier_flux, 0.0) / error
    now = np.where(told, np.fmax(sign * np.asarray(flux, dtype=np.float64)[:, None] / error, _LEAST), 1.0)
    alike, flipped = (_shone(side * before, now, told, config) for side in (1.0, -1.0))
    p, w = config.real_alike, config.flipped
    is_residual = np.where(is_near_bright, 1.0, (1.0 - reliability) ** 2)
    q = config.lone_alike + (config.artefact_alike - config.lone_alike) * is_residual
    real = (1.0 - p - w) + p * alike + w * flipped
    false = (1.0 - q - w) + q * alike + w * flipped
    return np.where(told.any(axis=1), real / false, 1.0)


def _shone(before: Floats, now: Floats, told: Bools, config: EarlierConfig) -> Floats:
    """Return the likelihood of all of a place's fluxes if a source shone there, over that of noise."""
    source, noise = (_with_tail(density, before, now, config.noise_tail) for density in (_log_exponential, _log_none))
    each = config.dim + (1.0 - config.dim) * np.exp(np.minimum(source - noise, np.log(config.most)))
    return np.asarray(np.prod(np.where(told, each, 1.0), axis=1))


def _with_tail(density: Callable[[Floats, Floats], Floats], before: Floats, now: Floats, tail: float) -> Floats:
    """Return the logarithm of a density of fluxes some of which scatter by more than their error."""
    wide = density(before / _TAIL_WIDTH, now / _TAIL_WIDTH)
    return np.logaddexp(np.log1p(-tail) + density(before, now), np.log(tail / _TAIL_WIDTH) + wide)


def _log_exponential(before: Floats, now: Floats) -> Floats:
    """Return the logarithm of a(d, f), an exponential distribution of mean f with an error of 1."""
    return np.asarray(-np.log(now) + 0.5 / now**2 - before / now + log_ndtr(before - 1.0 / now))


def _log_none(before: Floats, _now: Floats) -> Floats:
    """Return the logarithm of phi(d), the error alone."""
    return np.asarray(-0.5 * before**2 - 0.5 * np.log(2.0 * np.pi))
