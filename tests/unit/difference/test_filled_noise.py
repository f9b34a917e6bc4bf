"""What pixels that are filled from their neighbours do to the noise of a score."""

from __future__ import annotations

import numpy as np
import pytest

from gueststar.algorithms.subtraction.normalise import (
    excess_where_filled,
    measure_score_noise,
    take_off_excess_in_place,
)
from gueststar.pipelines.difference.subtract import DifferenceConfig, MakeDifference

from .conftest import Sky, with_bad_columns

SMALL = DifferenceConfig(tile_size=160, score_box=75, background_box=150)
COLUMNS = np.arange(24, 310, 12)


def test_the_excess_of_a_score_with_lost_power_is_measured_and_taken_off() -> None:
    rng = np.random.default_rng(3)
    lost = np.zeros((300, 400), np.float32)
    lost[:, 50:150], lost[:, 200:260] = 0.2, 0.4
    noise = np.sqrt(1.0 + 0.7 * lost)
    score, variance = (
        (rng.normal(0.0, 1.0, lost.shape) * noise).astype(np.float32),
        np.full(lost.shape, 4.0, np.float32),
    )
    usable, calm = np.ones(lost.shape, bool), np.ones(lost.shape, np.float32)
    excess = excess_where_filled(score, lost, usable, inflation=calm)
    assert excess == pytest.approx(0.7, abs=0.1)
    take_off_excess_in_place(score, variance, lost, excess)
    assert np.std(score[:, 200:260]) == pytest.approx(1.0, abs=0.03)
    np.testing.assert_allclose(variance[0, [0, 100, 230]], 4.0 * (1.0 + excess * lost[0, [0, 100, 230]]), rtol=1e-5)


def test_too_few_pixels_tell_nothing_and_nothing_is_gained_by_defects() -> None:
    rng = np.random.default_rng(5)
    score, lost = rng.normal(0.0, 3.0, (60, 60)).astype(np.float32), np.zeros((60, 60), np.float32)
    lost[:5, :5] = 0.3
    usable, calm = np.ones(lost.shape, bool), np.ones(lost.shape, np.float32)
    assert excess_where_filled(score, lost, usable, inflation=calm) == 0.0
    lost[:] = 0.3
    assert excess_where_filled(0.1 * score, lost, usable, inflation=calm) == 0.0
    assert excess_where_filled(score, lost, usable, inflation=calm + 1.0) == 0.0, "all near sources"


def test_the_score_has_unit_variance_on_bad_columns(sky: Sky) -> None:
    science = with_bad_columns(sky.image(fwhm=3.4, seed=11, sky=500.0), COLUMNS)
    result = MakeDifference(SMALL).run(science, sky.image(fwhm=3.0, seed=12, sky=200.0))
    calm = (result.inflation < 1.05) & (result.score != 0.0)
    on, off = np.zeros(calm.shape, bool), np.ones(calm.shape, bool)
    on[:, COLUMNS] = True
    for shift in (-4, -3, -2, -1, 0, 1, 2, 3, 4):
        off[:, COLUMNS + shift] = False
    assert result.metrics["filled_excess"] > 0.2
    assert np.count_nonzero(on & calm) > 3000
    found = [measure_score_noise(result.score, part & calm, box=320).median for part in (on, off)]
    assert found[0] == pytest.approx(found[1], rel=0.06)
