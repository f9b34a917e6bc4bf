"""Give the PSFs of two images the same quiet far wings, so that bright stars do not print their models' noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Stamps = NDArray[np.float32]


def share_wings(science: Stamps, reference: Stamps, *, radius: float, taper: float = 0.2) -> tuple[Stamps, Stamps]:
    """Return stamps ``[n, k, k]`` and ``[m, k, k]`` of unit sum whose wings are one round profile.

    Between ``radius`` and 1.5 ``radius`` pixels from the centre the stamps go over to the mean profile of both
    images, which in the outer part ``taper`` of the half-side falls to zero like a cosine. In a difference
    P_r * N - P_n * R wings that are alike cancel, whatever their height, and leave the plain difference of the images
    there; wings that differ by a hundred-thousandth leave rings about stars of a million electrons.
    """
    k = science.shape[1]
    c = k // 2
    yy, xx = np.mgrid[-c : c + 1, -c : c + 1]
    r = np.hypot(xx, yy)
    ring = np.rint(r).astype(int)
    share = np.clip((r - radius) / (0.5 * radius), 0.0, 1.0).astype(np.float32)
    fade = 0.5 - 0.5 * np.cos(np.pi * np.clip((c + 0.5 - r) / max(taper * c, 1.0), 0.0, 1.0))
    mean = (science.mean(axis=0, dtype=np.float64) + reference.mean(axis=0, dtype=np.float64)) / 2
    profile = (np.bincount(ring.ravel(), mean.ravel()) / np.bincount(ring.ravel()))[ring]
    common = (np.maximum(profile, 0.0) * fade).astype(np.float32)
    mixed = [(1.0 - share) * stamps + share * common for stamps in (science, reference)]
    return _normalised(mixed[0]), _normalised(mixed[1])


def _normalised(stamps: Stamps) -> Stamps:
    return np.asarray(stamps / stamps.sum(axis=(1, 2), keepdims=True), dtype=np.float32)
