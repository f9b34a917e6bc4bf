"""Previews show what is there, where it is, and cost nothing that matters."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.image import imread

from gueststar.formats.preview import block_means, png_of


def shown(plane, **how):
    return imread(io.BytesIO(png_of(plane, **how)))[..., :3]


def test_blocks_keep_the_mean_and_leave_out_what_is_not_known():
    pixels = np.arange(7 * 9, dtype=np.float32).reshape(7, 9)
    pixels[0, 0] = np.nan
    pixels[2:4, 2:4] = np.nan
    means = block_means(pixels, 2)
    assert means.shape == (3, 4)
    assert means[0, 0] == np.mean([1, 9, 10], dtype=np.float32)
    assert np.isnan(means[1, 1])
    assert means[2, 3] == pixels[4:6, 6:8].mean()


def test_an_image_smaller_than_a_block_is_one_block():
    assert block_means(np.ones((3, 5), np.float32), 10).shape == (1, 1)


def test_a_star_is_bright_where_it_is_and_north_is_not_turned_down():
    rng = np.random.default_rng(1)
    plane = rng.normal(0.0, 1.0, (60, 80)).astype(np.float32)
    plane[50, 10] = 500.0
    picture = shown(plane)[..., 0]
    y, x = np.unravel_index(np.argmax(picture), picture.shape)
    assert (59 - y, x) == (50, 10)


def test_a_difference_is_grey_where_nothing_changed_and_shows_both_signs():
    rng = np.random.default_rng(1)
    plane = rng.normal(0.0, 1.0, (60, 80)).astype(np.float32)
    plane[10, 10], plane[20, 20], plane[30, 30] = 100.0, -100.0, np.nan
    picture = shown(plane, is_difference=True)
    assert abs(np.median(picture) - 0.5) < 0.02
    assert picture[49, 10, 0] > 0.9
    assert picture[39, 20, 0] < 0.1
    red, green, blue = picture[29, 30]
    assert red > 2 * max(green, blue)


def test_an_empty_image_is_a_picture_too():
    assert shown(np.full((4, 4), np.nan, np.float32)).shape == (4, 4, 3)
