"""Smooth random patterns on the plane, as sums of waves: the same value wherever and in whatever order asked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class WaveField:
    """A Gaussian random field of unit variance: ``sqrt(2 w) cos(k . r + phase)`` summed over waves."""

    kx: Floats
    ky: Floats
    phase: Floats
    weight: Floats

    def at(self, x: Floats, y: Floats) -> Floats:
        """Return the field at positions, in the unit of the scales given to `wave_field`."""
        total = np.zeros(np.broadcast(x, y).shape)
        for kx, ky, phase, weight in zip(self.kx, self.ky, self.phase, self.weight, strict=True):
            total += np.sqrt(2.0 * weight) * np.cos(kx * x + ky * y + phase)
        return total

    def on_grid(self, x: Floats, y: Floats) -> Floats:
        """Return the field ``[y.size, x.size]`` on the product of two axes."""
        across = np.exp(1j * (np.outer(self.kx, x)))
        along = np.exp(1j * (np.outer(self.ky, y) + self.phase[:, None])) * np.sqrt(2.0 * self.weight)[:, None]
        return np.asarray((along.T @ across).real)


def wave_field(random: np.random.Generator, *, scale: float, slope: float = 11.0 / 3.0, n_waves: int = 60) -> WaveField:
    """Return a field whose power spectrum is flat up to wave number 2 pi / ``scale`` and then falls as k**-slope."""
    ratio = np.exp(random.uniform(np.log(0.3), np.log(12.0), n_waves))
    wave_number = 2 * np.pi / scale * ratio
    direction = random.uniform(0, 2 * np.pi, n_waves)
    # Waves are drawn evenly in ln k, so each stands for a power of k**2 P(k).
    weight = ratio**2 * (1.0 + ratio**2) ** (-slope / 2)
    return WaveField(
        wave_number * np.cos(direction), wave_number * np.sin(direction),
        random.uniform(0, 2 * np.pi, n_waves), weight / weight.sum(),
    )  # fmt: skip
