"""Fringes: patterns from many pointings, amplitudes in one image."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from gueststar.algorithms.illumination.fringe_fit import FringeFitConfig, fit_fringes
from gueststar.algorithms.illumination.fringe_patterns import FringePatternConfig, find_fringe_patterns, shift_patterns
from gueststar.core.bits import MaskPlane
from gueststar.core.errors import DataError
from gueststar.formats.calibration_master import read_calibration_master, write_calibration_master
from gueststar.model.calibration import CalibrationMaster, Calibrations
from gueststar.model.camera import Amplifier, Detector
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import MaskedImage
from gueststar.model.raw import AmplifierPixels, RawDetector
from gueststar.model.rights import Program
from gueststar.pipelines.calibration.fringe import (
    FringeImage,
    MakeFringe,
    MakeFringeConfig,
    of_different_pointings,
    patterns_of,
)
from gueststar.pipelines.calibration.not_shown import NotShown
from gueststar.pipelines.science.detrend import Detrend

SIDE = 320
Y, X = np.mgrid[:SIDE, :SIDE].astype(np.float64)
FIRST = np.sin(2 * np.pi * (np.hypot(X - 60, Y + 200) / 27 + 0.3 * np.sin(X / 60)))
SECOND = np.sin(2 * np.pi * (np.hypot(X - 400, Y - 200) / 41 + 0.3 * np.sin(Y / 60)))


class Sky(NamedTuple):
    image: NDArray[np.float32]
    """Less its level."""
    mask: NDArray[np.bool_]
    level: float
    fringes: NDArray[np.float64]


def sky(random: np.random.Generator, *, first: float, second: float, level: float, n_stars: int = 40) -> Sky:
    fringes = level * (first * FIRST + second * SECOND)
    light = level * (1.0 + 0.04 * X / SIDE) + fringes
    stars = np.zeros_like(light)
    for _ in range(n_stars):
        x, y, flux = random.uniform(0, SIDE), random.uniform(0, SIDE), 10 ** random.uniform(2.5, 5.0)
        stars += flux / (2 * np.pi * 1.5**2) * np.exp(-((X - x) ** 2 + (Y - y) ** 2) / 4.5)
    image = random.poisson(light + stars).astype(np.float32)
    mask = ndimage.binary_dilation(stars > 2.0 * np.sqrt(level), iterations=2)
    return Sky(image - np.float32(level), mask, level, fringes)


def night(n: int, *, first: float, second: float, seed: int = 1) -> list[Sky]:
    random = np.random.default_rng(seed)
    return [
        sky(random, first=first * random.uniform(0.6, 1.4), second=second * random.uniform(-1.0, 1.0),
            level=random.uniform(800, 2000))
        for _ in range(n)
    ]  # fmt: skip


def found_in(images: list[Sky], **options: object):  # type: ignore[no-untyped-def]
    masked = [np.where(s.mask, np.float32(np.nan), s.image) for s in images]
    return find_fringe_patterns(masked, [s.level for s in images], config=FringePatternConfig(**options))  # type: ignore[arg-type]


def test_two_groups_of_lines_give_two_patterns_and_their_fit_takes_the_fringes_out_of_another_image() -> None:
    found = found_in(night(12, first=0.012, second=0.012))
    assert len(found.patterns) == 2
    other = sky(np.random.default_rng(9), first=0.02, second=-0.008, level=1500.0)
    fit = fit_fringes(other.image, np.zeros_like(other.mask), found.patterns)
    left = other.fringes - np.tensordot(fit.amplitudes, found.patterns, axes=1)
    assert fit.significance > 50
    inside = (slice(60, -60), slice(60, -60))  # what the window takes for sky is a part of the pattern at the rim
    assert np.std(left[inside]) < 0.33 * np.std(other.fringes[inside])
    true, taken = other.fringes[inside], (other.fringes - left)[inside]
    # A pattern that is itself noisy is fitted a little too low: that leaves least behind.
    assert 0.92 < np.sum(true * taken) / np.sum(true**2) < 1.02


def test_images_without_fringes_share_no_pattern() -> None:
    for seed in (1, 2, 3):
        found = found_in(night(6, first=0.0, second=0.0, seed=seed))
        assert len(found.patterns) == 0
        assert found.significances[0] < 5.0


def test_fringes_that_are_not_there_are_not_significant_and_the_error_is_honest() -> None:
    pattern = FIRST[None].astype(np.float32) * np.float32(0.01)
    pulls = []
    for seed in range(20):
        blank = sky(np.random.default_rng(seed), first=0.0, second=0.0, level=1000.0)
        fit = fit_fringes(blank.image, blank.mask, pattern)
        pulls.append(float(fit.amplitudes[0] / fit.errors[0]))
    assert 0.6 < np.std(pulls) < 1.5
    assert abs(np.mean(pulls)) < 0.8


def test_the_amplitude_does_not_change_with_level_and_slope_of_the_sky() -> None:
    pattern = FIRST[None].astype(np.float32) * np.float32(0.01)
    image = sky(np.random.default_rng(4), first=0.02, second=0.0, level=1000.0, n_stars=0).image
    nothing = np.zeros(image.shape, dtype=bool)
    plain = fit_fringes(image, nothing, pattern).amplitudes[0]
    tilted = fit_fringes(image + np.float32(500.0) + (0.2 * X + 0.1 * Y).astype(np.float32), nothing, pattern)
    assert tilted.amplitudes[0] == pytest.approx(plain, rel=0.01)
    assert plain == pytest.approx(2000.0, rel=0.03)


def test_an_image_without_free_pixels_tells_nothing() -> None:
    image = np.zeros((SIDE, SIDE), np.float32)
    fit = fit_fringes(image, np.ones(image.shape, dtype=bool), FIRST[None].astype(np.float32))
    assert fit.significance == 0.0
    assert fit.amplitudes.tolist() == [0.0]


def test_fewer_than_three_images_cannot_tell_fringes_from_sky() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        found_in(night(2, first=0.01, second=0.0))


def test_shift_patterns_foretell_what_a_small_shift_of_the_light_does() -> None:
    flat = (1.0 + 0.2 * FIRST).astype(np.float32)
    moved = ndimage.shift(flat, (0.1, -0.2), order=5, mode="nearest")
    dy, dx = shift_patterns(flat, sigma=0.7)
    change, foretold = moved / flat - 1.0, -0.1 * dy + 0.2 * dx
    inside = (slice(10, -10), slice(10, -10))
    assert np.std(change[inside] - foretold[inside]) < 0.15 * np.std(change[inside])


AMPLIFIER = Amplifier(
    name="a", data_section=f"[1:{SIDE},1:{SIDE}]", detector_section=f"[1:{SIDE},1:{SIDE}]", gain=1.0, read_noise=3.0,
    saturation=60000.0,
)  # fmt: skip
DETECTOR = Detector(id=3, name="d", shape=(SIDE, SIDE), amplifiers=(AMPLIFIER,))


def info(number: int = 0, **changes: object) -> ExposureInfo:
    facts = {
        "camera": "c", "observation_type": "science", "mjd_start": 60000.0 + 0.01 * number, "exposure_s": 60.0,
        "day_obs": 20230225, "program": Program.PUBLIC, "physical_filter": "z", "band": "z", "ra": 10.0 + 0.02 * number,
        "dec": 5.0,
    }  # fmt: skip
    return ExposureInfo(**(facts | changes))  # type: ignore[arg-type]


def fringe_images(images: list[Sky]) -> list[FringeImage]:
    made = []
    for number, item in enumerate(images):
        mask = np.where(item.mask, int(MaskPlane.DETECTED), 0).astype(np.int32)
        made.append(FringeImage.of(info(number), MaskedImage(item.image, np.ones_like(item.image), mask), item.level))
    return made


def product(**options: object) -> CalibrationMaster:
    return MakeFringe(MakeFringeConfig()).run(fringe_images(night(10, first=0.012, second=0.01)), DETECTOR, **options)  # type: ignore[arg-type]


def test_the_product_keeps_all_patterns_through_its_file(tmp_path: Path) -> None:
    made = product()
    write_calibration_master(tmp_path / "fringe.fits", made)
    again = read_calibration_master(tmp_path / "fringe.fits")
    assert again.metadata["n_patterns"] == 2
    assert patterns_of(again).shape == (2, SIDE, SIDE)
    assert np.max(np.abs(patterns_of(again) - patterns_of(made))) < 1e-3


def test_a_pattern_unlike_the_last_one_is_refused_and_a_like_one_compared() -> None:
    made = product()
    same = product(previous=made)
    assert same.metadata["comparison"]["correlation"] > 0.99
    pixels = MaskedImage(made.pixels.image[::-1].copy(), made.pixels.variance, made.pixels.mask)
    with pytest.raises(DataError, match="correlation with the previous"):
        product(previous=CalibrationMaster("fringe", 3, pixels, 60000.0, 5, "z"))


def test_too_few_or_fringeless_images_make_no_product() -> None:
    with pytest.raises(NotShown, match="5 are needed"):
        MakeFringe().run(fringe_images(night(4, first=0.01, second=0.0)), DETECTOR)
    with pytest.raises(NotShown, match="share no pattern"):
        MakeFringe().run(fringe_images(night(6, first=0.0, second=0.0)), DETECTOR)


def test_images_of_one_pointing_count_once() -> None:
    infos = [info(0), info(0, ra=10.0001), info(1), info(2, ra=None, dec=None), info(3)]
    assert of_different_pointings(infos, pixel_scale_arcsec=1.0, config=MakeFringeConfig()) == [0, 2, 4]


def test_detrending_takes_fringes_out_and_tells_their_amplitude() -> None:
    light = sky(np.random.default_rng(12), first=0.03, second=0.01, level=1500.0, n_stars=20)
    raw = RawDetector(info(), DETECTOR, (AmplifierPixels(AMPLIFIER, light.image + np.float32(light.level)),))
    known = product()
    with_fringes = Detrend().run(raw).pixels.image
    found = Detrend().run(raw, Calibrations(fringe=known))
    told = found.metrics["fringe"]
    assert told["is_removed"]
    assert told["rms_after"] < 0.5 * told["rms_before"]
    taken = with_fringes - found.pixels.image
    free = ~light.mask
    assert np.std((taken - light.fringes)[free]) < 0.4 * np.std(light.fringes[free])


def test_detrending_leaves_an_image_without_fringes_alone() -> None:
    light = sky(np.random.default_rng(13), first=0.0, second=0.0, level=1500.0, n_stars=0)
    raw = RawDetector(info(), DETECTOR, (AmplifierPixels(AMPLIFIER, light.image + np.float32(light.level)),))
    found = Detrend().run(raw, Calibrations(fringe=product()))
    assert not found.metrics["fringe"]["is_removed"]
    assert np.array_equal(found.pixels.image, Detrend().run(raw).pixels.image)


def test_the_fit_does_not_see_a_cloud_of_atoms() -> None:
    pattern = FIRST[None].astype(np.float32) * np.float32(0.01)
    clean = sky(np.random.default_rng(5), first=0.02, second=0.0, level=1000.0, n_stars=0)
    shadow = (-600.0 * np.exp(-((X - 150) ** 2 + (Y - 180) ** 2) / (2 * 18.0**2))).astype(np.float32)
    nothing = np.zeros(clean.mask.shape, dtype=bool)
    config = FringeFitConfig(cell=2)
    without = fit_fringes(clean.image, nothing, pattern, config=config).amplitudes[0]
    shaded = fit_fringes(clean.image + shadow, nothing, pattern, config=config)
    assert shaded.amplitudes[0] == pytest.approx(without, rel=0.05)
