"""Make two aligned images free of masked pixels, so that filters do not spread what is wrong with them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.warp.fill import fill_masked

Float32Image = NDArray[np.float32]
Bools = NDArray[np.bool_]


def fill_pair(
    science: Float32Image, reference: Float32Image, bad_science: Bools, bad_reference: Bools
) -> tuple[Float32Image, Float32Image]:
    """Return both images with bad pixels replaced so that their difference stays smooth there.

    The difference is interpolated over the union of bad pixels; a pixel bad in one image is then the other
    image's value plus or minus that, so that a masked pixel in a star's core keeps the star. Where both are
    bad, the reference is interpolated from its own surroundings first.
    """
    bad = bad_science | bad_reference
    if not bad.any():
        return science, reference
    difference = fill_masked(science - reference, bad)
    both = bad_science & bad_reference
    filled = fill_masked(reference, bad_reference) if both.any() else reference
    filled = np.where(bad_reference & ~both, science - difference, filled)
    return np.where(bad, filled + difference, science), filled


def fill_variance(variance: Float32Image, bad: Bools) -> Float32Image:
    """Return the variance with bad pixels (and those not positive) filled from their surroundings."""
    return fill_masked(variance, bad | ~(variance > 0))


def grow(bad: Bools, radius: int) -> Bools:
    """Return ``bad`` grown by a square of half-side ``radius``."""
    out = bad.copy()
    for _ in range(radius):
        wide = out.copy()
        wide[1:] |= out[:-1]
        wide[:-1] |= out[1:]
        out = wide.copy()
        out[:, 1:] |= wide[:, :-1]
        out[:, :-1] |= wide[:, 1:]
    return out
