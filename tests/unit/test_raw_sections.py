import numpy as np
import pytest

from gueststar.algorithms.stats.raw_sections import (
    excess_of_lines,
    measure_section,
    photon_transfer_gain,
    unexposed_edges,
)


def test_level_and_noise_of_a_section_are_those_of_its_distribution() -> None:
    rng = np.random.default_rng(1)
    pixels = rng.normal(1000.0, 4.0, (200, 300)).astype(np.float32)
    pixels[10, :20], pixels[3, 3] = 30000.0, np.nan
    found = measure_section(pixels)
    assert found.level == pytest.approx(1000.0, abs=0.05)
    assert found.noise == pytest.approx(4.0, rel=0.01)
    assert (found.highest, found.n_at_highest) == (30000.0, 20)


@pytest.mark.parametrize("gain", [0.8, 3.7, 40.0])
def test_photon_transfer_finds_the_gain_under_gradients_and_lamp_drift(gain: float) -> None:
    rng = np.random.default_rng(2)
    light = 20000.0 * gain * (1.0 + 0.3 * np.linspace(-1, 1, 320)[None, :] * np.ones((256, 1)))
    frames = [
        (rng.poisson(light * drift) / gain + rng.normal(0, 3.0, light.shape)).astype(np.float32) for drift in (1.0, 0.8)
    ]
    assert photon_transfer_gain(frames[0], frames[1], noise=3.0) == pytest.approx(gain, rel=0.02)


def test_photon_transfer_of_dark_frames_is_not_a_number() -> None:
    dark = np.random.default_rng(3).normal(0, 3, (128, 128)).astype(np.float32)
    assert np.isnan(photon_transfer_gain(dark, dark[::-1], noise=3.0))


def test_light_in_an_overscan_stands_out_line_by_line() -> None:
    overscan = np.random.default_rng(4).normal(500.0, 3.0, (400, 20)).astype(np.float32)
    assert not excess_of_lines(overscan).any()
    overscan[:, :2] += 50.0
    np.testing.assert_allclose(excess_of_lines(overscan)[:2], 50.0, atol=1.0)
    assert not excess_of_lines(overscan)[2:].any()
    assert np.count_nonzero(excess_of_lines(overscan.T)) == 2


def test_edges_without_light_are_counted_on_their_side() -> None:
    lit = np.full((100, 120), 1000.0, np.float32)
    assert unexposed_edges(lit) == {}
    lit[:, :3], lit[-2:] = 2.0, -5.0
    assert unexposed_edges(lit) == {"left": 3, "top": 2}
