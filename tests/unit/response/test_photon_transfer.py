"""Gain, read noise and charge repulsion from pairs of flats, against the numbers the flats were made with."""

import numpy as np
import pytest

from gueststar.algorithms.response.flat_pair import measure_pair_covariance
from gueststar.algorithms.response.photon_transfer import fit_area_change, fit_photon_transfer, mean_area_change
from gueststar.simulation.charge import area_changes, collect_with_repulsion

GAIN, READ_NOISE = 1.7, 5.0


@pytest.fixture
def rng():
    return np.random.default_rng(4)


def flat(rng, electrons, *, size=300, repulsion=0.0, well=np.inf):
    light = np.full((size, size), electrons, np.float32)
    charge = collect_with_repulsion(light, repulsion, rng) if repulsion else rng.poisson(light)
    counts = (np.minimum(charge, well) + rng.normal(0.0, READ_NOISE, light.shape)) / GAIN
    return counts.astype(np.float32)


def pairs(rng, levels, *, ratio=1.03, max_lag=4, **options):
    return [
        measure_pair_covariance(flat(rng, level, **options), flat(rng, ratio * level, **options), max_lag=max_lag)
        for level in levels
    ]


def test_gain_and_read_noise_come_back_within_their_errors(rng):
    found = fit_photon_transfer(pairs(rng, np.geomspace(500, 60_000, 8)), read_noise=READ_NOISE / GAIN)
    assert found.gain == pytest.approx(GAIN, abs=4 * found.gain_error)
    assert found.gain_error < 0.01 * GAIN
    assert found.read_noise == pytest.approx(READ_NOISE, rel=0.15)
    assert abs(found.repulsion) < 4 * found.repulsion_error
    assert not found.is_full_well


def test_levels_of_a_pair_need_not_be_equal_and_neither_need_their_light_be_even(rng):
    slope = np.linspace(0.9, 1.1, 300, dtype=np.float32)[None, :]
    first, second = (rng.poisson(20_000 * f * slope * np.ones((300, 1))) / GAIN for f in (1.0, 1.08))
    tilted = (second * np.linspace(0.98, 1.02, 300)[:, None]).astype(np.float32)
    pair = measure_pair_covariance(first.astype(np.float32), tilted, max_lag=2)
    assert pair.covariance[0, 0] == pytest.approx(pair.level / GAIN, rel=0.03)
    assert np.all(np.abs(pair.covariance[1:, 1:]) < 5 * pair.error[1:, 1:])


def test_cosmic_rays_and_masked_pixels_do_not_raise_the_variance(rng):
    first, second = flat(rng, 10_000), flat(rng, 10_000)
    first[rng.integers(0, 300, 200), rng.integers(0, 300, 200)] += 3_000.0
    second[:, :50] *= 0.5
    is_masked = np.zeros(first.shape, bool)
    is_masked[:, :50] = True
    pair = measure_pair_covariance(first, second, is_masked=is_masked, max_lag=0)
    assert pair.covariance[0, 0] == pytest.approx(10_000 / GAIN**2, rel=0.03)


def test_repulsion_and_its_reach_are_those_the_charge_was_moved_with(rng):
    made = pairs(rng, np.linspace(8_000, 80_000, 6), repulsion=3e-6, size=400)
    curve = fit_photon_transfer(made, read_noise=READ_NOISE / GAIN)
    change = mean_area_change([fit_area_change(made, curve)])
    truth = area_changes(3e-6, 4)
    assert curve.gain == pytest.approx(GAIN, rel=0.01)
    assert curve.repulsion == pytest.approx(truth[0, 0], rel=0.1)
    pull = (change.coefficients - truth) / change.errors
    assert np.sqrt(np.mean(pull[change.errors > 0] ** 2)) < 2.0
    assert change.coefficients[0, 1] > change.coefficients[2, 2]


def test_flats_beyond_the_full_well_are_left_out_and_tell_it(rng):
    made = pairs(rng, [2_000, 5_000, 10_000, 20_000, 30_000, 40_000, 52_000, 60_000], well=50_000)
    found = fit_photon_transfer(made, read_noise=READ_NOISE / GAIN)
    assert found.is_full_well
    assert 39_000 < found.highest_level * GAIN < 52_000
    assert found.gain == pytest.approx(GAIN, rel=0.02)


def test_too_few_or_too_equal_levels_give_no_curve(rng):
    with pytest.raises(ValueError, match="5 pairs"):
        fit_photon_transfer(pairs(rng, [1_000, 20_000], max_lag=0), read_noise=3.0)
    with pytest.raises(ValueError, match="factor of 5"):
        fit_photon_transfer(pairs(rng, np.linspace(10_000, 20_000, 6), max_lag=0), read_noise=3.0)
