"""Bias, dark and flat masters, from simulated frames with truth."""

import dataclasses

import numpy as np
import pytest

from gueststar.algorithms.detrend.compare import compare_masters
from gueststar.algorithms.response.flat_pair import measure_gain, measure_read_noise
from gueststar.core.bits import MaskPlane
from gueststar.core.errors import DataError
from gueststar.model.calibration import CalibrationMaster
from gueststar.model.camera import Amplifier, Detector, Overscan, parse_section
from gueststar.model.exposure import ExposureInfo
from gueststar.model.raw import AmplifierPixels, RawDetector
from gueststar.model.rights import Program
from gueststar.pipelines.calibration.bias import MakeBias, MakeBiasConfig
from gueststar.pipelines.calibration.dark import MakeDark
from gueststar.pipelines.calibration.flat import MakeFlat, MakeFlatConfig
from gueststar.pipelines.calibration.validity import is_stale, validity_of

NY, NX = 200, 240
GAINS, READ_NOISES = (2.0, 3.0), (6.0, 9.0)
PEDESTAL = 1000.0


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def two_amplifiers() -> Detector:
    """Two amplifiers side by side, the right one read out mirrored; overscan at the right of each."""
    half = NX // 2
    amplifiers = tuple(
        Amplifier(
            name=name, extension=i + 1, data_section=f"[1:{half},1:{NY}]",
            detector_section=f"[{1 + i * half}:{(i + 1) * half},1:{NY}]",
            overscans=(Overscan(section=f"[{half + 1}:{half + 24},1:{NY}]"),),
            flip_x=i == 1, gain=GAINS[i], read_noise=READ_NOISES[i], saturation=60_000.0,
        )
        for i, name in enumerate("AB")
    )  # fmt: skip
    return Detector(id=3, name="d3", shape=(NY, NX), amplifiers=amplifiers)


def raw_of(rng, electrons, kind, *, structure=0.0, exposure_s=0.0, minute=0, filt=None, noise_factor=1.0):
    """Read out an image in electrons (the detector's orientation) through the two amplifiers."""
    detector = two_amplifiers()
    parts = []
    for amplifier in detector.amplifiers:
        target = parse_section(amplifier.detector_section)
        counts = electrons[target] / amplifier.gain
        noise = noise_factor * amplifier.read_noise / amplifier.gain
        bias = PEDESTAL + 0.02 * np.arange(NY)[:, None]
        fixed = np.broadcast_to(structure, (NY, NX))[target]
        data = counts + fixed + rng.normal(0.0, noise, counts.shape)
        if amplifier.flip_x:
            data = data[:, ::-1]
        overscan = bias + rng.normal(0.0, noise, (NY, 24))
        clipped = np.minimum(np.round(data + bias), 65_535.0)
        parts.append(AmplifierPixels(amplifier, clipped.astype(np.float32), (np.round(overscan).astype(np.float32),)))
    info = ExposureInfo(
        "camera", kind, 60000.0 + minute / 1440.0, exposure_s, 20230225, Program.PUBLIC, physical_filter=filt, band=filt
    )
    return RawDetector(info, detector, tuple(parts))


def bias_structure():
    return np.add.outer(np.zeros(NY), 2.0 * np.sin(np.arange(NX) / 3.0))


def bias_frames(rng, n=8, **options):
    return [raw_of(rng, np.zeros((NY, NX)), "bias", structure=bias_structure(), minute=i, **options) for i in range(n)]


def flat_response():
    y, x = np.mgrid[:NY, :NX]
    response = 1.0 - 0.2 * ((x - NX / 2) ** 2 + (y - NY / 2) ** 2) / (NX / 2) ** 2
    response[120:126, 60:66] *= 0.9
    response[20, 30] = 0.02
    return response / np.median(response)


def flat_frames(rng, levels, *, stars=True, filt="r"):
    frames = []
    for i, level in enumerate(levels):
        light = level * flat_response()
        if stars:
            for x, y in zip(rng.integers(5, NX - 5, 12), rng.integers(5, NY - 5, 12), strict=True):
                light[y - 1 : y + 2, x - 1 : x + 2] += rng.uniform(0.1, 1.0) * level
        frames.append(raw_of(rng, rng.poisson(light), "flat", exposure_s=3.0, minute=100 + i, filt=filt))
    return frames


