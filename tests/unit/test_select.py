"""Medians by counting against numpy's by sorting."""

from __future__ import annotations

import numpy as np
import pytest

from gueststar.algorithms.stats.select import median_of, median_of_few_in_place, quantile_of


@pytest.mark.parametrize("n", [1, 2, 3, 10, 1001, 20_000])
@pytest.mark.parametrize("spread", [1e-20, 1.0, 1e9])
def test_the_median_is_numpys_for_values_of_either_sign(n: int, spread: float) -> None:
    values = (np.random.default_rng(n).normal(size=n) * spread).astype(np.float32)
    assert median_of(values) == pytest.approx(float(np.median(values)), rel=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 1001, 20_000])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_quantiles_are_numpys_also_where_many_values_are_alike(n: int, share: float) -> None:
    values = np.random.default_rng(n).normal(size=n).astype(np.float32)
    for some in (values, np.round(values), np.zeros_like(values)):
        assert quantile_of(some, share) == pytest.approx(float(np.quantile(some, share)), rel=1e-6, abs=1e-7)
        assert median_of(some) == float(np.median(some))


def test_values_that_are_alike_and_zeros_of_either_sign_are_no_trouble() -> None:
    assert median_of(np.full(7, -3.5, np.float32)) == -3.5
    assert median_of(np.array([0.0, -0.0, 5.0, -5.0], np.float32)) == 0.0
    assert median_of(np.array([np.inf, 1.0, -np.inf], np.float32)) == 1.0


def test_any_shape_and_stride_will_do() -> None:
    values = np.arange(60, dtype=np.float32).reshape(6, 10)[::2, ::3]
    assert median_of(values) == float(np.median(values))


def test_nothing_has_no_median() -> None:
    assert np.isnan(median_of(np.zeros(0, np.float32)))


@pytest.mark.parametrize("n", [1, 2, 3, 8, 25])
def test_the_median_of_a_few_values_is_numpys_and_they_are_left_in_order(n: int) -> None:
    random = np.random.default_rng(n)
    for values in (random.normal(size=n), random.integers(0, 4, n).astype(np.float64), np.zeros(n)):
        given = values.copy()
        assert median_of_few_in_place(given) == float(np.median(values))
        assert np.array_equal(given, np.sort(values))
