"""Non-linearity from flats of many exposure times, against the curve the counts were bent with."""

import numpy as np
import pytest

from gueststar.algorithms.response.linearity import (
    FlatLevels,
    correction_at,
    fit_linearity,
    linearise_in_place,
    table_of,
)
from gueststar.core.bits import MaskPlane

RATE, FULL = 2_000.0, 60_000.0


@pytest.fixture
def rng():
    return np.random.default_rng(8)


def ladder(rng, *, bend=0.02, lamp=3e-4, drift=0.0, shutter=0.0, is_mixed=True, n=12):
    seconds = np.repeat(np.geomspace(0.8, 26.0, n), 2)
    if is_mixed:
        seconds = seconds[np.repeat(2 * rng.permutation(n), 2) + np.tile([0, 1], n)]
    hours = np.cumsum(seconds + 12.0) / 3600.0
    light = RATE * (seconds + shutter) * (1.0 + drift * hours) * (1.0 + lamp * rng.normal(size=seconds.size))
    level = bent(light, bend)
    error = np.sqrt(light) / 300.0
    return FlatLevels(level + error * rng.normal(size=level.size), error, seconds, hours)


def bent(light, bend):
    return light * (1.0 - bend * light / FULL)


def straightness(found, bend):
    """Return by which fraction corrected counts depart from proportionality to light over most of the range."""
    light = np.linspace(0.02, 0.95, 100) * found.highest_level
    counts = bent(light, bend)
    ratio = (counts + correction_at(found, counts)) / light
    return np.ptp(ratio / np.median(ratio)) / 2


def test_bent_counts_become_proportional_to_light(rng):
    found = fit_linearity(ladder(rng), saturation=58_000.0)
    assert found.is_significant
    assert straightness(found, 0.02) < 1.5e-3
    assert found.lamp_scatter == pytest.approx(3e-4, rel=0.6)


def test_lamp_drift_and_late_shutter_are_not_taken_for_non_linearity(rng):
    found = fit_linearity(ladder(rng, drift=0.01, shutter=0.01), saturation=58_000.0)
    assert straightness(found, 0.02) < 2e-3
    assert found.lamp_drift_per_hour == pytest.approx(0.01, abs=0.005)


def test_a_linear_amplifier_is_left_alone(rng):
    found = fit_linearity(ladder(rng, bend=0.0), saturation=58_000.0)
    assert not found.is_significant
    assert table_of(found) is None


def test_few_exposure_times_or_faint_flats_give_no_curve_and_say_why(rng):
    flats = ladder(rng)
    few = FlatLevels(*(values[:4] for values in flats))
    with pytest.raises(ValueError, match="exposure times"):
        fit_linearity(few, saturation=58_000.0)
    with pytest.raises(ValueError, match="brightest flat reaches"):
        fit_linearity(flats, saturation=500_000.0)


def test_an_unsteady_lamp_is_refused_with_the_figure(rng):
    with pytest.raises(ValueError, match=r"known to .*%"):
        fit_linearity(ladder(rng, lamp=0.02), saturation=58_000.0)


def test_images_are_corrected_as_the_curve_says_and_marked_beyond_it(rng):
    found = fit_linearity(ladder(rng), saturation=58_000.0)
    table = table_of(found)
    counts = np.linspace(-50.0, 1.1 * found.highest_level, 4096, dtype=np.float32).reshape(64, 64)
    image, mask = counts.copy(), np.zeros(counts.shape, np.int32)
    linearise_in_place(image, table, mask)
    expected = counts + correction_at(found, counts.astype(float))
    is_high = counts > 500.0
    np.testing.assert_allclose(image[is_high], expected[is_high], rtol=2e-5)
    assert np.array_equal(image[counts <= 0], counts[counts <= 0])
    np.testing.assert_array_equal(mask != 0, counts > found.highest_level)
    assert set(np.unique(mask)) <= {0, int(MaskPlane.SUSPECT)}
