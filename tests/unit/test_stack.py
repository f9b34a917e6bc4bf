"""Stacks of frames in bounded memory."""

import numpy as np
import pytest

from gueststar.algorithms.stats.stack import FrameNoise, row_bands, stack_frames, stack_values


def test_variance_of_the_mean_of_white_noise_is_right():
    rng = np.random.default_rng(1)
    frames = rng.normal(100.0, 5.0, (8, 120, 90)).astype(np.float32)
    stack = stack_values(frames, noise=[FrameNoise(25.0)] * 8)
    assert stack.mean.mean() == pytest.approx(100.0, abs=0.1)
    assert stack.mean.std() == pytest.approx(np.sqrt(stack.variance.mean()), rel=0.03)
    assert stack.n_rejected.mean() < 0.01


def test_bands_give_what_one_piece_gives_and_keep_to_the_memory():
    rng = np.random.default_rng(2)
    frames = rng.poisson(200.0, (5, 64, 50)).astype(np.float32)
    held = []

    def read_band(number, rows):
        held.append((rows.stop - rows.start) * 50 * 5 * 4)
        return frames[number][rows]

    noise = [FrameNoise(0.0, 1.0)] * 5
    banded = stack_frames(read_band, shape=(64, 50), noise=noise, memory_mb=0.01)
    whole = stack_values(frames, noise=noise)
    assert max(held) <= 0.01 * 2**20
    for a, b in zip(banded, whole, strict=True):
        np.testing.assert_array_equal(a, b)


def test_cosmic_ray_in_one_frame_leaves_no_trace():
    rng = np.random.default_rng(3)
    frames = rng.normal(0.0, 2.0, (5, 20, 20)).astype(np.float32)
    frames[2, 7, 9] += 5000.0
    stack = stack_values(frames, noise=[FrameNoise(4.0)] * 5)
    assert abs(stack.mean[7, 9]) < 4.0
    assert stack.n_rejected[7, 9] == 1
    assert stack.n_used[7, 9] == 4


def test_bright_pixels_are_not_clipped_for_being_bright():
    rng = np.random.default_rng(4)
    frames = rng.poisson(90_000.0, (10, 60, 60)).astype(np.float32)
    stack = stack_values(frames, noise=[FrameNoise(25.0, 1.0)] * 10)
    assert stack.n_rejected.mean() < 0.01
    assert stack.mean.mean() == pytest.approx(90_000.0, abs=5.0)


def test_deep_frames_weigh_more_than_shallow_ones():
    rng = np.random.default_rng(5)
    sigmas = np.array([1.0, 10.0, 10.0])
    frames = (rng.normal(size=(3, 100, 100)) * sigmas[:, None, None]).astype(np.float32)
    stack = stack_values(frames, noise=[FrameNoise(s**2) for s in sigmas])
    assert stack.mean.std() == pytest.approx(np.sqrt(1.0 / np.sum(sigmas**-2.0)), rel=0.05)


def test_missing_values_are_missing_and_nowhere_is_marked():
    frames = np.full((3, 4, 4), 7.0, np.float32)
    frames[:, 1, 1] = np.nan
    frames[0, 2, 2] = np.nan
    stack = stack_values(frames, noise=[FrameNoise(1.0)] * 3)
    assert stack.n_used[1, 1] == 0
    assert stack.variance[1, 1] == 0.0
    assert stack.n_used[2, 2] == 2
    assert stack.mean[2, 2] == 7.0


def test_rows_are_divided_without_gap():
    bands = row_bands((100, 1000), n_frames=20, memory_mb=1.0)
    assert [b.start for b in bands[1:]] == [b.stop for b in bands[:-1]]
    assert bands[-1].stop == 100


def test_no_frames_is_an_error():
    with pytest.raises(ValueError, match="no frame"):
        stack_frames(lambda i, rows: np.zeros((1, 1), np.float32), shape=(1, 1), noise=[])
