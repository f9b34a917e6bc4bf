"""Point sources among the candidates for streaks: told for certain, and no line is taken for one."""

from __future__ import annotations

import numpy as np
import pytest

from gueststar.algorithms.streaks.point import is_point
from gueststar.algorithms.streaks.trace import Segment
from tests.unit.streaks._sky import gaussian_psf, noisy, score_of, streak_image, with_snr

SHAPE = (80, 90)
FWHM = 2.4
PSF = gaussian_psf(FWHM, SHAPE)


def is_taken_for_point(length: float, snr: float, angle: float, random: np.random.Generator, sign: int = 1) -> bool:
    """Return what is said of a line in noise; the segment asked about is off by a pixel and a few degrees."""
    x, y = 45.0 + random.uniform(-1, 1), 40.0 + random.uniform(-1, 1)
    ux, uy = 0.5 * length * np.cos(angle), 0.5 * length * np.sin(angle)
    light = with_snr(streak_image(PSF, Segment(x - ux, y - uy, x + ux, y + uy)), snr)
    turned = angle + random.uniform(-0.15, 0.15)
    vx, vy = 8.0 * np.cos(turned), 8.0 * np.sin(turned)
    rough = Segment(x - vx + 1.0, y - vy, x + vx + 1.0, y + vy)
    return is_point(score_of(noisy(sign * light, random), PSF), rough, sign=float(sign), reach=3.0, fwhm=FWHM)


@pytest.mark.parametrize("sign", [1, -1])
def test_bright_points_are_told(sign: int) -> None:
    random = np.random.default_rng(5)
    told = [is_taken_for_point(0.1, snr, random.uniform(0, np.pi), random, sign) for snr in (12.0, 20.0, 60.0) * 20]
    assert np.mean(told) > 0.95


@pytest.mark.parametrize("length", [3.2, 4.0, 6.0])
def test_no_line_is_taken_for_a_point(length: float) -> None:
    random = np.random.default_rng(6)
    for snr in (10.0, 15.0, 25.0, 60.0):
        for angle in np.linspace(0.0, np.pi, 12, endpoint=False):
            assert not is_taken_for_point(length * FWHM, snr, angle, random), (snr, angle)


def test_nothing_is_said_of_what_is_faint() -> None:
    random = np.random.default_rng(7)
    assert not any(is_taken_for_point(0.1, 5.0, 0.3, random) for _ in range(20))
