"""The zero level from overscans."""

import numpy as np
import pytest

from gueststar.algorithms.detrend.overscan import OverscanStrip, find_jumps, measure_overscan, smooth_where_quiet


def strip(rng, level, columns=30, noise=1.5):
    level = np.asarray(level, float)
    return OverscanStrip(np.round(level[:, None] + rng.normal(0.0, noise, (level.size, columns))).astype(np.float32), 0)


def test_quiet_level_is_found_far_better_than_one_row_tells():
    rng = np.random.default_rng(1)
    found = measure_overscan([strip(rng, np.full(2000, 1000.0))], n_rows=2000)
    row_error = 1.5 / np.sqrt(30)
    assert np.std(found.row_level - 1000.0) < 0.35 * row_error
    assert found.level == pytest.approx(1000.0, abs=0.05)
    assert found.jumps == ()


def test_read_noise_is_that_of_the_overscan_pixels():
    rng = np.random.default_rng(2)
    drift = 1000.0 + 3.0 * np.sin(np.arange(1500) / 200.0)
    found = measure_overscan([strip(rng, drift, noise=2.0)], n_rows=1500)
    assert found.read_noise == pytest.approx(np.sqrt(4.0 + 1.0 / 12.0), rel=0.02)


def test_settling_at_the_start_is_followed_row_by_row():
    rng = np.random.default_rng(3)
    rows = np.arange(1000)
    level = 1625.0 - 1300.0 * np.exp(-rows / 5.0)
    found = measure_overscan([strip(rng, level)], n_rows=1000)
    assert np.abs(found.row_level - level).max() < 5.0 * 1.53 / np.sqrt(30)


def test_jump_is_found_where_it_is_and_not_smeared():
    rng = np.random.default_rng(4)
    level = np.where(np.arange(1200) < 700, 1000.0, 1003.0)
    found = measure_overscan([strip(rng, level)], n_rows=1200)
    assert [jump.row for jump in found.jumps] == [700]
    assert found.jumps[0].step == pytest.approx(3.0, abs=0.3)
    assert np.abs(found.row_level - level)[690:710].max() < 0.6


def test_drift_is_no_jump():
    rng = np.random.default_rng(5)
    values = np.cumsum(rng.normal(0.0, 0.02, 3000)) + rng.normal(0.0, 0.2, 3000)
    assert find_jumps(values, 0.2) == ()


def test_columns_that_still_hold_light_are_left_out():
    rng = np.random.default_rng(6)
    leaky = strip(rng, np.full(800, 500.0))
    leaky.pixels[:, 0] += 300.0
    leaky.pixels[:, 1] += 20.0
    leaky.pixels[:, -1] -= 400.0
    assert measure_overscan([leaky], n_rows=800).level == pytest.approx(500.0, abs=0.06)


def test_bright_spot_in_the_overscan_does_not_move_its_row():
    rng = np.random.default_rng(7)
    hit = strip(rng, np.full(600, 500.0))
    hit.pixels[300, 10:13] += 4000.0
    found = measure_overscan([hit], n_rows=600)
    assert abs(found.row_level[300] - 500.0) < 0.5


def test_strip_with_more_rows_than_the_data_is_aligned():
    rng = np.random.default_rng(8)
    level = np.arange(120.0)
    tall = strip(rng, level, noise=0.1)._replace(first_row=-20)
    found = measure_overscan([tall], n_rows=100)
    assert found.row_level[0] == pytest.approx(20.0, abs=0.5)
    assert found.row_level[-1] == pytest.approx(119.0, abs=0.5)


def test_parallel_overscan_gives_one_level():
    rng = np.random.default_rng(9)
    parallel = OverscanStrip(rng.normal(321.0, 2.0, (20, 500)).astype(np.float32), 400)
    found = measure_overscan([parallel], n_rows=400)
    assert found.row_level.shape == (400,)
    assert found.level == pytest.approx(321.0, abs=0.1)
    assert found.read_noise == pytest.approx(2.0, rel=0.05)


def test_no_overscan_is_an_error():
    with pytest.raises(ValueError, match="no overscan"):
        measure_overscan([], n_rows=10)


def test_smoothing_keeps_the_mean():
    rng = np.random.default_rng(10)
    values = rng.normal(5.0, 1.0, 500)
    assert smooth_where_quiet(values, 1.0).mean() == pytest.approx(values.mean(), abs=0.05)
