"""Robust location and scatter."""

import numpy as np
import pytest

from gueststar.algorithms.stats.robust import clipped_mean, median_and_sigma, weighted_clipped_mean


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20190326)


def test_sigma_of_white_noise_is_its_standard_deviation(rng):
    values = rng.normal(100.0, 7.0, 200_000)
    median, sigma = median_and_sigma(values)
    assert median == pytest.approx(100.0, abs=0.1)
    assert sigma == pytest.approx(7.0, rel=0.01)
    assert clipped_mean(values).sigma == pytest.approx(7.0, rel=0.01)


def test_clipped_mean_forgets_outliers_that_move_the_plain_mean(rng):
    values = rng.normal(50.0, 3.0, 10_000).astype(np.float32)
    values[::50] = 1e4
    result = clipped_mean(values)
    assert result.mean == pytest.approx(50.0, abs=0.15)
    assert result.sigma == pytest.approx(3.0, rel=0.03)
    assert result.n <= 10_000 - 200


def test_no_finite_value_gives_nan_and_none_kept():
    assert np.isnan(median_and_sigma([np.nan, np.inf])).all()
    result = clipped_mean([])
    assert np.isnan(result.mean)
    assert result.n == 0
    assert weighted_clipped_mean([1.0], [0.0]).n == 0


def test_equal_values_are_their_own_mean():
    result = clipped_mean(np.full(11, 4.0))
    assert result == (4.0, 0.0, 11)


def test_coarse_digits_with_zero_mad_still_average(rng):
    values = (rng.random(1000) < 0.2).astype(float)
    assert clipped_mean(values, n_sigma=5).mean == pytest.approx(values.mean())


def test_weighted_mean_has_the_error_its_variances_imply(rng):
    trials = []
    variances = rng.uniform(1.0, 100.0, 50)
    for _ in range(400):
        values = 10.0 + rng.normal(size=50) * np.sqrt(variances)
        values[3] = 1e5
        trials.append(weighted_clipped_mean(values, variances))
    pulls = [(t.mean - 10.0) / t.error for t in trials]
    assert np.mean(pulls) == pytest.approx(0.0, abs=0.2)
    assert np.std(pulls) == pytest.approx(1.0, abs=0.12)
    assert np.median([t.chi2_per_dof for t in trials]) == pytest.approx(1.0, abs=0.15)


def test_underestimated_errors_do_not_empty_the_sample(rng):
    values = rng.normal(0.0, 10.0, 1000)
    result = weighted_clipped_mean(values, np.ones(1000))
    assert result.n > 950
    assert result.chi2_per_dof == pytest.approx(100.0, rel=0.15)
