"""Where a reference is shallower than usual, its stars are trusted less, in the measure of what is missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gueststar.algorithms.subtraction.depth import MOST, shallowness, usual_noise
from gueststar.algorithms.subtraction.residuals import StarResiduals, fit_mismatch
from gueststar.core.bits import MaskPlane
from gueststar.model.catalog import Catalog
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.pipelines.difference.detect import DetectCandidates, DetectionContext
from gueststar.pipelines.difference.reference_warp import WarpReference
from gueststar.pipelines.difference.subtract import DifferenceConfig, MakeDifference

CONTEXT = DetectionContext(1, 0, 0, 60000.25, 60000.2502, 2, 1)
CONFIG = DifferenceConfig(tile_size=160, score_box=150, background_box=150, method="proper")


def test_stars_are_no_shallow_places_and_strips_of_few_epochs_are() -> None:
    rng = np.random.default_rng(3)
    light = np.zeros((200, 240), np.float32)
    light[rng.integers(0, 200, 4000), rng.integers(0, 240, 4000)] = rng.uniform(1e3, 1e5, 4000)
    epochs = np.full(light.shape, 20.0, np.float32)
    epochs[:40], epochs[:10] = 4.0, 1.0
    variance = (50.0 + light / 1.5) / epochs
    usual = usual_noise(light, variance, epochs == 20.0)
    assert usual == pytest.approx((50.0 / 20, 1 / 1.5 / 20), rel=1e-3)
    found = shallowness(light, variance, usual)
    np.testing.assert_allclose(found[:10], 19.0, rtol=1e-3)
    np.testing.assert_allclose(found[10:40], 4.0, rtol=1e-3)
    np.testing.assert_array_equal(found[40:], 1.0)
    assert shallowness(light, 1e6 * variance, usual).max() == MOST


def test_without_bright_pixels_or_without_any_the_noise_is_that_of_the_sky() -> None:
    image, variance = np.zeros((30, 40), np.float32), np.full((30, 40), 7.0, np.float32)
    assert usual_noise(image, variance, np.ones(image.shape, bool)) == (7.0, 0.0)
    assert usual_noise(image, variance, np.zeros(image.shape, bool)) == (7.0, 0.0)


def test_residual_power_is_told_for_each_part_of_depth_that_is_missing() -> None:
    rng = np.random.default_rng(5)
    profile = np.exp(-0.5 * np.arange(-8, 9) ** 2 / 1.5**2)
    star = 1e5 * np.outer(profile, profile)[None] * np.ones((200, 1, 1))
    share = rng.choice([1.0, 4.0, 16.0], 200)
    score = 0.01 * np.sqrt(share)[:, None, None] * star * rng.normal(size=star.shape)
    none, places = np.zeros_like(star), np.zeros(200)
    residuals = StarResiduals(score, star, none, none, np.full_like(star, 1.0), places, places)
    told = fit_mismatch(residuals, shift_x=0.0, shift_y=0.0, widths=(0.0, 2.0), share=share)
    assert sum(told.powers) == pytest.approx(1e-4, rel=0.25)
    untold = fit_mismatch(residuals, shift_x=0.0, shift_y=0.0, widths=(0.0, 2.0))
    assert sum(untold.powers) > 4e-4


def detect(science: CalibratedImage, warped: CalibratedImage) -> Catalog:
    result = MakeDifference(CONFIG).run(science, warped)
    return DetectCandidates().run(result, science, warped, context=CONTEXT).catalog


def test_stars_in_a_strip_of_very_few_epochs_are_no_detections_and_new_sources_there_are(sky) -> None:
    field = type(sky).random(900, half_size_deg=0.062, faintest=2e4, brightest=2e5, seed=4)
    added = ((200.2, 372.4, 2.5e4), (120.3, 342.1, 2.5e4))
    science = field.image(shape=(400, 420), fwhm=2.6, seed=5, added=added)
    common = {"shape": (500, 520), "sky": 20.0, "zero_point": 29.5, "offset": (3.2, -2.7), "seed": 77}
    many, some, few = (field.image(**common, fwhm=fwhm) for fwhm in (2.4, 2.37, 2.28))
    image, variance, mask = many.pixels.image.copy(), many.pixels.variance.copy(), many.pixels.mask.copy()
    for strip, other, times in ((np.s_[300:], some, 2.5), (np.s_[400:], few, 10.0)):
        image[strip], variance[strip] = other.pixels.image[strip], times * other.pixels.variance[strip]
        mask[strip] |= int(MaskPlane.SUSPECT)
    reference = replace(many, pixels=MaskedImage(image, variance, mask))
    found = detect(science, WarpReference().run(science, reference))
    for x, y, _ in added:
        assert np.hypot(found["x"] - x, found["y"] - y).min() < 1.0
    assert found.n_rows <= 6
