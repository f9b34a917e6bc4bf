"""Saturated stars and bleed trails."""

import numpy as np
import pytest

from gueststar.algorithms.detrend.saturation import mark_bleeding_in_place
from gueststar.core.bits import MaskPlane

FULL = 60_000.0


def star(*, trail=0, trail_level=FULL):
    """A saturated Moffat star at (60, 50) on a sky of 100, bleeding along y."""
    y, x = np.mgrid[:121, :121]
    image = 100.0 + 3e6 * (1.0 + ((x - 50) ** 2 + (y - 60) ** 2) / 6.0) ** -2.5
    if trail:
        image[60 - trail : 61 + trail, 50] = np.maximum(image[60 - trail : 61 + trail, 50], trail_level)
    image = np.minimum(image, FULL).astype(np.float32)
    mask = np.where(image >= FULL, int(MaskPlane.SATURATED), 0).astype(np.int32)
    return image, mask


def mark(image, mask, **options):
    level, rms = np.full_like(image, 100.0), np.full_like(image, 10.0)
    return mark_bleeding_in_place(mask, image, level, rms, **options)


def is_set(mask, plane):
    return (mask & int(plane)) != 0


def test_round_saturated_star_does_not_bleed():
    image, mask = star()
    n = int(is_set(mask, MaskPlane.SATURATED).sum())
    assert mark(image, mask) == n
    assert not is_set(mask, MaskPlane.BLEED).any()
    assert is_set(mask, MaskPlane.SATURATED).sum() > n


@pytest.mark.parametrize("level", [FULL, 20_000.0])
def test_trail_is_marked_to_its_end_also_below_digital_saturation(level):
    image, mask = star(trail=40, trail_level=level)
    mark(image, mask)
    bled = is_set(mask, MaskPlane.BLEED)
    assert bled[20:45, 50].all()
    assert bled[76:101, 50].all()
    assert not bled[:18].any()
    assert not bled[103:].any()
    assert not bled[:, :44].any()


def test_trail_along_x_is_found_where_the_readout_runs_along_x():
    image, mask = star(trail=40)
    image, mask = np.ascontiguousarray(image.T), np.ascontiguousarray(mask.T)
    mark(image, mask, readout_axis="x")
    assert is_set(mask, MaskPlane.BLEED)[50, 20:45].all()


def test_diffraction_spikes_do_not_count_as_bleeding():
    image, mask = star()
    distance = np.abs(np.arange(121) - 60)
    image[:, 50] += 30_000.0 * np.exp(-distance / 15.0).astype(np.float32)
    image[60, :] += 30_000.0 * np.exp(-np.abs(np.arange(121) - 50) / 15.0).astype(np.float32)
    mask = np.where(image >= FULL, int(MaskPlane.SATURATED), 0).astype(np.int32)
    mark(np.minimum(image, FULL).astype(np.float32), mask)
    assert is_set(mask, MaskPlane.BLEED).sum() < 30


def test_nothing_saturated_leaves_the_mask_alone():
    image = np.full((20, 20), 100.0, np.float32)
    mask = np.zeros((20, 20), np.int32)
    assert mark(image, mask) == 0
    assert not mask.any()
