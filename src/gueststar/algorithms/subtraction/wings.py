"""Quiet the noise in the far wings of PSF models, which bright stars would print on a difference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Stamps = NDArray[np.float32]


def soften_wings(stamps: Stamps, *, radius: float, taper: float = 0.2) -> Stamps:
    """Return stamps (or polynomial coefficients of stamps) ``[n, k, k]`` with round, quiet wings.

    Between ``radius`` and 1.5 ``radius`` samples from the centre a stamp goes over to its own mean at that
    distance; in the outer part ``taper`` of the stamp's half-side it falls to zero like a cosine. Being
    linear, this may be done to the coefficients of a PSF model. The noise of a pixel in the wings falls by the root
    of the number of pixels at its distance.
    """
    n, k, _ = stamps.shape
    c = k // 2
    yy, xx = np.mgrid[-c : c + 1, -c : c + 1]
    r = np.hypot(xx, yy)
    ring = np.rint(r).astype(int)
    count = np.bincount(ring.ravel())
    share = np.clip((r - radius) / (0.5 * radius), 0.0, 1.0)
    edge = np.clip((c + 0.5 - r) / max(taper * c, 1.0), 0.0, 1.0)
    fade = 0.5 - 0.5 * np.cos(np.pi * edge)
    out = np.empty_like(stamps)
    for i in range(n):
        mean = (np.bincount(ring.ravel(), stamps[i].ravel()) / count)[ring]
        out[i] = fade * ((1.0 - share) * stamps[i] + share * mean)
    return out
