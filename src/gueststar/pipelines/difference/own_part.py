"""What of an exposure is in the reference it is compared with: noise that both have is not in their difference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.subtraction.prepare import grow
from gueststar.algorithms.warp.position_map import build_position_map, map_positions
from gueststar.core.bits import UNUSABLE, MaskPlane
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.pipelines.difference._registration import sky_transform

Float32Image = NDArray[np.float32]

ALONE = 0.9
"""An exposure that makes more than this part of its reference is all that is known of the sky there."""
SPOILT = 3.0
"""Pixels about an unusable one that co-addition leaves out with it (the inner 4 x 4 of the warp's kernel, and half a
pixel)."""
_STEP = 16
"""Pixels between the places that are mapped: the nearest pixel is wanted, and between them the map is straight."""


def own_part(reference: CalibratedImage, visit: int, science: CalibratedImage) -> Float32Image | None:
    """Return which part of the reference's light is an exposure's, ``[y, x]`` on the pixels of its image.

    It is the exposure's weight over that of the epochs that cover a place, the others' taken for their mean where some
    are missing. About its own unusable pixels it is 0. Where epochs were left out as artefacts, the exposure may be one
    of them, and 0 is told, with which nothing seems more significant than it is. None if the exposure is not one of
    several epochs.

    Parameters
    ----------
    reference
        With its co-addition's metadata: ``epochs``, ``weights``; and ``coverage``.
    visit
        The exposure.
    science
        Its image.
    """
    epochs = [str(epoch) for epoch in reference.metadata.get("epochs", ())]
    weights = reference.metadata.get("weights", ())
    if str(visit) not in epochs or len(epochs) < 2 or len(weights) != len(epochs) or reference.coverage is None:
        return None
    own = float(weights[epochs.index(str(visit))])
    others = (float(np.sum(weights)) - own) / (len(epochs) - 1)
    n = np.arange(max(len(epochs), int(reference.coverage.max(initial=0))) + 1)
    part = np.where(n > 0, own / (own + np.maximum(n - 1, 0) * others), 0.0)
    position_map = build_position_map(sky_transform(science.wcs, reference.wcs), science.shape)
    out = np.zeros(science.shape, np.float32)
    columns = np.arange(science.shape[1], dtype=np.float64)
    nodes = np.append(columns[:-1:_STEP], columns[-1])
    for y in range(science.shape[0]):
        at = map_positions(position_map, x=nodes, y=np.full(nodes.size, float(y)))
        at_x, at_y = (np.interp(columns, nodes, axis) for axis in at)
        _look_up(reference.coverage, reference.pixels.mask, int(MaskPlane.CLIPPED), part, at_x, at_y, out[y])
    out[grow(science.pixels.is_masked(UNUSABLE), SPOILT)] = 0.0
    return out


@njit(cache=True)
def _look_up(coverage, mask, clipped, part, x, y, out):  # type: ignore[no-untyped-def]
    ny, nx = coverage.shape
    for k in range(out.size):
        if np.isfinite(x[k]) and np.isfinite(y[k]):
            i, j = int(np.rint(x[k])), int(np.rint(y[k]))
            if 0 <= i < nx and 0 <= j < ny and (mask[j, i] & clipped) == 0:
                out[k] = part[coverage[j, i]]


def without_own_alone(reference_warped: CalibratedImage, own: Float32Image) -> CalibratedImage:
    """Return a warped reference that has no data where it shows the exposure itself and nothing else."""
    pixels = reference_warped.pixels
    mask = pixels.mask | np.where(own > ALONE, np.int32(int(MaskPlane.NO_DATA)), np.int32(0))
    return replace(reference_warped, pixels=MaskedImage(pixels.image, pixels.variance, mask))


def take_off_shared_noise_in_place(
    science_variance: Float32Image, reference_variance: Float32Image, own: Float32Image
) -> None:
    """Scale both variances so that their sum is that of the difference, ``own`` part of the reference being science.

    With weights that add up to one, the covariance of an image with a mean that holds a part *w* of it is *w* times its
    variance, so that the variance of the difference is less than the sum by twice that.
    """
    _take_off(science_variance, reference_variance, own)


@njit(cache=True)
def _take_off(science_variance, reference_variance, own):  # type: ignore[no-untyped-def]
    least = np.float32(0.1)
    for y in range(own.shape[0]):
        for x in range(own.shape[1]):
            total = science_variance[y, x] + reference_variance[y, x]
            if own[y, x] > 0 and total > 0:
                left = max(np.float32(1) - np.float32(2) * own[y, x] * science_variance[y, x] / total, least)
                science_variance[y, x] *= left
                reference_variance[y, x] *= left
