"""Combine warped epochs into one image, leaving out what moved, flared or was hit by a cosmic ray."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.warp.artefacts import (
    BRIGHT_STRUCTURE,
    ArtefactConfig,
    find_artefacts,
    model_error,
    significance,
    spare_persistent_in_place,
)
from gueststar.core.bits import UNUSABLE, MaskPlane

Float32Image = NDArray[np.float32]
MaskImage = NDArray[np.int32]


@dataclass(frozen=True)
class CoaddConfig:
    """How epochs are combined."""

    artefacts: ArtefactConfig = field(default_factory=ArtefactConfig)
    """What is left out of an epoch."""
    max_psf_change: float = 0.05
    """Pixels are SUSPECT whose epochs, for want of the others, have a FWHM that differs from that of all by this
    fraction."""


class Matching(NamedTuple):
    """Kernels for the median of the epochs, on a grid of cells."""

    kernels: NDArray[np.float32]
    """``[n, n_y, n_x, k, k]``, one for each epoch and cell."""
    mismatch: NDArray[np.float64]
    """``[n, n_y, n_x]``: sum of the absolute differences from the kernel that changes nothing."""
    aliased: NDArray[np.float64]
    """``[n]``: the PSF's transform at the Nyquist frequency, mean of both axes; 0.03 at a FWHM of two pixels."""
    cell: tuple[float, float]
    """(height, width) of a cell, pixels."""
    first_row: int = 0
    """Row of the grid of cells that is the stack's first row."""


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
    matching: Matching | None = None
    """Kernels that give the static sky each epoch's PSF; None: PSFs are not known."""


class Coadd(NamedTuple):
    """The combined image."""

    image: Float32Image
    variance: Float32Image
    mask: MaskImage
    coverage: NDArray[np.int16]
    """Epochs that entered each pixel."""
    n_clipped: NDArray[np.int64]
    """``[n]``: pixels left out of each epoch as outliers."""
    is_left_out: NDArray[np.bool_]
    """``[n, y, x]``: what did not enter, on all rows of the stack."""


def combine_epochs(stack: EpochStack, config: CoaddConfig = CoaddConfig(), *, rows: slice | None = None) -> Coadd:
    """Return the weighted mean of the epochs, outliers left out.

    An epoch is compared with the median of the epochs, which is given the epoch's PSF where that is known, and what
    stands out is left out with its surroundings (`gueststar.algorithms.warp.artefacts`). With two epochs the lower one
    is taken for the truth.

    Weights are one number per epoch, so that the PSF of the result is the same mean of the epochs' PSFs
    wherever nothing is masked. Unusable pixels do not enter; a pixel that no epoch covers is NO_DATA with
    zeros; mask bits are kept where no usable epoch remains. A pixel that is saturated in a quarter of the
    epochs is SATURATED, in fewer SUSPECT (the epochs that are left there are those of poor seeing), as it is
    where an epoch that entered was SUSPECT. ``rows`` limits the result to a part of the stack's rows, the others
    being there for their neighbours' sake.
    """
    rows = rows or slice(0, stack.image.shape[1])
    usable = np.stack([(mask & int(UNUSABLE)) == 0 for mask in stack.mask])  # one by one: less memory
    outlier = _outliers(stack, usable, config.artefacts)
    n_clipped = outlier[:, rows].sum(axis=(1, 2)).astype(np.int64)
    image, variance, mask, coverage = _combine(
        *(plane[:, rows] for plane in (stack.image, stack.variance, stack.mask, usable, outlier)),
        stack.weight.astype(np.float64), stack.fwhm.astype(np.float64) ** 2, 2.0 * config.max_psf_change,
        int(MaskPlane.NO_DATA), int(MaskPlane.CLIPPED), int(MaskPlane.SUSPECT), int(MaskPlane.SATURATED),
    )  # fmt: skip
    return Coadd(image, variance, mask, coverage, n_clipped, outlier | ~usable)


