"""Bad pixels re-derived from what images of many pointings leave over."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gueststar.algorithms.illumination.bad_pixels import find_bad_pixels, find_unlike_response, updated_scores
from gueststar.core.bits import MaskPlane
from gueststar.core.errors import DataError
from gueststar.model.calibration import CalibrationMaster, Calibrations
from gueststar.model.camera import Amplifier, Detector
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import MaskedImage
from gueststar.model.raw import AmplifierPixels, RawDetector
from gueststar.model.rights import Program
from gueststar.pipelines.calibration.defects import MakeDefects, MakeDefectsConfig, ResidualImage
from gueststar.pipelines.calibration.flat import MakeFlat, MakeFlatConfig
from gueststar.pipelines.calibration.not_shown import NotShown

SIDE, NOISE, N = 384, 30.0, 12


def stack_error() -> NDArray[np.float32]:
    return np.full((SIDE, SIDE), NOISE / np.sqrt(N), np.float32)


def stacked(random: np.random.Generator, defects: NDArray[np.float64]) -> NDArray[np.float32]:
    return (defects + random.normal(0, NOISE / np.sqrt(N), (SIDE, SIDE))).astype(np.float32)


def test_pixels_above_the_noise_of_an_image_are_found_and_hardly_a_good_one_is_lost() -> None:
    random = np.random.default_rng(1)
    truth = np.zeros((SIDE, SIDE))
    y, x = random.integers(0, SIDE, 150), random.integers(0, SIDE, 150)
    truth[y, x] = random.uniform(2.5, 20.0, 150) * NOISE * random.choice([-1, 1], 150)
    found = find_bad_pixels(stacked(random, truth), stack_error(), noise=NOISE)
    assert found.is_pixel[truth != 0].mean() > 0.97
    assert found.is_bad[truth == 0].mean() < 2e-3


def test_a_trap_column_far_below_the_noise_of_a_pixel_is_found_from_where_it_begins() -> None:
    random = np.random.default_rng(2)
    truth = np.zeros((SIDE, SIDE))
    truth[160:, 100] = -0.25 * NOISE
    truth[:, 250] = 0.3 * NOISE
    found = find_bad_pixels(stacked(random, truth), stack_error(), noise=NOISE)
    assert found.is_column[192:, 100].mean() > 0.9
    assert not found.is_column[:96, 100].any()
    assert found.is_column[:, 250].mean() > 0.9
    assert found.is_column[truth == 0].mean() < 2e-3


def test_rows_are_searched_where_charge_moves_along_rows() -> None:
    random = np.random.default_rng(3)
    truth = np.zeros((SIDE, SIDE))
    truth[77] = 0.4 * NOISE
    found = find_bad_pixels(stacked(random, truth), stack_error(), noise=NOISE, readout_axis="x")
    assert found.is_column[77].mean() > 0.9


def test_white_noise_and_fringes_hold_no_columns() -> None:
    y, x = np.mgrid[:SIDE, :SIDE]
    fringes = 0.3 * NOISE * np.sin(2 * np.pi * (x + 0.2 * y) / 40.0)
    for seed in range(3):
        found = find_bad_pixels(stacked(np.random.default_rng(seed), fringes), stack_error(), noise=NOISE)
        assert found.is_column.mean() < 2e-3


def test_pixels_that_are_not_finite_are_left_alone() -> None:
    image = np.full((64, 64), np.nan, np.float32)
    assert not find_bad_pixels(image, np.ones_like(image), noise=1.0).is_bad.any()


def test_a_pixel_that_holds_back_charge_in_faint_light_is_found() -> None:
    random = np.random.default_rng(4)
    bright = (1.0 + random.normal(0, 0.002, (128, 128))).astype(np.float32)
    faint = bright + random.normal(0, 0.006, (128, 128)).astype(np.float32)
    faint[40, 50] = 0.7
    faint[64:, 90] -= 0.05
    found = find_unlike_response(bright, faint, np.full((128, 128), 0.0063, np.float32))
    assert found.is_pixel[40, 50]
    assert found.is_bad[64:, 90].mean() > 0.8
    assert found.is_bad.sum() < 90


def test_a_new_defect_counts_at_once_and_an_old_one_is_forgotten_slowly() -> None:
    found = np.array([[True, False, False]])
    scores = updated_scores(found, None, max_score=3)
    assert scores.tolist() == [[1, 0, 0]]
    scores = updated_scores(found, np.array([[3.0, 3.0, 1.0]]), max_score=3)
    assert scores.tolist() == [[3, 2, 0]]


AMPLIFIER = Amplifier(
    name="a", data_section=f"[1:{SIDE},1:{SIDE}]", detector_section=f"[1:{SIDE},1:{SIDE}]", gain=1.0, read_noise=3.0,
    saturation=60000.0,
)  # fmt: skip
DETECTOR = Detector(id=0, name="d", shape=(SIDE, SIDE), amplifiers=(AMPLIFIER,))


def night(defects: NDArray[np.float64], *, n: int = 8, first: float = 60000.0) -> list[ResidualImage]:
    """Return images of the sky with stars that were not all detected, and defects."""
    images = []
    y, x = np.mgrid[:SIDE, :SIDE]
    for number in range(n):
        random = np.random.default_rng(int(first) + number)
        light = random.normal(0, NOISE, (SIDE, SIDE)) + defects
        mask = np.zeros((SIDE, SIDE), np.int32)
        for _ in range(15):
            at = random.uniform(0, SIDE, 2)
            r2 = (x - at[0]) ** 2 + (y - at[1]) ** 2
            light += 40 * NOISE * np.exp(-r2 / 8.0)
            mask[r2 < 60.0] |= int(MaskPlane.DETECTED)
            faint = random.uniform(0, SIDE, 2)
            light += 2.0 * NOISE * np.exp(-((x - faint[0]) ** 2 + (y - faint[1]) ** 2) / 8.0)
        info = ExposureInfo("c", "science", first + 0.01 * number, 30.0, 20230225, Program.PUBLIC)
        variance = np.full((SIDE, SIDE), NOISE**2, np.float32)
        images.append(ResidualImage(info, MaskedImage(light.astype(np.float32), variance, mask)))
    return images


def warm_pixels() -> NDArray[np.float64]:
    truth = np.zeros((SIDE, SIDE))
    random = np.random.default_rng(7)
    truth[random.integers(0, SIDE, 60), random.integers(0, SIDE, 60)] = 4.0 * NOISE
    return truth


def test_defects_show_in_a_night_of_dithered_images_and_stars_do_not() -> None:
    truth = warm_pixels()
    product = MakeDefects().run(night(truth), DETECTOR, known=Calibrations())
    is_bad = (product.pixels.mask & int(MaskPlane.BAD)) != 0
    assert is_bad[truth > 0].mean() > 0.95
    assert is_bad[truth == 0].mean() < 1e-3
    assert product.kind == "defects"


def test_what_masters_call_bad_counts_and_history_tells_what_was_seen_again() -> None:
    truth = warm_pixels()
    mask = np.zeros((SIDE, SIDE), np.int32)
    mask[5, 5] = int(MaskPlane.BAD)
    dark = CalibrationMaster(
        "dark", 0, MaskedImage(truth.astype(np.float32), truth.astype(np.float32), mask), 60000.0, 3
    )
    first = MakeDefects().run(night(truth), DETECTOR, known=Calibrations(dark=dark))
    assert first.pixels.mask[5, 5] == int(MaskPlane.BAD)
    assert first.metadata["n_dark"] == 1
    again = MakeDefects().run(night(truth, first=60001.0), DETECTOR, known=Calibrations(), previous=first)
    told = again.metadata["comparison"]
    assert told["stable_fraction"] > 0.7
    assert again.pixels.mask[5, 5] == 0
    cured = MakeDefects().run(
        night(np.zeros_like(truth), first=60002.0), DETECTOR, known=Calibrations(), previous=again
    )
    y, x = np.nonzero(truth)
    assert ((cured.pixels.mask[y, x] & int(MaskPlane.BAD)) != 0).mean() > 0.9  # seen twice, missed once


def test_too_few_images_make_no_product_and_too_many_bad_pixels_are_refused() -> None:
    with pytest.raises(NotShown, match="5 are needed"):
        MakeDefects().run(night(warm_pixels(), n=3), DETECTOR, known=Calibrations())
    with pytest.raises(DataError, match="may be"):
        MakeDefects(MakeDefectsConfig(max_bad_fraction=1e-5)).run(night(warm_pixels()), DETECTOR, known=Calibrations())


def test_a_master_of_bright_and_faint_flats_marks_traps() -> None:
    random = np.random.default_rng(9)
    raws = []
    for number, level in enumerate((30000.0, 30000.0, 30000.0, 6000.0, 6000.0)):
        light = random.poisson(np.full((SIDE, SIDE), level)).astype(np.float32)
        light[100:, 50] -= 500.0  # held back, whatever the light
        light[20, 30] -= 2500.0
        info = ExposureInfo(
            "c", "flat", 60000.0 + 0.01 * number, level / 6000.0, 20230225, Program.PUBLIC, physical_filter="r"
        )
        raws.append(RawDetector(info, DETECTOR, (AmplifierPixels(AMPLIFIER, light),)))
    flat = MakeFlat(MakeFlatConfig(gain_tolerance=9.0)).run(raws, DETECTOR)
    is_bad = (flat.pixels.mask & int(MaskPlane.BAD)) != 0
    assert is_bad[20, 30]
    assert is_bad[128:, 50].mean() > 0.9
    assert flat.metadata["n_level_dependent"] == is_bad.sum() < 400
    bright = MakeFlat(MakeFlatConfig(gain_tolerance=9.0)).run(raws[:3], DETECTOR)
    assert bright.metadata["n_level_dependent"] == 0
