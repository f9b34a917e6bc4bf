"""Artificial streaks in a science image: what the search for streaks is trained on and measured with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from gueststar.algorithms.streaks.artificial import EVEN, Flicker, render_streak
from gueststar.algorithms.streaks.search import share_on
from gueststar.algorithms.streaks.trace import Segment
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.pipelines.difference._stars import fine_psf_of


@dataclass(frozen=True)
class ArtificialStreaksConfig:
    """What streaks are put in."""

    n: int = 10
    """How many."""
    snr: tuple[float, float] = (5.0, 100.0)
    """Total signal to noise on usable pixels, evenly in its logarithm."""
    least_length_fwhm: float = 3.5
    """Shortest, FWHM; lengths are drawn evenly in their logarithm."""
    longest: float = 1.2
    """Longest, over the longer side of the image."""
    uneven_fraction: float = 0.2
    """Fraction that changes in brightness along it."""
    broad_fraction: float = 0.2
    """Fraction that is out of focus."""


class ArtificialStreak(NamedTuple):
    """A streak that was put in."""

    segment: Segment
    snr: float
    """Total signal to noise on usable pixels of the science image."""
    usable: float
    """Fraction of its light on usable pixels."""

    def is_matched_by(self, found: Segment, *, fwhm: float) -> bool:
        """Return whether a streak that was found lies on this one, for most of its length."""
        return share_on(found, self.segment, width=2.0 * fwhm) > 0.7


def put_streaks(
    science: CalibratedImage, random: np.random.Generator, *, config: ArtificialStreaksConfig | None = None
) -> tuple[CalibratedImage, list[ArtificialStreak]]:
    """Return a science image with streaks added at random, and what was added. Noise of their own is not added."""
    config = config or ArtificialStreaksConfig()
    pixels, psf, fwhm = science.pixels, fine_psf_of(science.psf), science.psf.central_fwhm
    image, usable = pixels.image.copy(), pixels.is_usable() & (pixels.variance > 0)
    added = []
    for _ in range(config.n):
        segment = draw_segment(science.shape, fwhm, random, config)
        flicker, width = EVEN, 0.0
        if random.random() < config.uneven_fraction:
            flicker = Flicker(random.uniform(0, 0.6), random.uniform(5, 100) * fwhm, random.uniform(0, 2 * np.pi))
        if random.random() < config.broad_fraction:
            width = random.uniform(0.3, 1.0) * fwhm
        streak = render_streak(psf, segment, shape=science.shape, half_width=width, flicker=flicker)
        good = usable & (streak > 0)
        if not good.any():
            continue
        power = float(np.sum(streak[good].astype(np.float64) ** 2 / pixels.variance[good]))
        snr = float(np.exp(random.uniform(*np.log(config.snr))))
        image += np.float32(snr / np.sqrt(power)) * streak
        added.append(ArtificialStreak(segment, snr, float(streak[good].sum() / streak.sum())))
    return replace(science, pixels=MaskedImage(image, pixels.variance, pixels.mask)), added


def draw_segment(
    shape: tuple[int, int], fwhm: float, random: np.random.Generator, config: ArtificialStreaksConfig
) -> Segment:
    """Return a streak of random length and direction whose middle lies on the image."""
    ny, nx = shape
    limits = np.log([config.least_length_fwhm * fwhm, config.longest * max(shape)])
    length, angle = float(np.exp(random.uniform(*limits))), random.uniform(0.0, np.pi)
    x, y = random.uniform(0.02, 0.98, 2) * (nx, ny)
    dx, dy = 0.5 * length * np.cos(angle), 0.5 * length * np.sin(angle)
    return Segment(float(x - dx), float(y - dy), float(x + dx), float(y + dy))
