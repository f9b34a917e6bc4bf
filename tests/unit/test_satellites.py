"""Trails of satellites, and what is none."""

import numpy as np
import pytest

from gueststar.algorithms.detrend.line_sums import significant_lines, strongest_standing
from gueststar.algorithms.detrend.satellites import find_trails, trail_pixels

SHAPE = (600, 700)
SIGMA = 20.0


def field(seed, n_stars=200):
    rng = np.random.default_rng(seed)
    image = rng.normal(0.0, SIGMA, SHAPE)
    v, u = np.mgrid[-12:13, -12:13]
    for x, y in zip(rng.uniform(15, SHAPE[1] - 15, n_stars), rng.uniform(15, SHAPE[0] - 15, n_stars), strict=True):
        column, row = round(x), round(y)
        shape = (1.0 + ((u + column - x) ** 2 + (v + row - y) ** 2) / 4.0) ** -3.0
        image[row - 12 : row + 13, column - 12 : column + 13] += 10.0 ** rng.uniform(1.5, 4.0) * shape
    return image


def add_line(image, x1, y1, x2, y2, peak, width=1.5):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    length = np.hypot(x2 - x1, y2 - y1)
    ux, uy = (x2 - x1) / length, (y2 - y1) / length
    across = (y - y1) * ux - (x - x1) * uy
    along = (x - x1) * ux + (y - y1) * uy
    line = peak * np.exp(-0.5 * (across / width) ** 2) * ((along > 0) & (along < length))
    image += line
    return line > 0.3 * peak


def search(image):
    image = image.astype(np.float32)
    flat = np.zeros_like(image)
    return find_trails(image, flat, flat + np.float32(SIGMA), np.zeros(SHAPE, bool))


def covered(trails, core):
    mask = np.zeros(SHAPE, bool)
    for trail in trails:
        mask[trail_pixels(trail, shape=SHAPE)] = True
    return mask[core].mean(), (mask & ~core).mean()


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_stars_in_a_row_by_chance_are_no_trail(seed):
    assert search(field(seed, n_stars=400)) == []


@pytest.mark.parametrize("peak", [30.0, 100.0, 3000.0])
@pytest.mark.parametrize("ends", [(-50, 100, 800, 450), (300, -20, 380, 700), (0, 500, 700, 480), (100, 620, 690, 0)])
def test_trail_across_the_image_is_covered(peak, ends):
    image = field(5)
    core = add_line(image, *ends, peak)
    trails = search(image)
    inside, outside = covered(trails, core)
    assert len(trails) == 1
    assert inside > 0.9
    assert outside < 0.03


def test_trail_across_a_corner_is_found_though_short():
    image = field(11)
    core = add_line(image, 620, -10, 710, 80, 300.0)
    trails = search(image)
    assert len(trails) == 1
    assert covered(trails, core)[0] > 0.9


def test_two_trails_are_two():
    image = field(6)
    core = add_line(image, 0, 50, 700, 500, 150.0) | add_line(image, 0, 550, 700, 300, 60.0)
    trails = search(image)
    assert len(trails) == 2
    assert covered(trails, core)[0] > 0.95


def test_short_streak_is_left_for_the_search_for_movers():
    image = field(7)
    add_line(image, 300, 300, 360, 330, 400.0)
    assert search(image) == []


def test_long_galaxy_is_no_trail():
    image = field(8)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    u, v = (x - 350) * 0.8 + (y - 300) * 0.6, -(x - 350) * 0.6 + (y - 300) * 0.8
    image += 5000.0 * np.exp(-np.sqrt((u / 30.0) ** 2 + (v / 4.0) ** 2))
    assert search(image) == []


def test_spikes_of_a_bright_star_are_no_trail():
    image = field(9)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    distance = np.hypot(x - 350, y - 300)
    for across in (np.abs((x - 350) - (y - 300)), np.abs((x - 350) + (y - 300))):
        image += 2e4 * np.exp(-0.5 * (across / 2.0) ** 2) / (1.0 + distance / 5.0) ** 2
    image += 1e5 / (1.0 + (distance / 3.0) ** 2) ** 1.5
    assert search(image) == []


@pytest.mark.parametrize("shape", [(64, 100), (100, 64), (77, 77)])
def test_strongest_line_of_noise_is_about_five_sigma_and_of_a_line_is_the_line(shape):
    rng = np.random.default_rng(10)
    noise = rng.normal(size=shape).astype(np.float32)
    assert len(significant_lines(noise, min_length=20.0, threshold=6.0)) == 0
    image = noise.copy()
    image[np.arange(60), np.arange(60) // 2 + 10] += 3.0
    lines = significant_lines(image, min_length=20.0, threshold=6.0)
    line = strongest_standing(image, lines)
    assert line.significance > 12.0
    slope = (line.x2 - line.x1) / (line.y2 - line.y1)
    assert slope == pytest.approx(0.5, abs=0.05)
    assert strongest_standing(noise * 0, lines) is None


def test_the_first_lines_in_order_are_those_of_all_in_order():
    image = np.random.default_rng(11).normal(size=(64, 80)).astype(np.float32)
    lines = significant_lines(image, min_length=10.0, threshold=0.5)
    first = lines.strongest(50).copy()
    everything = np.argsort(-lines.table[:, 3], kind="stable")
    assert 50 <= first.size < len(lines)
    assert np.array_equal(first, everything[: first.size])
    assert np.array_equal(lines.strongest(10 * len(lines)), everything)
