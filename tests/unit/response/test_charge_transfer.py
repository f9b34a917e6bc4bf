"""Charge left behind by the transfer, from what trails flats into the overscan."""

import numpy as np
import pytest

from gueststar.algorithms.detrend.overscan import OverscanStrip, measure_overscan
from gueststar.algorithms.response.charge_transfer import (
    mark_deferred_charge_in_place,
    mean_inefficiency,
    measure_deferred_charge,
)
from gueststar.core.bits import MaskPlane
from gueststar.simulation.charge import trail_in_place

NY, NX, NOISE = 300, 256, 3.0


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def flat(rng, level, inefficiency, *, zero=None):
    read = np.zeros((NY, NX + 24), np.float32)
    read[:, :NX] = rng.poisson(level, (NY, NX))
    trail_in_place(read, inefficiency)
    zero = np.full(NY, 1_000.0) if zero is None else zero
    read += rng.normal(0.0, NOISE, read.shape) + zero[:, None]
    return read[:, :NX].astype(np.float32), read[:, NX:].astype(np.float32)


@pytest.mark.parametrize("inefficiency", [2e-6, 2e-5])
def test_inefficiency_comes_back(rng, inefficiency):
    flats = [measure_deferred_charge(*flat(rng, level, inefficiency)) for level in (10_000, 30_000, 50_000)]
    found = mean_inefficiency(flats, saturation=60_000.0)
    assert found.is_significant
    assert found.inefficiency == pytest.approx(inefficiency, abs=4 * found.error + 0.01 * inefficiency)


def test_perfect_transfer_is_found_perfect_even_where_the_bias_drifts_and_jumps(rng):
    zero = 1_000.0 + 0.1 * np.arange(NY) + 12.0 * (np.arange(NY) > 140)
    flats = [measure_deferred_charge(*flat(rng, 30_000, 0.0, zero=zero)) for _ in range(3)]
    found = mean_inefficiency(flats, saturation=60_000.0)
    assert not found.is_significant
    assert found.inefficiency == 0.0
    assert found.error < 1e-6


def test_faint_flats_and_light_in_the_overscan_are_refused(rng):
    faint = [measure_deferred_charge(*flat(rng, 100, 1e-5))]
    with pytest.raises(ValueError, match="no flat is brighter"):
        mean_inefficiency(faint, saturation=60_000.0)
    data, overscan = flat(rng, 30_000, 0.0)
    overscan[:, :2] += 25_000.0
    with pytest.raises(ValueError, match="light in the overscan"):
        mean_inefficiency([measure_deferred_charge(data, overscan)], saturation=60_000.0)


def test_deferred_charge_and_jumps_do_not_move_the_zero_level(rng):
    zero = 1_000.0 + 9.0 * (np.arange(NY) >= 120)
    _, overscan = flat(rng, 40_000, 2e-5, zero=zero)
    level = measure_overscan([OverscanStrip(overscan, 0)], n_rows=NY)
    assert [jump.row for jump in level.jumps] == pytest.approx([120], abs=1)
    assert np.abs(level.row_level - zero)[np.abs(np.arange(NY) - 120) > 2].max() < 1.5
    assert level.row_level[:115].mean() == pytest.approx(1_000.0, abs=0.15)


def test_pixels_behind_bright_ones_are_marked_as_far_as_they_suffer(rng):
    image = rng.normal(100.0, 5.0, (64, 200)).astype(np.float32)
    image[30, 150] = 60_000.0
    image[40, 5] = 60_000.0
    mask = np.zeros(image.shape, np.int32)
    n_marked = mark_deferred_charge_in_place(mask, image, 1e-5, noise=5.0)
    assert n_marked == np.count_nonzero(mask) == 3
    assert np.all(mask[30, 151:154] == int(MaskPlane.SUSPECT))
    assert mark_deferred_charge_in_place(np.zeros_like(mask), image, 1e-8, noise=5.0) == 0