def test_master_bias_is_the_structure_with_its_noise_known(rng):
    master = MakeBias().run(bias_frames(rng), two_amplifiers())
    residual = master.pixels.image - bias_structure()
    pull = residual / np.sqrt(master.pixels.variance)
    assert abs(residual.mean()) < 0.1
    assert pull.std() == pytest.approx(1.0, abs=0.1)
    for name, expected in zip("AB", READ_NOISES, strict=True):
        assert master.metadata["read_noise"][name] == pytest.approx(expected, rel=0.03)
    assert master.metadata["bad_fraction"] < 0.001


def test_frames_may_be_functions_that_read_and_memory_is_bounded(rng):
    frames = bias_frames(rng, 6)
    reads = []

    def reader(i):
        def read():
            reads.append(i)
            return frames[i]

        return read

    sources = [reader(i) for i in range(6)]
    small = MakeBias(MakeBiasConfig(memory_mb=0.5)).run(sources, two_amplifiers())
    whole = MakeBias().run(frames, two_amplifiers())
    np.testing.assert_array_equal(small.pixels.image, whole.pixels.image)
    assert len(reads) > 6


def test_frame_with_light_is_left_out_with_its_reason(rng):
    frames = bias_frames(rng, 6)
    frames[2] = raw_of(rng, np.full((NY, NX), 300.0), "bias", structure=bias_structure(), minute=2)
    master = MakeBias().run(frames, two_amplifiers())
    assert master.n_frames == 5
    assert "level" in master.metadata["rejected"][0]["reason"]


def test_unreadable_and_misplaced_frames_are_left_out_with_their_reasons(rng):
    def broken():
        raise DataError("truncated file")

    wrong_kind = raw_of(rng, np.zeros((NY, NX)), "dark", exposure_s=10.0)
    master = MakeBias().run([broken, wrong_kind, *bias_frames(rng, 4)], two_amplifiers())
    reasons = [item["reason"] for item in master.metadata["rejected"]]
    assert reasons == ["truncated file", "frame is a dark, not a bias"]


def test_too_few_frames_are_refused_and_the_message_says_why(rng):
    with pytest.raises(DataError, match=r"2 usable frames, needs 3"):
        MakeBias().run(bias_frames(rng, 2), two_amplifiers())


def test_read_noise_unlike_the_cameras_is_refused(rng):
    with pytest.raises(DataError, match="read noise of amplifier A"):
        MakeBias().run(bias_frames(rng, 5, noise_factor=1.6), two_amplifiers())


def test_bias_whose_structure_changed_is_refused_and_equal_one_compared(rng):
    previous = MakeBias().run(bias_frames(rng), two_amplifiers())
    again = MakeBias().run(bias_frames(rng), two_amplifiers(), previous=previous)
    assert abs(again.metadata["comparison"]["level"]) < 0.2
    y, x = np.mgrid[:NY, :NX]
    image = previous.pixels.image + (10.0 * np.sin(y / 40.0 + x / 50.0)).astype(np.float32)
    old = dataclasses.replace(previous, pixels=dataclasses.replace(previous.pixels, image=image))
    with pytest.raises(DataError, match="structure differs"):
        MakeBias().run(bias_frames(rng), two_amplifiers(), previous=old)


def test_master_dark_is_a_rate_and_hot_pixels_are_marked(rng):
    bias = MakeBias().run(bias_frames(rng), two_amplifiers())
    rate = np.full((NY, NX), 0.5)
    rate[50, 70] = 40.0
    frames = []
    for i, exposure in enumerate((60.0, 120.0, 120.0, 300.0, 300.0)):
        charge = rng.poisson(rate * exposure).astype(float)
        charge[rng.integers(0, NY, 30), rng.integers(0, NX, 30)] += 2000.0
        frames.append(raw_of(rng, charge, "dark", structure=bias_structure(), exposure_s=exposure, minute=200 + i))
    dark = MakeDark().run(frames, two_amplifiers(), bias=bias)
    assert dark.metadata["rate"] == pytest.approx(0.5, abs=0.03)
    assert dark.pixels.mask[50, 70] & int(MaskPlane.BAD)
    assert ((dark.pixels.mask & int(MaskPlane.BAD)) != 0).mean() < 0.01
    good = dark.pixels.mask == 0
    pull = ((dark.pixels.image - rate) / np.sqrt(dark.pixels.variance))[good]
    assert pull.std() == pytest.approx(1.0, abs=0.15)


