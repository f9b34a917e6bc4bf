"""The search for streaks: what is there is found, and white noise holds none."""

from __future__ import annotations

import numpy as np
import pytest

from gueststar.algorithms.streaks.cells import make_cells
from gueststar.algorithms.streaks.radon import find_segments, next_standing, segment_ends
from gueststar.algorithms.streaks.readout import shared_by_lines
from gueststar.algorithms.streaks.search import find_streaks, share_on
from gueststar.algorithms.streaks.trace import Segment
from gueststar.pipelines.difference._stars import fine_psf_of
from tests.unit.streaks._sky import gaussian_psf, noisy, score_of, streak_image, unit_pixels, with_snr

SHAPE = (300, 340)
FWHM = 2.4
PSF = gaussian_psf(FWHM, SHAPE)


def random_segment(random: np.random.Generator, length: float) -> Segment:
    angle = random.uniform(0.0, np.pi)
    ux, uy = np.cos(angle), np.sin(angle)
    x = random.uniform(20.0 + max(0.0, -length * ux), SHAPE[1] - 20.0 - max(0.0, length * ux))
    y = random.uniform(20.0, SHAPE[0] - 20.0 - length * uy)
    return Segment(x, y, x + length * ux, y + length * uy)


def search(image: np.ndarray, bad: np.ndarray | None = None):  # type: ignore[no-untyped-def]
    return find_streaks(score_of(image, PSF, bad), unit_pixels(image, bad), fine_psf_of(PSF), fwhm=FWHM)


