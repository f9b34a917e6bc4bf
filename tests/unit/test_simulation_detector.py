"""What detectors do to light, and what amplifiers write."""

import numpy as np
import pytest

from gueststar.algorithms.photometry.bleeding import bleed_in_place
from gueststar.cameras.load import load_camera
from gueststar.model.camera import Camera, parse_section
from gueststar.simulation.cosmic_rays import add_cosmic_rays_in_place
from gueststar.simulation.detector import (
    DetectorTruth,
    full_well,
    make_detector,
    read_out,
    response_in,
)
from gueststar.simulation.exposure import collect_in_place
from gueststar.simulation.optics import make_optics
from gueststar.simulation.scenario import DetectorPlan, OpticsPlan

QUIET = DetectorPlan(
    bias_structure=0.0, row_drift=0.0, bias_jump_probability=0.0, hot_pixel_fraction=0.0, bad_columns_per_mpix=0.0,
    cosmic_rays_per_mpix_s=0.0, dark_e_per_s=0.0,
)  # fmt: skip


N = 512


def small_camera() -> Camera:
    """simcam with detectors of 512 x 512 pixels."""
    document = load_camera("simcam").model_dump(mode="json")
    for detector in document["detectors"]:
        detector["shape"] = [N, N]
        for k, amplifier in enumerate(detector["amplifiers"]):
            amplifier["data_section"] = f"[1:{N // 2},1:{N}]"
            amplifier["detector_section"] = f"[{1 + k * N // 2}:{(k + 1) * N // 2},1:{N}]"
            amplifier["overscans"] = [{"section": f"[{N // 2 + 1}:{N // 2 + 32},1:{N}]"}]
    return Camera.model_validate(document)


def truth_of(plan: DetectorPlan, *, detector_id: int = 0) -> DetectorTruth:
    camera = small_camera()
    optics = make_optics(camera, OpticsPlan(), seed=1)
    return make_detector(camera, optics, camera.detector(detector_id), plan, seed=1)


def test_noise_is_that_of_photons_and_amplifier() -> None:
    truth = truth_of(QUIET)
    for level in (0.0, 300.0, 20000.0):
        electrons = np.full(truth.detector.shape, level, dtype=np.float32)
        collect_in_place(electrons, truth, np.random.default_rng(1), seconds=0.0)
        written = read_out(truth, electrons, np.random.default_rng(2))
        for amplifier in truth.detector.amplifiers:
            place = parse_section(amplifier.data_section)
            data = next(adu for where, adu in written[amplifier.extension] if where == place)
            noise = data.astype(float).std() * amplifier.gain
            rounding = amplifier.gain**2 / 12.0
            assert noise == pytest.approx(np.sqrt(level + amplifier.read_noise**2 + rounding), rel=0.015)
            mean = (data.mean() - amplifier.bias_level) * amplifier.gain
            assert mean == pytest.approx(level, rel=0.001, abs=0.2)


def test_overscan_rows_drift_with_their_data() -> None:
    truth = truth_of(QUIET.model_copy(update={"row_drift": 3.0}))
    written = read_out(truth, np.zeros(truth.detector.shape, dtype=np.float32), np.random.default_rng(3))
    (_, data), (_, overscan) = written["D1A"]
    rows = data.astype(float).mean(axis=1), overscan.astype(float).mean(axis=1)
    assert np.corrcoef(*rows)[0, 1] > 0.98
    assert np.std(rows[0]) > 3 * np.std(rows[0] - rows[1])


def test_flipped_amplifier_is_read_from_its_own_side() -> None:
    truth = truth_of(QUIET)
    electrons = np.zeros(truth.detector.shape, dtype=np.float32)
    electrons[100, N - 1] = 50000.0
    data = read_out(truth, electrons, np.random.default_rng(3))["D1B"][0][1]
    assert np.unravel_index(np.argmax(data), data.shape) == (100, 0)