def test_twilight_flats_with_stars_give_the_response(rng):
    levels = (30_000.0, 50_000.0, 70_000.0, 45_000.0, 60_000.0, 80_000.0)
    master = MakeFlat().run(flat_frames(rng, levels), two_amplifiers())
    good = (master.pixels.mask == 0) & (flat_response() > 0.1)
    ratio = master.pixels.image[good] / flat_response()[good]
    pull = (ratio - 1.0) * flat_response()[good] / np.sqrt(master.pixels.variance[good])
    assert np.median(ratio) == pytest.approx(1.0, abs=0.002)
    assert np.abs(pull).mean() == pytest.approx(0.8, abs=0.12)
    assert np.abs(ratio - 1.0).max() < 0.05
    assert master.pixels.mask[20, 30] & int(MaskPlane.BAD)
    assert master.physical_filter == "r"


def test_gain_of_every_amplifier_follows_from_the_flats(rng):
    levels = (40_000.0, 45_000.0, 50_000.0, 55_000.0)
    master = MakeFlat().run(flat_frames(rng, levels, stars=False), two_amplifiers())
    for name, expected in zip("AB", GAINS, strict=True):
        assert master.metadata["gain"][name]["gain"] == pytest.approx(expected, rel=0.02)


def test_unsuitable_flats_are_left_out_with_reasons(rng):
    good = flat_frames(rng, (40_000.0, 45_000.0, 50_000.0))
    faint, bright = flat_frames(rng, (1_500.0, 115_000.0))
    other = flat_frames(rng, (40_000.0,), filt="g")
    light = rng.poisson(45_000.0 * flat_response() * np.linspace(0.7, 1.3, NX))
    tilted = raw_of(rng, light, "flat", exposure_s=3.0, minute=150, filt="r")
    master = MakeFlat().run([*good, faint, bright, *other, tilted], two_amplifiers())
    reasons = " ".join(item["reason"] for item in master.metadata["rejected"])
    assert master.n_frames == 3
    for word in ("level 15", "level 1", "filter is g", "shape differs"):
        assert word in reasons


def test_flat_unlike_the_previous_one_is_refused(rng):
    frames = flat_frames(rng, (40_000.0, 45_000.0, 50_000.0))
    previous = MakeFlat().run(frames, two_amplifiers())
    tilted = (previous.pixels.image * np.linspace(0.8, 1.2, NX)).astype(np.float32)
    old = dataclasses.replace(previous, pixels=dataclasses.replace(previous.pixels, image=tilted))
    with pytest.raises(DataError, match="structure differs"):
        MakeFlat().run(frames, two_amplifiers(), previous=old)
    MakeFlat(MakeFlatConfig(max_structure_change=1.0)).run(frames, two_amplifiers(), previous=old)


def test_gain_is_right_for_unequal_levels_and_read_noise_from_biases(rng):
    light = 20_000.0 * np.linspace(0.9, 1.1, 256)[None, :] * np.ones((256, 1))
    first = rng.poisson(light) / 2.5 + rng.normal(0.0, 3.0, light.shape)
    second = rng.poisson(0.6 * light) / 2.5 + rng.normal(0.0, 3.0, light.shape)
    gain = measure_gain(first.astype(np.float32), second.astype(np.float32), read_noise=3.0)
    assert gain.gain == pytest.approx(2.5, abs=4.0 * gain.error)
    assert gain.error < 0.03
    dark = rng.normal(0.0, 3.0, (2, 300, 300)).astype(np.float32)
    assert measure_read_noise(dark[0], dark[1] + 7.0) == pytest.approx(3.0, rel=0.02)


def test_gain_without_light_is_unknown(rng):
    frames = rng.normal(0.0, 3.0, (2, 64, 64)).astype(np.float32)
    assert np.isnan(measure_gain(frames[0], frames[1], read_noise=3.0).gain)


def test_comparison_separates_level_structure_and_pixels(rng):
    old = rng.normal(0.0, 1.0, (256, 256)).astype(np.float32)
    new = old + 5.0 + rng.normal(0.0, 3.0, old.shape).astype(np.float32)
    nothing = np.zeros_like(old)
    change = compare_masters(
        new, old, new_variance=nothing, old_variance=nothing, is_masked=nothing > 0, is_ratio=False
    )
    assert change.level == pytest.approx(5.0, abs=0.05)
    assert change.structure < 0.2
    assert change.pixel == pytest.approx(3.0, rel=0.05)


def test_validity_and_staleness(rng):
    master = MakeBias().run(bias_frames(rng), two_amplifiers())
    start, end = validity_of(master)
    assert start < master.mjd_tai < end
    assert not is_stale(master, master.mjd_tai + 5.0, 7.0)
    assert is_stale(master, master.mjd_tai + 8.0, 7.0)
    assert is_stale(master, master.mjd_tai - 8.0, 7.0)
    assert isinstance(master, CalibrationMaster)
