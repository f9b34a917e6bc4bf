"""The fit of a line: its ends are where the streak ends, with errors that are true."""

from __future__ import annotations

import numpy as np
import pytest

from gueststar.algorithms.streaks.line_fit import fit_line
from gueststar.algorithms.streaks.strips import measure_strips, noise_of_lines
from gueststar.algorithms.streaks.trace import Segment
from gueststar.pipelines.difference._stars import fine_psf_of
from tests.unit.streaks._sky import gaussian_psf, noisy, streak_image, unit_pixels, with_snr

SHAPE = (240, 240)


@pytest.mark.parametrize(("fwhm", "length", "snr"), [(2.0, 15.0, 30.0), (2.4, 60.0, 40.0), (3.5, 150.0, 60.0)])
def test_ends_are_unbiased_and_their_pulls_have_unit_width(fwhm: float, length: float, snr: float) -> None:
    psf, random = gaussian_psf(fwhm, SHAPE, half=14), np.random.default_rng(1)
    fine = fine_psf_of(psf)
    along, across = [], []
    for _ in range(40):
        angle = random.uniform(0, np.pi)
        middle = random.uniform(115, 125, 2)
        half = 0.5 * length * np.array([np.cos(angle), np.sin(angle)])
        truth = Segment(*(middle - half), *(middle + half))
        pixels = unit_pixels(noisy(with_snr(streak_image(psf, truth), snr), random))
        start = Segment(*(np.array(truth) + random.normal(0.0, 1.0, 4)))
        fit = fit_line(pixels, fine, start, is_end_free=(True, True), reach=2.0 * fwhm)
        assert fit is not None
        ux, uy = truth.direction
        for k in range(2):
            dx, dy = fit.segment[2 * k] - truth[2 * k], fit.segment[2 * k + 1] - truth[2 * k + 1]
            along.append((dx * ux + dy * uy, fit.end_err[k]))
            across.append((dy * ux - dx * uy) / fit.across_err[k])
    off, error = np.array(along).T
    pulls = off / error
    assert 0.75 < 1.4826 * np.median(np.abs(pulls)) < 1.35
    assert abs(np.median(off)) < 3.0 * np.median(error) / np.sqrt(off.size)
    assert 0.75 < 1.4826 * np.median(np.abs(across)) < 1.35


def test_bright_streaks_have_ends_good_to_a_tenth_of_a_pixel() -> None:
    psf, random = gaussian_psf(2.2, SHAPE), np.random.default_rng(2)
    truth = Segment(60.3, 80.7, 151.2, 140.1)
    pixels = unit_pixels(noisy(with_snr(streak_image(psf, truth), 500.0), random))
    fit = fit_line(pixels, fine_psf_of(psf), Segment(62, 79, 150, 142), is_end_free=(True, True), reach=4.4)
    assert fit is not None
    assert np.max(np.abs(np.array(fit.segment) - np.array(truth))) < 0.1
    assert fit.chi2 == pytest.approx(1.0, abs=0.1)


def test_a_star_on_the_line_changes_neither_ends_nor_flux_much() -> None:
    psf, random = gaussian_psf(2.4, SHAPE), np.random.default_rng(3)
    truth = Segment(40.0, 100.0, 200.0, 130.0)
    signal = with_snr(streak_image(psf, truth), 80.0)
    flux = signal.sum() / truth.length
    signal[108:133, 108:133] += 2000.0 * psf.stamp(x=0.0, y=0.0)
    pixels = unit_pixels(noisy(signal, random))
    fit = fit_line(pixels, fine_psf_of(psf), truth, is_end_free=(True, True), reach=4.8)
    assert fit is not None
    assert fit.flux_per_pixel == pytest.approx(flux, rel=0.1)
    assert np.max(np.abs(np.array(fit.segment) - np.array(truth))) < 2.0


def test_sums_along_lines_of_white_noise_have_unit_variance() -> None:
    psf = gaussian_psf(2.4, (500, 500))
    pixels = unit_pixels(noisy(np.zeros((500, 500)), np.random.default_rng(5)))
    assert noise_of_lines(pixels, fine_psf_of(psf), fwhm=2.4, n=240) == pytest.approx(1.0, abs=0.15)


def test_a_broader_streak_is_told_from_one_as_wide_as_the_psf() -> None:
    narrow, wide = gaussian_psf(2.4, SHAPE), gaussian_psf(3.2, SHAPE)
    line = Segment(60.0, 80.0, 180.0, 150.0)
    found = []
    for psf in (narrow, wide):
        pixels = unit_pixels(noisy(with_snr(streak_image(psf, line), 200.0), np.random.default_rng(6)))
        sums, weight = measure_strips(pixels, fine_psf_of(narrow), line, fwhm=2.4, n_pieces=8).broader
        found.append(sums / weight)
    assert abs(found[0]) < 0.1
    assert found[1] > 0.4
