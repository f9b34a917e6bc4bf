"""Charge tracks of cosmic rays and radioactivity in a detector."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

THICKNESS_PIXELS = 2.7
"""Depth of the silicon: 40 micrometres at 15 micrometre pixels."""
ELECTRONS_PER_PIXEL = 1150.0
"""Ionisation by a fast muon along one pixel (80 electrons per micrometre)."""
_STEP = 0.1


def add_cosmic_rays_in_place(
    image: NDArray[np.float32], random: np.random.Generator, *, per_mpix_s: float, seconds: float
) -> int:
    """Add tracks to ``image`` (electrons) and return their number.

    Three quarters are muons: straight tracks through the whole depth with zenith angles as cos**2, so mostly
    short, some long. The rest are electrons (Compton, decay of potassium and thorium) that scatter on winding
    paths and stop.
    """
    ny, nx = image.shape
    n = int(random.poisson(per_mpix_s * seconds * nx * ny / 1e6))
    for _ in range(n):
        x, y = random.uniform(0, nx), random.uniform(0, ny)
        is_muon = random.random() < 0.75
        steps, charge = _muon(random) if is_muon else _electron(random)
        # Charge spreads by about a third of a pixel on its way to the gates.
        place = np.array([[x], [y]]) + np.cumsum(steps, axis=1) + 0.3 * random.normal(size=steps.shape)
        column, row = np.floor(place).astype(np.int64)
        inside = (column >= 0) & (column < nx) & (row >= 0) & (row < ny)
        np.add.at(image, (row[inside], column[inside]), charge[inside].astype(np.float32))
    return n


def _muon(random: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return steps ``[2, n]``, pixels, and charge ``[n]``, electrons, of a straight track."""
    zenith = np.arccos(random.random() ** (1.0 / 4.0))
    length = min(THICKNESS_PIXELS * np.tan(zenith), 200.0)
    path = np.hypot(length, THICKNESS_PIXELS)
    n = max(4, int(length / _STEP))
    direction = random.uniform(0, 2 * np.pi)
    steps = np.outer([np.cos(direction), np.sin(direction)], np.full(n, length / n))
    # Energy loss has a long tail (delta rays): log-normal pieces, correlated over a pixel.
    loss = np.repeat(random.lognormal(-0.08, 0.4, n // 10 + 1), 10)[:n]
    return steps, ELECTRONS_PER_PIXEL * path / n * loss


def _electron(random: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return steps and charge of a winding track whose ionisation rises towards its end."""
    length = random.exponential(7.0) + 1.0
    n = max(5, int(length / _STEP))
    heading = random.uniform(0, 2 * np.pi) + np.cumsum(random.normal(0, 0.16, n))
    left = np.linspace(1.0, 0.02, n)
    charge = ELECTRONS_PER_PIXEL * _STEP * (0.8 + 0.9 / np.sqrt(left) * 0.5) * random.lognormal(-0.05, 0.3, n)
    return _STEP * np.array([np.cos(heading), np.sin(heading)]), charge
