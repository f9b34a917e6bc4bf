"""Straight lines are told from parts of arcs."""

from __future__ import annotations

import numpy as np

from gueststar.algorithms.streaks.bends import bend_gain
from gueststar.algorithms.streaks.trace import Segment
from gueststar.pipelines.difference._stars import fine_psf_of
from tests.unit.streaks._sky import gaussian_psf, noisy, streak_image, unit_pixels, with_snr

SHAPE, FWHM = (240, 240), 2.4
LINE = Segment(90.0, 120.0, 150.0, 120.0)
"""Where the line was found."""


def test_a_streak_gains_nothing_beyond_noise_by_bending() -> None:
    psf, random = gaussian_psf(FWHM, SHAPE), np.random.default_rng(1)
    signal = with_snr(streak_image(psf, LINE), 20.0)
    gains = [bend_gain(unit_pixels(noisy(signal, random)), fine_psf_of(psf), LINE, fwhm=FWHM) for _ in range(30)]
    assert np.quantile(gains, 0.9) < 4.5


def test_the_edge_of_a_ring_gains_as_much_as_the_line_itself_has() -> None:
    psf, random, radius = gaussian_psf(FWHM, SHAPE), np.random.default_rng(2), 70.0
    angles = np.linspace(0.2 * np.pi, 0.8 * np.pi, 60)
    x, y = 120.0 + radius * np.cos(angles), 122.0 - radius + radius * np.sin(angles)
    ring = sum(streak_image(psf, Segment(*ends)) for ends in zip(x[:-1], y[:-1], x[1:], y[1:], strict=True))
    pixels = unit_pixels(noisy(with_snr(ring, 30.0), random))
    assert bend_gain(pixels, fine_psf_of(psf), LINE, fwhm=FWHM) > 10.0
