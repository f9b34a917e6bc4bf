"""Medians by counting against numpy's by sorting."""

from __future__ import annotations

import numpy as np
import pytest

from gueststar.algorithms.stats.select import median_of


@pytest.mark.parametrize("n", [1, 2, 3, 10, 1001, 20_000])
@pytest.mark.parametrize("spread", [1e-20, 1.0, 1e9])
def test_the_median_is_numpys_for_values_of_either_sign(n: int, spread: float) -> None:
    values = (np.random.default_rng(n).normal(size=n) * spread).astype(np.float32)
    assert median_of(values) == pytest.approx(float(np.median(values)), rel=1e-6)


def test_values_that_are_alike_and_zeros_of_either_sign_are_no_trouble() -> None:
    assert median_of(np.full(7, -3.5, np.float32)) == -3.5
    assert median_of(np.array([0.0, -0.0, 5.0, -5.0], np.float32)) == 0.0
    assert median_of(np.array([np.inf, 1.0, -np.inf], np.float32)) == 1.0


def test_any_shape_and_stride_will_do() -> None:
    values = np.arange(60, dtype=np.float32).reshape(6, 10)[::2, ::3]
    assert median_of(values) == float(np.median(values))


def test_nothing_has_no_median() -> None:
    assert np.isnan(median_of(np.zeros(0, np.float32)))
