"""Saturated stars, defects, edges and poor parts of a reference make no detections, and hide none that need not be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from gueststar.algorithms.subtraction.match import PolynomialField
from gueststar.algorithms.subtraction.normalise import measure_score_noise
from gueststar.algorithms.subtraction.prepare import lost_power, prepare_pair
from gueststar.algorithms.subtraction.surroundings import (
    is_at_edge,
    is_cut_off,
    is_small_part,
    measure_ray_level,
)
from gueststar.core.bits import MaskPlane
from gueststar.model.catalog import Catalog
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.pipelines.difference.detect import DetectCandidates, DetectionContext
from gueststar.pipelines.difference.reference_warp import WarpReference
from gueststar.pipelines.difference.subtract import DifferenceConfig, MakeDifference

CONTEXT = DetectionContext(1, 0, 0, 60000.25, 60000.2502, 2, 1)
SMALL = DifferenceConfig(tile_size=160, score_box=150, background_box=150)
REFERENCE = {"shape": (380, 400), "sky": 60.0, "fwhm": 2.4, "zero_point": 29.5, "offset": (3.2, -2.7), "seed": 77}
SIDE = 200


def white_score(seed: int = 1) -> np.ndarray:
    score = gaussian_filter(np.random.default_rng(seed).normal(size=(SIDE, SIDE)), 1.2)
    return (score / score.std()).astype(np.float32)


def level_at(score: np.ndarray, star: tuple[float, float], *, x: int, y: int) -> float:
    return float(
        measure_ray_level(
            score, x=np.array([x]), y=np.array([y]), star_x=np.array([star[0]]), star_y=np.array([star[1]]),
            inner=3.0, outer=10.0, reach=150.0,
        )[0]
    )  # fmt: skip


def detect(science: CalibratedImage, warped: CalibratedImage, config: DifferenceConfig = SMALL) -> Catalog:
    result = MakeDifference(config).run(science, warped)
    return DetectCandidates().run(result, science, warped, context=CONTEXT).catalog


def marked(image: CalibratedImage, where: tuple, plane: MaskPlane, value: float | None = None) -> CalibratedImage:
    pixels, mask = image.pixels.image.copy(), image.pixels.mask.copy()
    mask[where] |= int(plane)
    if value is not None:
        pixels[where] = value
    return replace(image, pixels=MaskedImage(pixels, image.pixels.variance, mask))


def test_what_lies_along_a_ray_from_a_bright_star_is_told_and_a_point_or_another_line_is_not() -> None:
    star = (20.0, 20.0)
    ray = white_score()
    k = np.arange(30, 190)
    for offset in (-1, 0, 1):
        ray[k + offset, k] += 5.0
    assert level_at(ray, star, x=100, y=100) == pytest.approx(5.0, abs=1.2)
    assert level_at(-ray, star, x=100, y=100) == pytest.approx(5.0, abs=1.2)
    assert level_at(ray, (20.0, 60.0), x=100, y=100) == 0.0
    level = []
    yy, xx = np.mgrid[:SIDE, :SIDE] - 100
    source = 30.0 * np.exp(-0.25 * (xx**2 + yy**2) / 1.2**2).astype(np.float32)
    for seed in range(60):
        level.append(level_at(white_score(seed) + source, star, x=100, y=100))
    assert np.mean(np.array(level) > 0) < 0.05


def test_near_a_bright_star_a_lower_level_along_the_ray_tells_as_much_as_far_from_it() -> None:
    shares = []
    for x, height in ((42, 1.6), (140, 1.6), (42, 0.0)):
        level = []
        for seed in range(150):
            ray = white_score(seed)
            ray[99:102, 21:] += height
            level.append(level_at(ray, (20.0, 100.0), x=x, y=100))
        shares.append(np.mean(np.array(level) > 0))
    near, far, by_chance = shares
    assert near > far + 0.2
    assert by_chance < 0.15


def test_places_where_the_score_ends_towards_an_edge_are_told() -> None:
    score = white_score()
    score[:, :3], score[:2] = 0.0, 0.0
    score[60:, 150:] = 0.0  # a corner that the reference does not cover
    score[90:110, 80] = 0.0  # a bad column
    x, y = np.array([3, 4, 50, 50, 149, 148, 79, 81, SIDE - 1]), np.array([50, 50, 2, 3, 80, 80, 100, 100, 30])
    expected = [True, False, True, False, True, False, False, False, True]
    assert is_at_edge(score, x=x, y=y).tolist() == expected
    assert is_at_edge(score, x=x[:0], y=y[:0]).tolist() == []


def test_peaks_beside_unusable_pixels_and_at_the_edge_are_cut_off() -> None:
    score = white_score()
    score[50, 60] = 0.0
    found = is_cut_off(score, x=np.array([61, 62, 0, 100]), y=np.array([51, 50, 30, 100]))
    assert found.tolist() == [True, False, True, False]


def test_lost_power_is_the_part_of_the_squared_profile_that_cannot_be_seen() -> None:
    profile = np.exp(-0.5 * np.arange(-6, 7) ** 2 / 0.9**2)
    psf = np.outer(profile, profile).astype(np.float32)
    bad = np.zeros((40, 50), bool)
    assert lost_power(bad, psf).max() == 0.0
    bad[:, 20] = True
    expected = profile[6] ** 2 / (profile[3:10] ** 2).sum()
    np.testing.assert_allclose(lost_power(bad, psf)[10:30, 20], expected, rtol=1e-4)
    assert lost_power(np.ones((40, 50), bool), psf)[20, 20] == pytest.approx(1.0, rel=1e-5)


def test_a_defect_in_the_core_of_a_new_source_does_not_hide_it(sky) -> None:
    science = sky.image(fwhm=2.4, seed=4, added=((150.2, 120.3, 2e4),))
    broken = marked(science, np.s_[120, 151], MaskPlane.BAD, value=3e4)
    catalog = detect(broken, WarpReference().run(broken, sky.image(**REFERENCE)))
    near = np.hypot(catalog["x"] - 150.2, catalog["y"] - 120.3) < 4
    assert near.sum() == 1
    unit = science.photocal.njy_per_unit
    flux = catalog["psf_flux"][near][0] / unit
    assert flux == pytest.approx(2e4, abs=float(4 * catalog["psf_flux_err"][near][0] / unit))
    assert catalog.n_rows <= 3


@pytest.mark.parametrize(("fwhm", "most"), [(1.9, 5), (2.4, 0), (2.9, 1)])
def test_defects_in_the_cores_of_static_stars_make_few_detections(fwhm: float, most: int, sky) -> None:
    science, reference = sky.image(fwhm=fwhm, seed=4, added=((150.2, 120.3, 2e4),)), sky.image(**REFERENCE)
    x, y = (np.rint(a).astype(int) for a in science.wcs.sky_to_pixel(ra=sky.ra, dec=sky.dec))
    inside = (x > 12) & (y > 12) & (x < 307) & (y < 287) & (np.hypot(x - 150, y - 120) > 15)
    assert inside.sum() > 40
    whole = detect(science, WarpReference().run(science, reference))
    broken = marked(science, (y[inside], x[inside]), MaskPlane.BAD, value=-3e3)
    catalog = detect(broken, WarpReference().run(broken, reference))
    assert np.hypot(catalog["x"] - 150.2, catalog["y"] - 120.3).min() < 1.0
    assert catalog.n_rows <= whole.n_rows + most  # of 50 stars, up to 1000 sigma


@pytest.mark.parametrize("fwhm", [1.9, 2.9])
def test_the_variance_of_filled_pixels_holds_what_interpolation_makes_wrong_of_stars(fwhm: float, sky) -> None:
    science = sky.image(fwhm=fwhm, seed=4)
    warped = WarpReference().run(science, sky.image(**REFERENCE))
    images = science.pixels.image, warped.pixels.image, science.pixels.variance, warped.pixels.variance
    x, y = (np.rint(a).astype(int) for a in science.wcs.sky_to_pixel(ra=sky.ra, dec=sky.dec))
    inside = (x > 12) & (y > 12) & (x < 307) & (y < 287) & (sky.flux > 2e4)
    bad, good = np.zeros(science.shape, bool), np.zeros(science.shape, bool)
    for k in range(-8, 9):  # pieces of bad columns, one pixel beside the stars' middles
        bad[y[inside] + k, x[inside] + 1] = True
    pair, _ = prepare_pair(
        *images, bad_science=bad, bad_reference=good,
        flux_ratio=PolynomialField(np.zeros(1), 0, science.shape, 0.0, 1), background_box=0,
    )  # fmt: skip
    error = (pair.science - science.pixels.image)[bad]
    in_stars = science.pixels.image[bad] > 3000
    pull = error / np.sqrt(pair.science_variance[bad])
    assert np.abs(error[in_stars]).max() > 5e3
    assert 0.1 < np.sqrt(np.mean(pull[in_stars] ** 2)) < 1.0
    assert np.abs(pull[in_stars]).max() < 3.0
    on_sky = science.pixels.variance[bad] < 405.0
    usual = np.median(science.pixels.variance)
    assert np.median(pair.science_variance[bad][on_sky]) == pytest.approx(usual, rel=0.05)


def test_a_change_is_small_or_not_beside_the_light_that_was_there() -> None:
    light, change = np.full((20, 30), 8.0, np.float32), np.zeros((20, 30), np.float32)
    change[5, 5], change[5, 15], change[0, 29] = 30.0, -40.0, -40.0
    light[12:] = -1.0  # noise about no light at all
    x, y = np.array([5, 15, 29, 20]), np.array([5, 6, 0, 15])
    assert is_small_part(change, light, x=x, y=y, part=0.5).tolist() == [True, False, False, False]


def test_new_sources_at_the_edge_are_detected_and_stars_there_are_not(sky) -> None:
    ny, nx = 300, 320
    new = tuple((x, y, 4e4) for y in (2.0, 1.2, ny - 2.6) for x in (50.3, 150.7, 250.1))
    at_edge = [(x, y) for y in (2.1, ny - 2.2) for x in range(20, nx, 30) if min(abs(x - p[0]) for p in new) > 14]
    plain = sky.image(fwhm=2.3, seed=4)
    ra, dec = plain.wcs.pixel_to_sky(x=np.array([p[0] for p in at_edge]), y=np.array([p[1] for p in at_edge]))
    more = replace(
        sky, ra=np.append(sky.ra, ra), dec=np.append(sky.dec, dec), flux=np.append(sky.flux, np.full(len(at_edge), 3e5))
    )
    science = more.image(fwhm=2.3, seed=4, added=new)
    catalog = detect(science, WarpReference().run(science, more.image(**(REFERENCE | {"fwhm": 2.9}))))
    for x, y, _ in new:
        assert np.hypot(catalog["x"] - x, catalog["y"] - y).min() < 2.0
    assert catalog.n_rows <= len(new) + 2


def test_stars_that_the_edge_cuts_leave_no_detections(sky) -> None:
    ny, nx = 300, 320
    at_edge = [(x, y) for y in (-1.0, 0.4, 2.3, ny - 1.2) for x in range(20, nx, 60)]
    science = sky.image(fwhm=2.3, seed=4)
    ra, dec = science.wcs.pixel_to_sky(x=np.array([p[0] for p in at_edge]), y=np.array([p[1] for p in at_edge]))
    more = replace(
        sky, ra=np.append(sky.ra, ra), dec=np.append(sky.dec, dec), flux=np.append(sky.flux, np.full(len(at_edge), 2e5))
    )
    science = more.image(fwhm=2.3, seed=4)
    catalog = detect(science, WarpReference().run(science, more.image(**(REFERENCE | {"fwhm": 2.9}))))
    assert catalog.n_rows <= 2


def test_where_the_reference_has_few_epochs_its_stars_are_judged_by_each_other(sky) -> None:
    size = {"shape": (400, 420)}
    field = type(sky).random(450, half_size_deg=0.062, faintest=2e4, brightest=2e5, seed=4)
    science = field.image(**size, fwhm=2.6, seed=5, added=((393.3, 150.2, 2.5e4),))
    common = {"shape": (500, 520), "sky": 60.0, "zero_point": 29.5, "offset": (3.2, -2.7), "seed": 77}
    good, poor = (field.image(**common, fwhm=fwhm) for fwhm in (2.4, 2.0))
    image, strip = good.pixels.image.copy(), np.s_[:, 400:]
    image[strip] = poor.pixels.image[strip]  # sharper than the PSF model says
    reference = replace(good, pixels=MaskedImage(image, good.pixels.variance, good.pixels.mask))
    config = replace(SMALL, method="proper")
    plain = detect(science, WarpReference().run(science, reference), config)
    told = marked(reference, strip, MaskPlane.SUSPECT)
    judged = detect(science, WarpReference().run(science, told), config)
    assert plain.n_rows > 15
    assert judged.n_rows < 0.35 * plain.n_rows
    assert np.hypot(judged["x"] - 393.3, judged["y"] - 150.2).min() < 1.0


def test_the_scores_noise_is_that_away_from_sources_in_a_crowded_field_too() -> None:
    score, inflation = white_score(), np.ones((SIDE, SIDE), np.float32)
    crowded = np.random.default_rng(2).random((SIDE, SIDE)) < 0.6
    score[crowded] *= 0.5
    inflation[crowded] = 2.0
    usable = np.ones((SIDE, SIDE), bool)
    found = measure_score_noise(score, usable, box=SIDE, inflation=inflation)
    assert found.median == pytest.approx(1.0, abs=0.04)
    assert measure_score_noise(score, usable, box=SIDE).median < 0.8
