"""Give the PSFs of two images the same quiet far wings, so that bright stars do not print their models' noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Stamps = NDArray[np.float32]


def common_wing(science: Stamps, reference: Stamps, *, taper: float = 0.2) -> Floats:
    """Return the mean profile of both images' stamps ``[n, k, k]`` by radius in whole pixels.

    In the outer part ``taper`` of the half-side it falls to zero like a cosine.
    """
    k = science.shape[1]
    c = k // 2
    yy, xx = np.mgrid[-c : c + 1, -c : c + 1]
    ring = np.rint(np.hypot(xx, yy)).astype(int)
    mean = (science.mean(axis=0, dtype=np.float64) + reference.mean(axis=0, dtype=np.float64)) / 2
    profile = np.maximum(np.bincount(ring.ravel(), mean.ravel()) / np.bincount(ring.ravel()), 0.0)
    r = np.arange(profile.size)
    fade = 0.5 - 0.5 * np.cos(np.pi * np.clip((c + 0.5 - r) / max(taper * c, 1.0), 0.0, 1.0))
    return np.asarray(profile * fade)


def with_wing(samples: Stamps, wing: Floats, *, radius: float, oversampling: int = 1) -> Stamps:
    """Return PSF samples ``[n, k, k]`` that go over to the round profile ``wing`` between ``radius`` and 1.5 of it.

    In a difference P_r * N - P_n * R wings that are alike cancel, whatever their height, and leave the plain
    difference of the images there; wings that differ by a hundred-thousandth leave rings about stars of a million
    electrons. ``radius`` is in pixels, of which ``oversampling`` samples make one. The image-sampled sums are one.
    """
    c = samples.shape[1] // 2
    yy, xx = np.mgrid[-c : c + 1, -c : c + 1]
    r = np.hypot(xx, yy) / oversampling
    share = np.clip((r - radius) / (0.5 * radius), 0.0, 1.0).astype(np.float32)
    common = np.interp(r, np.arange(wing.size), wing, right=0.0).astype(np.float32)
    mixed = (1.0 - share) * samples + share * common
    middle = slice(c % oversampling, None, oversampling)
    return np.asarray(mixed / mixed[:, middle, middle].sum(axis=(1, 2), keepdims=True), dtype=np.float32)