def _outliers(stack: EpochStack, usable: NDArray[np.bool_], config: ArtefactConfig) -> NDArray[np.bool_]:
    """Return ``[n, y, x]`` what is left out of each epoch."""
    n = stack.image.shape[0]
    outlier = np.zeros(stack.image.shape, np.bool_)
    if n == 1:
        return outlier
    static = _median(stack.image, usable, stack.mask, int(MaskPlane.NO_DATA))
    structure = _local_range(static)
    is_judged = usable.sum(axis=0, dtype=np.int16) >= 3
    match = stack.matching
    for k in range(n):
        variance = stack.variance[k] * np.float32(stack.pixel_noise[k])
        compare = partial(
            significance, stack.image[k], static, structure, variance,
            static_noise=1.571 / n,  # the median of n is noisier than their mean by pi / 2
            kernels=match.kernels[k] if match else None, mismatch=match.mismatch[k] if match else None,
            cell=match.cell if match else (1.0, 1.0), first_row=match.first_row if match else 0,
        )  # fmt: skip
        sigma = np.sqrt(variance)
        bright = usable[k] & (structure > BRIGHT_STRUCTURE * sigma)
        error = model_error(compare(bright, allowance=0.0), structure, sigma)
        allowance = max(_allowance(stack, k, config), min(config.structure_measured * error, 1.0))
        z = compare(usable[k], allowance=allowance)
        outlier[k] = find_artefacts(z, usable[k], is_judged, config, correlation=1.0 / float(stack.pixel_noise[k]))
    spare_persistent_in_place(outlier, usable, max_epochs=config.max_epochs, persistent=config.persistent)
    return outlier


def _allowance(stack: EpochStack, k: int, config: ArtefactConfig) -> float:
    """Return the fraction of the structure by which an epoch may be off the static sky."""
    if stack.matching is not None:
        return config.structure + config.structure_aliased * float(stack.matching.aliased[k])
    seeing = abs(float(np.log(stack.fwhm[k] / np.median(stack.fwhm))))
    return config.structure_unmatched + config.structure_seeing * seeing


@njit(cache=True)
def _median(image, usable, mask, no_data):  # type: ignore[no-untyped-def]
    """Return the median of the usable epochs; of two, the lower; without any, that of what covers the pixel."""
    n, ny, nx = image.shape
    out = np.zeros((ny, nx), np.float32)
    values = np.empty(n, np.float32)
    for y in range(ny):
        for x in range(nx):
            m = 0
            for attempt in range(2):
                for k in range(n):
                    if usable[k, y, x] or (attempt == 1 and (mask[k, y, x] & no_data) == 0):
                        v = image[k, y, x]
                        j = m
                        while j > 0 and values[j - 1] > v:
                            values[j] = values[j - 1]
                            j -= 1
                        values[j] = v
                        m += 1
                if m > 0:
                    break
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
def _combine(  # type: ignore[no-untyped-def]
    image, variance, mask, usable, outlier, weight, size2, max_change, no_data, clipped, suspect, saturated
):
    n, ny, nx = image.shape
    out, out_variance = np.zeros((ny, nx), np.float32), np.zeros((ny, nx), np.float32)
    out_mask, coverage = np.zeros((ny, nx), np.int32), np.zeros((ny, nx), np.int16)
    usual_size2 = np.sum(weight * size2) / np.sum(weight)
    for y in range(ny):
        for x in range(nx):
            total = power = value = size = 0.0
            bits, any_clipped, entered = 0, False, 0
            n_saturated, n_covered = 0, 0
            rest, rest_variance, rest_weight = 0.0, 0.0, 0.0
            for k in range(n):
                w = weight[k]
                if usable[k, y, x] and not outlier[k, y, x]:
                    total += w
                    size += w * size2[k]
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
                if abs(size / total - usual_size2) > max_change * usual_size2:
                    out_mask[y, x] |= suspect
            elif rest_weight > 0:  # masked in every epoch: the pixel is shown, and masked
                out[y, x], out_variance[y, x] = rest / rest_weight, rest_variance / rest_weight**2
                out_mask[y, x] = bits | (clipped if any_clipped else 0)
            else:
                out_mask[y, x] = no_data
    return out, out_variance, out_mask, coverage
