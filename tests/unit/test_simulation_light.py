"""Light within the simulated camera: fringes, shutter, reflections."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gueststar.cameras.load import load_camera
from gueststar.core.errors import ConfigError
from gueststar.simulation.detector import DetectorTruth, make_detector
from gueststar.simulation.optics import make_optics
from gueststar.simulation.scenario import DetectorPlan, OpticsPlan, ReflectionPlan, load_scenario
from gueststar.simulation.simulate import simulate
from gueststar.simulation.stray_light import (
    add_reflections_in_place,
    expose_through_shutter_in_place,
    fringe_patterns,
    shutter_delay,
    sky_fringes,
)

CAMERA = load_camera("simcam")


def truth(**plan: object) -> DetectorTruth:
    optics = make_optics(CAMERA, OpticsPlan(), seed=3)
    return make_detector(CAMERA, optics, CAMERA.detector(0), DetectorPlan.model_validate(plan), seed=3)


def test_fringes_have_the_amplitude_of_the_plan_one_pattern_and_strengths_that_change() -> None:
    made = truth(fringes={"i": 0.03})
    assert sky_fringes(made, "r", 1) is None
    nights = [sky_fringes(made, "i", exposure) for exposure in range(6)]
    sizes = [float(np.std(n - 1.0)) for n in nights if n is not None]
    assert 0.01 < np.mean(sizes) < 0.05
    assert np.std(sizes) > 0.001
    first, second = fringe_patterns(made)
    terms = np.stack([first.ravel(), second.ravel(), np.ones(first.size)], axis=1)
    left = [n.ravel() - terms @ np.linalg.lstsq(terms, n.ravel(), rcond=None)[0] for n in nights if n is not None]
    assert np.max(np.abs(left)) < 1e-4


def test_a_shutter_lengthens_short_exposures_more_and_none_leaves_light_alone() -> None:
    made, light = truth(shutter_delay_s=0.01, shutter_travel_s=0.03), np.ones(CAMERA.detector(0).shape, np.float32)
    expose_through_shutter_in_place(light, made, 0.5)
    assert np.allclose(light, 1.0 + shutter_delay(made) / 0.5, atol=1e-6)
    same = np.ones_like(light)
    expose_through_shutter_in_place(same, truth(), 0.5)
    assert np.all(same == 1.0)


def test_a_reflection_keeps_the_light_that_the_plan_tells_and_lies_across_the_axis() -> None:
    plan = OpticsPlan(reflections=(ReflectionPlan(scale=-1.0, radius_arcsec=25.0, fraction=0.01),))
    optics = make_optics(CAMERA, plan, seed=3)
    detector = CAMERA.detector(0)
    image = np.zeros(detector.shape, np.float32)
    # A star as far beyond the axis as the middle of detector 0 is before it throws its ghost there.
    place = detector.focal_plane
    x, y = np.array([511.5 + 2 * place.x_arcsec]), np.array([511.5 - 2 * place.y_arcsec])
    for at_x in (x, 1023.0 - x):  # whichever way the detector is mounted, one of the two is the opposite side
        add_reflections_in_place(image, CAMERA, optics, detector, x=at_x, y=y, flux=np.array([1e6]), noise=1.0)
    assert image.sum() == pytest.approx(1e4, rel=0.05)
    row, column = np.nonzero(image)
    assert (row.mean(), column.mean()) == (pytest.approx(511.5, abs=3.0), pytest.approx(511.5, abs=3.0))


def test_a_camera_without_a_sky_is_not_simulated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has_sky"):
        simulate(tmp_path, load_camera("coldatom"), load_scenario("small"), seed=1)
