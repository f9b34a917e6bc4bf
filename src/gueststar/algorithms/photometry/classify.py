"""How star-like a source is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats64 = NDArray[np.float64]


def star_likeness(
    sharpness: Floats64, sharpness_err: Floats64, *, scatter: float = 0.03, prior_extended: float = 0.3
) -> Floats64:
    """Return the probability that a source is a point, from its width in excess of the PSF's.

    Points have sharpness 0 with a Gaussian error (``scatter`` added for what the PSF model misses); extended
    sources are spread evenly over the logarithm of sharpness from 0.05 to 5, blurred by the same error.
    Without a sharpness the answer is 0.5.
    """
    sigma = np.hypot(np.asarray(sharpness_err, dtype=np.float64), scatter)
    with np.errstate(invalid="ignore", over="ignore"):
        point: Floats64 = np.exp(-0.5 * (np.minimum(sharpness, 10 * sigma) / sigma) ** 2) / sigma
        widths = np.geomspace(0.05, 5.0, 24)
        pulls = (np.asarray(sharpness, dtype=np.float64)[:, None] - widths) / sigma[:, None]
        extended: Floats64 = np.mean(np.exp(-0.5 * pulls**2) / sigma[:, None], axis=1)
        # Wider than any of them is extended, sharper than a point is no galaxy.
        extended = np.where(sharpness > 5.0, np.maximum(extended, 1.0), extended)
        likeness = (1 - prior_extended) * point / ((1 - prior_extended) * point + prior_extended * extended)
    likeness = np.where(sharpness < 0, np.maximum(likeness, 1 - prior_extended), likeness)
    return np.where(np.isfinite(likeness), likeness, 0.5)
