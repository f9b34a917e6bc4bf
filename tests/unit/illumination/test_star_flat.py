"""The response to stars, from the same stars at many places of the detector."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gueststar.algorithms.illumination.star_flat import Observations, StarFlat, solve_star_flat
from gueststar.core.errors import DataError
from gueststar.model.calibration import CalibrationMaster
from gueststar.model.camera import Amplifier, Detector
from gueststar.model.exposure import ExposureInfo
from gueststar.model.rights import Program
from gueststar.pipelines.calibration.illumination import MakeIllumination, StarMeasurements
from gueststar.pipelines.calibration.not_shown import NotShown

SHAPE = (1000, 800)
N_STARS = 900
Floats = NDArray[np.float64]


def response(x: Floats, y: Floats) -> Floats:
    u, v = 2 * x / SHAPE[1] - 1, 2 * y / SHAPE[0] - 1
    return 0.02 * u - 0.01 * v + 0.015 * u * u + 0.01 * u * v


def observed(
    seed: int, *, size: float = 1.0, n_exposures: int = 10, shift: float = 60.0, outliers: float = 0.02
) -> tuple[Observations, Floats]:
    """Return measurements of stars through a response, and their true magnitudes."""
    random = np.random.default_rng(seed)
    star_x, star_y = random.uniform(-80, SHAPE[1] + 80, N_STARS), random.uniform(-80, SHAPE[0] + 80, N_STARS)
    magnitude = random.uniform(14, 18, N_STARS)
    parts = []
    for number in range(n_exposures):
        dx, dy = random.normal(0, shift, 2)
        x, y = star_x + dx, star_y + dy
        on = np.flatnonzero((x > 0) & (x < SHAPE[1] - 1) & (y > 0) & (y < SHAPE[0] - 1))
        error = np.hypot(0.003, 0.02 * 10 ** (0.4 * (magnitude[on] - 18)))
        value = magnitude[on] + 25.0 + random.normal(0, 0.1) + size * response(x[on], y[on])
        value += error * random.normal(size=on.size)
        value[random.random(on.size) < outliers] += 0.5
        parts.append((x[on], y[on], value, error, on, np.full(on.size, number)))
    return Observations(*(np.concatenate(column) for column in zip(*parts, strict=True))), magnitude


def solved(seed: int, *, has_catalog: bool = True, **options: float) -> StarFlat:
    data, magnitude = observed(seed, **options)  # type: ignore[arg-type]
    noise = np.random.default_rng(seed + 100).normal(0, 0.02, N_STARS)
    catalog = magnitude + noise if has_catalog else np.full(N_STARS, np.nan)
    return solve_star_flat(data, catalog_magnitude=catalog, catalog_error=np.full(N_STARS, 0.01), shape=SHAPE)


def off(found: StarFlat, size: float = 1.0) -> Floats:
    y, x = np.mgrid[0 : SHAPE[0] : 25.0, 0 : SHAPE[1] : 20.0]
    true = size * response(x, y)
    return np.asarray(found.response(x=x, y=y) - (true - true.mean()))


def test_response_is_recovered_to_a_millimagnitude_in_spite_of_outliers_and_zero_points() -> None:
    found = solved(1)
    assert np.std(off(found)) < 0.001
    assert found.scatter_after < 0.6 * found.scatter_before


def test_the_stated_error_is_that_of_many_trials() -> None:
    trials = [solved(seed, n_exposures=6) for seed in range(8)]
    actual = np.sqrt(np.mean([np.mean(off(t) ** 2) for t in trials]))
    stated = np.sqrt(np.mean([t.rms_error**2 for t in trials]))
    assert 0.5 < actual / stated < 1.7


def test_without_a_catalog_shifts_alone_cannot_tell_a_slope_and_the_error_says_so() -> None:
    found = solved(2, has_catalog=False)
    assert found.rms_error > 0.1
    rest = off(found)
    y, x = np.mgrid[0 : SHAPE[0] : 25.0, 0 : SHAPE[1] : 20.0]
    plane = np.stack([np.ones(rest.size), x.ravel(), y.ravel()], axis=1)
    rest = rest.ravel() - plane @ np.linalg.lstsq(plane, rest.ravel(), rcond=None)[0]
    assert np.std(rest) < 0.002


def test_an_even_response_needs_no_terms() -> None:
    found = solved(3, size=0.0)
    assert found.response.order == 0
    assert found.rms == 0.0


def test_too_few_measurements_are_refused() -> None:
    data, magnitude = observed(4)
    few = data.select(np.arange(data.x.size) < 10)
    with pytest.raises(ValueError, match="at least 30"):
        solve_star_flat(few, catalog_magnitude=magnitude, catalog_error=np.full(N_STARS, 0.01), shape=SHAPE)


SECTION = f"[1:{SHAPE[1]},1:{SHAPE[0]}]"
AMPLIFIER = Amplifier(
    name="a", data_section=SECTION, detector_section=SECTION, gain=1.0, read_noise=3.0, saturation=6e4
)
DETECTOR = Detector(id=0, name="d", shape=SHAPE, amplifiers=(AMPLIFIER,))


def made(seed: int, *, size: float = 1.0, **options: CalibrationMaster | None) -> CalibrationMaster:
    data, magnitude = observed(seed, size=size)
    exposures = []
    for number in range(10):
        info = ExposureInfo(
            "c", "science", 60000.0 + 0.01 * number, 30.0, 20230225, Program.PUBLIC, physical_filter="r", band="r"
        )
        part = data.select(data.exposure == number)
        exposures.append(StarMeasurements(info, part.x, part.y, part.magnitude, part.error, part.star))
    errors = np.full(N_STARS, 0.01)
    return MakeIllumination().run(exposures, DETECTOR, catalog_magnitude=magnitude, catalog_error=errors, **options)  # type: ignore[arg-type]


def test_images_divided_by_the_product_measure_stars_alike_everywhere() -> None:
    product = made(5)
    y, x = np.mgrid[0 : SHAPE[0] : 40, 0 : SHAPE[1] : 40]
    flux = 10.0 ** (-0.4 * response(x.astype(float), y.astype(float))) / product.pixels.image[y, x]
    assert np.std(2.5 * np.log10(flux)) < 0.0015
    assert product.pixels.image.mean() == pytest.approx(1.0, abs=0.01)


def test_a_correction_on_top_of_an_applied_one_holds_both() -> None:
    first = made(6)
    again = made(7, size=0.0, applied=first, previous=first)
    assert np.max(np.abs(again.pixels.image / first.pixels.image - 1.0)) < 0.003
    assert again.metadata["comparison"]["structure_mag"] < 0.002


def test_an_even_response_makes_no_product_and_a_jump_is_refused() -> None:
    with pytest.raises(NotShown, match="even"):
        made(8, size=0.0)
    with pytest.raises(DataError, match="differs from the previous"):
        made(9, size=6.0, previous=made(9))
