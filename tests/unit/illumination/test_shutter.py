"""The shutter's travel, from flats of short and long exposures."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gueststar.algorithms.illumination.shutter import ShutterMap, block_levels, correct_exposure_in_place, fit_shutter
from gueststar.core.errors import DataError
from gueststar.model.calibration import CalibrationMaster, Calibrations
from gueststar.model.camera import Amplifier, Detector
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import MaskedImage
from gueststar.model.raw import AmplifierPixels, RawDetector
from gueststar.model.rights import Program
from gueststar.pipelines.calibration.not_shown import NotShown
from gueststar.pipelines.calibration.shutter import MakeShutter
from gueststar.pipelines.science.detrend import Detrend

SIDE = 256
Y, X = np.mgrid[:SIDE, :SIDE]
RESPONSE = 1.0 + 0.2 * X / SIDE
DELAY = 0.020 + 0.012 * np.cos(np.hypot(X - 128, Y - 128) / 90)
TIMES = (0.5, 0.5, 0.5, 5.0, 5.0, 1.0)


def flat(random: np.random.Generator, time: float, delay: NDArray[np.float64], drift: float) -> NDArray[np.float32]:
    lamp = 3000.0 * (1.0 + drift * random.normal())
    return random.poisson(lamp * RESPONSE * (time + delay)).astype(np.float32)


def measured(delay: NDArray[np.float64], *, drift: float, seed: int = 1) -> ShutterMap:
    random = np.random.default_rng(seed)
    nothing = np.zeros((SIDE, SIDE), dtype=bool)
    blocks = [block_levels(flat(random, time, delay, drift), nothing, block=16) for time in TIMES]
    return fit_shutter(
        np.array([b[0] for b in blocks]), np.array([b[1] for b in blocks]), np.array(TIMES), shape=(SIDE, SIDE)
    )


def test_a_steady_lamp_gives_the_delay_of_every_place() -> None:
    found = measured(DELAY, drift=0.0)
    assert np.std(found.seconds - DELAY) < 0.0005
    assert abs(np.mean(found.seconds - DELAY)) < 0.0005
    assert found.significance > 20


def test_a_drifting_lamp_leaves_the_shape_and_widens_the_error_of_the_mean() -> None:
    found = measured(DELAY, drift=0.02)
    assert np.std(found.seconds - DELAY) < 0.0006
    assert abs(np.mean(found.seconds - DELAY)) < 4.0 * found.mean_error
    assert found.mean_error > 0.001


def test_a_perfect_shutter_has_no_significant_delay() -> None:
    nothing = np.zeros((SIDE, SIDE))
    assert [measured(nothing, drift=0.01, seed=seed).significance > 5.0 for seed in range(6)].count(True) == 0


def test_exposures_too_much_alike_are_refused() -> None:
    levels = np.ones((3, 4, 4))
    with pytest.raises(ValueError, match="ratio"):
        fit_shutter(levels, levels, np.array([4.0, 5.0, 6.0]), shape=(64, 64))


def test_a_block_without_usable_pixels_takes_its_value_from_its_neighbours() -> None:
    random = np.random.default_rng(3)
    hole = np.zeros((SIDE, SIDE), dtype=bool)
    hole[64:96, 64:96] = True
    blocks = [block_levels(flat(random, time, DELAY, 0.0), hole, block=16) for time in TIMES]
    levels, variances = (np.array([b[i] for b in blocks]) for i in (0, 1))
    found = fit_shutter(levels, variances, np.array(TIMES), shape=(SIDE, SIDE))
    assert np.isfinite(found.seconds).all()
    assert np.max(np.abs(found.seconds - DELAY)[hole]) < 0.015


AMPLIFIER = Amplifier(
    name="a", data_section=f"[1:{SIDE},1:{SIDE}]", detector_section=f"[1:{SIDE},1:{SIDE}]", gain=1.0, read_noise=3.0,
    saturation=60000.0,
)  # fmt: skip
DETECTOR = Detector(id=0, name="d", shape=(SIDE, SIDE), amplifiers=(AMPLIFIER,))


def raw(kind: str, pixels: NDArray[np.float32], time: float, number: int) -> RawDetector:
    info = ExposureInfo(
        "c", kind, 60000.0 + 0.001 * number, time, 20230225, Program.PUBLIC, physical_filter="r", band="r"  # type: ignore[arg-type]
    )  # fmt: skip
    return RawDetector(info, DETECTOR, (AmplifierPixels(AMPLIFIER, pixels),))


def flats(delay: NDArray[np.float64], seed: int = 5) -> list[RawDetector]:
    random = np.random.default_rng(seed)
    return [raw("flat", flat(random, time, delay, 0.0), time, number) for number, time in enumerate(TIMES)]


def test_a_short_exposure_is_corrected_to_what_the_told_time_would_have_given() -> None:
    product = MakeShutter().run(flats(DELAY), DETECTOR, known=Calibrations())
    light = raw("science", (20000.0 * (1.0 + DELAY / 0.5)).astype(np.float32), 0.5, 20)
    image = Detrend().run(light, Calibrations(shutter=product)).pixels.image
    assert np.std(image) / 20000.0 < 0.0015
    assert np.mean(image) == pytest.approx(20000.0, rel=0.002)
    long = raw("science", np.full((SIDE, SIDE), 5000.0, np.float32), 3000.0, 21)
    same = Detrend().run(long, Calibrations(shutter=product)).pixels.image
    assert np.array_equal(same, Detrend().run(long).pixels.image)


def test_a_shutter_without_delay_makes_no_product_and_one_that_changed_is_refused() -> None:
    task = MakeShutter()
    with pytest.raises(NotShown, match="ms"):
        task.run(flats(np.zeros((SIDE, SIDE))), DETECTOR, known=Calibrations())
    product = task.run(flats(DELAY), DETECTOR, known=Calibrations())
    pixels = MaskedImage((product.pixels.image + 20.0 * (DELAY - 0.02)).astype(np.float32), *_rest(product))
    other = CalibrationMaster("shutter", 0, pixels, 59990.0, 6)
    with pytest.raises(DataError, match="structure"):
        task.run(flats(DELAY), DETECTOR, known=Calibrations(), previous=other)


def _rest(product: CalibrationMaster) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    return product.pixels.variance, product.pixels.mask


def test_flats_of_the_widest_range_of_exposures_serve() -> None:
    infos = [
        ExposureInfo("c", "flat", 60000.0 + 0.001 * i, time, 20230225, Program.PUBLIC, physical_filter=glass)
        for i, (glass, time) in enumerate([("r", 1), ("r", 3), ("g", 1), ("g", 5), ("g", 5), ("r", 3)])
    ]
    assert MakeShutter().suitable(infos) == [2, 3, 4]
    with pytest.raises(NotShown, match="factor"):
        MakeShutter().suitable([infos[0], infos[1], infos[5]])


def test_a_pixel_that_the_shutter_hardly_opens_keeps_its_value() -> None:
    image = np.full((2, 2), 10.0, np.float32)
    correct_exposure_in_place(image, np.array([[0.0, 1.0], [-0.99, -2.0]], np.float32), 1.0)
    assert image.tolist() == [[10.0, 5.0], [10.0, 10.0]]
