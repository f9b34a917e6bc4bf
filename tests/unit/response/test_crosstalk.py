"""Crosstalk between amplifiers, against the coefficients the exposures were made with."""

import numpy as np
import pytest

from gueststar.algorithms.response.crosstalk import combine_crosstalk, measure_crosstalk, subtract_crosstalk_in_place

TRUE = np.array([[0, 2e-4, 0], [1e-4, 0, 3e-4], [0, 0, 0]])
SIZE = 320


@pytest.fixture
def rng():
    return np.random.default_rng(2)


def starry(rng, n_stars=60):
    y, x = np.mgrid[:SIZE, :SIZE]
    light = 200.0 + 0.05 * x
    for x0, y0, flux in zip(*rng.uniform(0, SIZE, (2, n_stars)), 10 ** rng.uniform(3, 6.5, n_stars), strict=True):
        part = (slice(max(int(y0) - 30, 0), int(y0) + 31), slice(max(int(x0) - 30, 0), int(x0) + 31))
        light[part] += flux / (2 * np.pi) / (1.0 + ((x[part] - x0) ** 2 + (y[part] - y0) ** 2) / 4.0) ** 3
    return rng.poisson(np.minimum(light, 110_000.0)) / 2.0


def exposure(rng, coefficients=TRUE):
    signal = [starry(rng) for _ in range(3)]
    seen = [signal[t] + sum(coefficients[t, s] * signal[s] for s in range(3)) for t in range(3)]
    return [(image + rng.normal(0.0, 4.0, image.shape)).astype(np.float32) for image in seen]


def test_coefficients_come_back_with_honest_errors(rng):
    found = combine_crosstalk([measure_crosstalk(exposure(rng), saturation=[55_000.0] * 3) for _ in range(5)])
    off = ~np.eye(3, dtype=bool)
    is_known = (TRUE > 0) & off
    pull = (found.coefficient - TRUE)[is_known] / found.error[is_known]
    assert np.all(np.abs(pull) < 4.0)
    assert np.all(found.error[off] < 2e-5)


def test_what_is_insignificant_is_zero(rng):
    none = np.zeros((3, 3))
    found = combine_crosstalk([measure_crosstalk(exposure(rng, none), saturation=[55_000.0] * 3) for _ in range(4)])
    assert not found.coefficient.any()


def test_subtraction_leaves_nothing_of_it_whichever_way_amplifiers_are_read(rng):
    source = starry(rng).astype(np.float32)
    target = np.full((SIZE, SIZE), 100.0, np.float32)
    seen = target + np.float32(1e-3) * source[::-1, ::-1]
    subtract_crosstalk_in_place(seen, source, 1e-3, flip_x=True, flip_y=True)
    np.testing.assert_allclose(seen, target, atol=1e-3)


def test_a_coefficient_too_large_for_crosstalk_is_refused(rng):
    strong = np.zeros((3, 3))
    strong[0, 1] = 0.05
    measured = [measure_crosstalk(exposure(rng, strong), saturation=[55_000.0] * 3) for _ in range(3)]
    with pytest.raises(ValueError, match="exceeds"):
        combine_crosstalk(measured)