def test_converter_clips_at_its_ends() -> None:
    truth = truth_of(QUIET)
    electrons = np.full(truth.detector.shape, 1e7, dtype=np.float32)
    electrons[:10] = -1e6
    data = read_out(truth, electrons, np.random.default_rng(3))["D1A"][0][1]
    assert data[400, 100] == 65535
    assert data[5, 100] == 0


def test_crosstalk_is_a_fraction_of_the_other_amplifier() -> None:
    truth = truth_of(QUIET.model_copy(update={"crosstalk": 1e-3}))
    electrons = np.zeros(truth.detector.shape, dtype=np.float32)
    electrons[300:320, 100:120] = 100_000.0
    written = read_out(truth, electrons, np.random.default_rng(3))
    other = written["D1B"][0][1].astype(float)
    source = 100_000.0 / truth.detector.amplifiers[0].gain
    assert other[300:320, 100:120].mean() - 1000.0 == pytest.approx(1e-3 * source, abs=1.0)


@pytest.mark.parametrize("axis", ["x", "y"])
def test_bleeding_moves_charge_along_the_readout_axis_and_keeps_it(axis: str) -> None:
    electrons = np.full((200, 180), 100.0, dtype=np.float32)
    electrons[100, 90] = 1e6
    well = np.full(electrons.shape, 1e5, dtype=np.float32)
    before = electrons.sum(dtype=np.float64)
    bleed_in_place(electrons, well, readout_axis=axis)
    assert electrons.sum(dtype=np.float64) == pytest.approx(before, rel=1e-6)
    assert electrons.max() <= 1e5 * (1 + 1e-6)
    full = np.argwhere(electrons > 0.99e5)
    assert np.ptp(full[:, 0 if axis == "x" else 1]) == 0
    along = full[:, 1 if axis == "x" else 0]
    assert along.mean() == pytest.approx(90 if axis == "x" else 100, abs=1.0)


def test_saturated_pixels_reach_the_level_that_the_camera_calls_saturated() -> None:
    truth = truth_of(QUIET)
    electrons = full_well(truth)
    for amplifier in truth.detector.amplifiers:
        data = read_out(truth, electrons, np.random.default_rng(3))[amplifier.extension][0][1]
        assert np.median(data) > amplifier.saturation


def test_response_has_median_one_and_dust() -> None:
    truth = truth_of(DetectorPlan())
    response = response_in(truth, "sim_r", 0)
    assert np.median(response) == pytest.approx(1.0, abs=1e-5)
    assert 0.005 < np.std(response[200:300, 200:300]) < 0.05
    other = response_in(truth, "sim_g", 0)
    assert np.corrcoef(response.ravel(), other.ravel())[0, 1] < 0.999
    np.testing.assert_array_equal(response, response_in(truth_of(DetectorPlan()), "sim_r", 0))


def test_cosmic_rays_are_tracks_of_many_lengths() -> None:
    random = np.random.default_rng(4)
    sizes, charges = [], []
    for _ in range(300):
        image = np.zeros((300, 300), dtype=np.float32)
        n = add_cosmic_rays_in_place(image, random, per_mpix_s=1.0, seconds=1e6 / 90000)
        if n == 1:
            rows, columns = np.nonzero(image > 100)
            if rows.size:
                sizes.append(np.hypot(np.ptp(rows), np.ptp(columns)))
                charges.append(image.sum())
    assert np.median(sizes) < 8
    assert np.percentile(sizes, 95) > 7
    assert np.max(sizes) > 12
    assert 1000 < np.median(charges) < 10000


def test_detector_is_the_same_for_a_seed_and_differs_from_its_neighbours() -> None:
    first, again, other = truth_of(DetectorPlan()), truth_of(DetectorPlan()), truth_of(DetectorPlan(), detector_id=1)
    np.testing.assert_array_equal(first.dark, again.dark)
    assert not np.array_equal(first.dark, other.dark)
