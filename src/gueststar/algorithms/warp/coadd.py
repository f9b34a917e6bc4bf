"""Combine warped epochs into one image, leaving out what moved, flared or was hit by a cosmic ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.core.bits import UNUSABLE, MaskPlane

Float32Image = NDArray[np.float32]
MaskImage = NDArray[np.int32]


@dataclass(frozen=True)
class CoaddConfig:
    """How epochs are combined."""

    n_sigma: float = 5.0
    """Noise of a pixel, or of a 3 x 3 mean, beyond which an epoch is an outlier."""
    low_sigma: float = 3.0
    """The same next to an outlier of the same epoch: wings of satellites and of moving objects."""
    structure: float = 0.3
    """Allowance for stars: this fraction of the range of the median image within 3 x 3 pixels..."""
    structure_seeing: float = 3.0
    """...and this many times more for each unit of the logarithm of an epoch's FWHM over the median epoch's."""
    max_clipped: float = 0.4
    """Fraction of the epochs of a pixel that may be outliers; if more are, it is the sky that varies, and none is."""


class EpochStack(NamedTuple):
    """Warped epochs of the same rows, on one flux scale."""

    image: Float32Image
    """``[n, y, x]``"""
    variance: Float32Image
    """``[n, y, x]``, noise power as `warp_pixels` gives it."""
    mask: MaskImage
    """``[n, y, x]``"""
    weight: NDArray[np.float64]
    """``[n]``: inverse variance of each epoch's background."""
    pixel_noise: NDArray[np.float64]
    """``[n]``: variance of single pixels over the noise power (1 / correlated_noise_factor)."""
    fwhm: NDArray[np.float64]
    """``[n]``: FWHM of each epoch, any unit."""


class Coadd(NamedTuple):
    """The combined image."""

    image: Float32Image
    variance: Float32Image
    mask: MaskImage
    coverage: NDArray[np.int16]
    """Epochs that entered each pixel."""
    n_clipped: NDArray[np.int64]
    """``[n]``: pixels left out of each epoch as outliers."""


def combine_epochs(stack: EpochStack, config: CoaddConfig = CoaddConfig(), *, rows: slice | None = None) -> Coadd:
    """Return the weighted mean of the epochs, outliers left out.

    An epoch's pixel is an outlier when it is off the median of the epochs by more than ``n_sigma`` of its own
    noise plus an allowance for seeing, so that cores of stars, which differ from epoch to epoch, stay: the
    criterion of drizzle (Fruchter & Hook 2002, PASP 114, 144), with a second pass on 3 x 3 means for what is
    faint and extended and a third about what was found. With two epochs the lower one is taken for the truth.

    Weights are one number per epoch, so that the PSF of the result is the same mean of the epochs' PSFs
    wherever nothing is masked. Unusable pixels do not enter; a pixel that no epoch covers is NO_DATA with
    zeros; mask bits are kept where no usable epoch remains. A pixel that is saturated in a quarter of the
    epochs is SATURATED, in fewer SUSPECT (the epochs that are left there are those of poor seeing), as it is
    where an epoch that entered was SUSPECT. ``rows`` limits the result to a part of the stack's rows, the others
    being there for their neighbours' sake.
    """
    rows = rows or slice(0, stack.image.shape[1])
    n, ny, nx = stack.image.shape
    usable = (stack.mask & int(UNUSABLE)) == 0
    median = _median(stack.image, usable)
    structure = _local_range(median)
    seeing = np.abs(np.log(stack.fwhm / np.median(stack.fwhm)))
    outlier = np.zeros((n, ny, nx), bool)
    if n > 1:
        for k in range(n):
            # The median of n is noisier than their mean by pi / 2.
            sigma2 = stack.variance[k] * np.float32(stack.pixel_noise[k] * (1.0 + 1.571 / n))
            allowance = np.float32(config.structure + config.structure_seeing * seeing[k]) * structure
            outlier[k] = _find_outliers(
                stack.image[k], median, sigma2, allowance, usable[k], config.n_sigma, config.low_sigma
            )
        _spare_variables(outlier, usable, config.max_clipped)
    n_clipped = outlier[:, rows].sum(axis=(1, 2)).astype(np.int64)
    image, variance, mask, coverage = _combine(
        stack.image, stack.variance, stack.mask, usable & ~outlier, outlier, stack.weight.astype(np.float64),
        int(MaskPlane.NO_DATA), int(MaskPlane.CLIPPED), int(MaskPlane.SUSPECT), int(MaskPlane.SATURATED),
    )  # fmt: skip
    return Coadd(image[rows], variance[rows], mask[rows], coverage[rows], n_clipped)