def test_sums_of_the_transform_are_sums_along_its_lines() -> None:
    cells = np.zeros((60, 50), np.float32)
    cells += np.random.default_rng(3).normal(size=cells.shape).astype(np.float32)
    cells[np.arange(10, 42), 5 + np.arange(32) // 2] += 3.0  # 32 cells down, 16 to the right
    strongest = find_segments(cells, threshold=5.0)
    x1, y1, x2, y2 = segment_ends(strongest, 0, (60, 50))
    assert abs((x2 - x1) / (y2 - y1) - 0.5) < 0.1
    middle = 5 + (0.5 * (y1 + y2) - 10) / 2
    assert abs(0.5 * (x1 + x2) - middle) < 1.0


@pytest.mark.parametrize("shape", [(60, 50), (600, 70), (70, 530)])
@pytest.mark.parametrize("brightness", [3.0, 500.0])  # sums of 16 bits, and such as need 32
def test_the_sum_of_a_segment_is_the_same_when_it_is_added_up_again(shape: tuple[int, int], brightness: float) -> None:
    cells = np.random.default_rng(4).integers(-3, 4, shape).astype(np.float32)
    n = min(shape)
    cells[np.arange(n), np.arange(n) // 3 + 2] += brightness
    if shape[0] == 600:
        cells[:, 40] += brightness  # where strips are joined beyond what 16 bits are sure to hold
    segments = find_segments(np.clip(cells, -8.0, 31.75), threshold=3.0)
    assert segments.n > 20
    assert set(segments.quadrant.tolist()) == {0, 1, 2, 3}
    k, left = -1, 0.0
    for _ in range(segments.n):
        k, left = next_standing(np.clip(cells, -8.0, 31.75), segments, k + 1, threshold=0.0)
        assert left == pytest.approx(segments.significance[k], rel=1e-3)
    assert k == segments.n - 1


@pytest.mark.parametrize("length", [12.0, 30.0, 90.0, 220.0])
def test_streaks_of_total_snr_12_are_found_at_any_place_and_angle(length: float) -> None:
    random = np.random.default_rng(int(length))
    n = 12
    found = 0
    for _ in range(n):
        segment = random_segment(random, length)
        result = search(noisy(with_snr(streak_image(PSF, segment), 12.0), random))
        found += any(share_on(s.fit.segment, segment, width=4.0) > 0.7 and s.sign > 0 for s in result.streaks)
    assert found >= n - 1


def test_single_pixels_of_a_long_streak_that_is_found_are_below_the_noise() -> None:
    random = np.random.default_rng(5)
    segment = Segment(20.0, 30.0, 320.0, 260.0)
    signal = with_snr(streak_image(PSF, segment), 14.0)
    assert signal.max() < 0.6
    streaks = search(noisy(signal, random)).streaks
    assert len(streaks) == 1
    assert share_on(streaks[0].fit.segment, segment, width=3.0) > 0.9


def test_white_noise_holds_no_streaks() -> None:
    random = np.random.default_rng(8)
    n = sum(len(search(noisy(np.zeros(SHAPE), random)).streaks) for _ in range(8))
    assert n <= 1


def test_a_bright_star_is_no_streak() -> None:
    image = np.zeros(SHAPE)
    stamp = PSF.stamp(x=0.0, y=0.0)
    image[100:125, 80:105] += 3000.0 * stamp
    image[200:225, 210:235] -= 900.0 * stamp
    assert search(noisy(image, np.random.default_rng(1))).streaks == []


def test_a_faint_streak_is_found_beside_a_bright_one() -> None:
    bright, faint = Segment(30.0, 40.0, 300.0, 90.0), Segment(60.0, 200.0, 200.0, 60.0)
    signal = with_snr(streak_image(PSF, bright), 2000.0) + with_snr(streak_image(PSF, faint), 20.0)
    streaks = search(noisy(signal, np.random.default_rng(2))).streaks
    assert [s.sign for s in streaks] == [1, 1]
    assert share_on(streaks[1].fit.segment, faint, width=3.0) > 0.9


def test_a_streak_that_leaves_the_image_has_one_end_that_is_seen() -> None:
    segment = Segment(150.0, 150.0, 420.0, 240.0)
    streak = search(noisy(with_snr(streak_image(PSF, segment), 100.0), np.random.default_rng(2))).streaks[0]
    ends = sorted(
        zip((streak.fit.segment.x1, streak.fit.segment.x2), streak.is_end_seen, streak.fit.end_err, strict=True)
    )
    assert abs(ends[0][0] - 150.0) < 1.5
    assert ends[0][1]
    assert ends[1][0] == pytest.approx(SHAPE[1] - 0.5, abs=0.6)
    assert not ends[1][1]
    assert np.isnan(ends[1][2])


def test_masked_pixels_change_neither_the_noise_nor_the_flux_of_a_streak() -> None:
    random = np.random.default_rng(4)
    segment = Segment(40.0, 50.0, 260.0, 210.0)
    signal = with_snr(streak_image(PSF, segment), 60.0)
    image = noisy(signal, random)
    bad = random.random(SHAPE) < 0.0
    bad[100:130] = True
    image[bad] = 1e5
    streak = search(image, bad).streaks[0]
    truth = signal.sum() / segment.length
    assert abs(streak.fit.flux_per_pixel - truth) < 4.0 * streak.fit.flux_per_pixel_err
    assert streak.strips.lost.mean() == pytest.approx(30.0 / 160.0, abs=0.06)


def test_a_score_without_data_is_searched_in_vain() -> None:
    cells = make_cells(np.zeros((100, 90), np.float32), fwhm=2.0)
    assert find_segments(cells.values, threshold=5.0).n == 0


def test_readout_noise_of_whole_rows_makes_no_streaks() -> None:
    random = np.random.default_rng(6)
    rows = np.repeat(random.normal(0.0, 0.4, (SHAPE[0], 1)), SHAPE[1], axis=1)
    streaks = search(noisy(rows, random)).streaks
    assert len(streaks) <= 1


def test_ends_of_faint_streaks_have_errors_that_hold_far_from_the_best_place() -> None:
    random = np.random.default_rng(0)
    truth = Segment(100.0, 130.0, 155.0, 150.0)
    signal = with_snr(streak_image(PSF, truth), 12.0)
    pulls = []
    for _ in range(25):
        streaks = search(noisy(signal, random)).streaks
        if not streaks:
            continue
        fit = streaks[0].fit
        order = (0, 1) if fit.segment.x1 < fit.segment.x2 else (1, 0)
        for true_x, true_y, k in ((truth.x1, truth.y1, order[0]), (truth.x2, truth.y2, order[1])):
            dx, dy = fit.segment[2 * k] - true_x, fit.segment[2 * k + 1] - true_y
            pulls.append((dx * truth.direction[0] + dy * truth.direction[1]) / fit.end_err[k])
    assert len(pulls) >= 2 * 22
    assert np.std(pulls) < 1.5
    assert np.mean(np.abs(pulls) > 4.0) < 0.07


def test_what_rows_share_is_measured_and_noise_is_left_alone() -> None:
    random = np.random.default_rng(9)
    noise = random.normal(0.0, 3.0, (400, 500)).astype(np.float32)
    usable = np.ones(noise.shape, bool)
    assert shared_by_lines(noise, usable, scale=3.0, axis=0) is None
    levels = random.normal(0.0, 0.6, 400).astype(np.float32)
    shared = shared_by_lines(noise + levels[:, None], usable, scale=3.0, axis=0)
    assert shared is not None
    assert np.std(shared - levels) < 0.2