@njit(cache=True)
def _median(image, usable):  # type: ignore[no-untyped-def]
    """Return the median of the usable epochs; of two, the lower; 0 where there is none."""
    n, ny, nx = image.shape
    out = np.zeros((ny, nx), np.float32)
    values = np.empty(n, np.float32)
    for y in range(ny):
        for x in range(nx):
            m = 0
            for k in range(n):
                if usable[k, y, x]:
                    v = image[k, y, x]
                    j = m
                    while j > 0 and values[j - 1] > v:
                        values[j] = values[j - 1]
                        j -= 1
                    values[j] = v
                    m += 1
            if m % 2 == 1:
                out[y, x] = values[m // 2]
            elif m == 2:
                out[y, x] = values[0]
            elif m > 2:
                out[y, x] = np.float32(0.5) * (values[m // 2 - 1] + values[m // 2])
    return out


@njit(cache=True)
def _local_range(image):  # type: ignore[no-untyped-def]
    """Return the highest minus the lowest value within 3 x 3 pixels."""
    ny, nx = image.shape
    out = np.empty((ny, nx), np.float32)
    for y in range(ny):
        for x in range(nx):
            low = high = image[y, x]
            for j in range(max(y - 1, 0), min(y + 2, ny)):
                for i in range(max(x - 1, 0), min(x + 2, nx)):
                    low, high = min(low, image[j, i]), max(high, image[j, i])
            out[y, x] = high - low
    return out


@njit(cache=True)
def _find_outliers(image, median, sigma2, allowance, usable, n_sigma, low_sigma):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    found = np.zeros((ny, nx), np.bool_)
    for y in range(ny):
        for x in range(nx):
            if not usable[y, x]:
                continue
            d = image[y, x] - median[y, x]
            if abs(d) > n_sigma * np.sqrt(sigma2[y, x]) + allowance[y, x]:
                found[y, x] = True
                continue
            total = noise = tolerance = 0.0
            m = 0
            for j in range(max(y - 1, 0), min(y + 2, ny)):
                for i in range(max(x - 1, 0), min(x + 2, nx)):
                    if usable[j, i]:
                        total += image[j, i] - median[j, i]
                        noise += sigma2[j, i]
                        tolerance += allowance[j, i]
                        m += 1
            # Neighbours share noise after interpolation: half as much again as if they did not.
            found[y, x] = abs(total) > n_sigma * 1.5 * np.sqrt(noise) + tolerance and m >= 4
    grown = found.copy()
    for y in range(ny):
        for x in range(nx):
            if not found[y, x]:
                continue
            for j in range(max(y - 2, 0), min(y + 3, ny)):
                for i in range(max(x - 2, 0), min(x + 3, nx)):
                    near = abs(j - y) <= 1 and abs(i - x) <= 1
                    d = abs(image[j, i] - median[j, i])
                    limit = (1.0 if near else low_sigma) * np.sqrt(sigma2[j, i]) + 0.5 * allowance[j, i]
                    if usable[j, i] and d > limit:
                        grown[j, i] = True
    return grown


@njit(cache=True)
def _spare_variables(outlier, usable, max_clipped):  # type: ignore[no-untyped-def]
    """Take back the outliers of pixels of which too many epochs are outliers."""
    n, ny, nx = outlier.shape
    for y in range(ny):
        for x in range(nx):
            out = total = 0
            for k in range(n):
                out += outlier[k, y, x]
                total += usable[k, y, x]
            if out > max(max_clipped * total, 1.0):
                for k in range(n):
                    outlier[k, y, x] = False


@njit(cache=True)
def _combine(image, variance, mask, used, outlier, weight, no_data, clipped, suspect, saturated):  # type: ignore[no-untyped-def]
    n, ny, nx = image.shape
    out, out_variance = np.zeros((ny, nx), np.float32), np.zeros((ny, nx), np.float32)
    out_mask, coverage = np.zeros((ny, nx), np.int32), np.zeros((ny, nx), np.int16)
    for y in range(ny):
        for x in range(nx):
            total = power = value = 0.0
            bits, any_clipped, entered = 0, False, 0
            n_saturated, n_covered = 0, 0
            rest, rest_variance, rest_weight = 0.0, 0.0, 0.0
            for k in range(n):
                w = weight[k]
                if used[k, y, x]:
                    total += w
                    value += w * image[k, y, x]
                    power += w * w * variance[k, y, x]
                    entered |= mask[k, y, x]
                    coverage[y, x] += 1
                elif (mask[k, y, x] & no_data) == 0:
                    bits |= mask[k, y, x]
                    rest += w * image[k, y, x]
                    rest_variance += w * w * variance[k, y, x]
                    rest_weight += w
                any_clipped |= outlier[k, y, x]
                n_covered += (mask[k, y, x] & no_data) == 0
                n_saturated += (mask[k, y, x] & saturated) != 0
            if n_saturated > 0:
                entered |= saturated if 4 * n_saturated >= n_covered else suspect
            if total > 0:
                out[y, x], out_variance[y, x] = value / total, power / (total * total)
                out_mask[y, x] = (entered & (suspect | saturated)) | (clipped if any_clipped else 0)
            elif rest_weight > 0:  # masked in every epoch: the pixel is shown, and masked
                out[y, x], out_variance[y, x] = rest / rest_weight, rest_variance / rest_weight**2
                out_mask[y, x] = bits | (clipped if any_clipped else 0)
            else:
                out_mask[y, x] = no_data
    return out, out_variance, out_mask, coverage
