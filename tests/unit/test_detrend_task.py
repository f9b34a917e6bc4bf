"""Raw exposure to detrended image, against the truth it was made from."""

import dataclasses
import gc
import json
import os
import weakref
from pathlib import Path

import numpy as np
import pytest

from gueststar.algorithms.detrend.assemble import place_amplifier_in_place
from gueststar.algorithms.detrend.calibrate import model_variance
from gueststar.algorithms.detrend.edges import EdgeConfig
from gueststar.algorithms.stats.robust import clipped_mean
from gueststar.core.bits import MaskPlane
from gueststar.core.errors import ConfigError, DataError
from gueststar.model.calibration import CalibrationMaster, Calibrations
from gueststar.model.camera import Amplifier, Detector, Overscan, parse_section
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import MaskedImage
from gueststar.model.raw import AmplifierPixels, RawDetector
from gueststar.model.rights import Program
from gueststar.pipelines.science.background import SubtractBackground
from gueststar.pipelines.science.detrend import Detrend, DetrendConfig
from gueststar.pipelines.science.doubtful_response import doubtful_response

NY, NX = 256, 300
GAINS, READ_NOISE, SKY, EXPOSURE = (2.0, 4.0), 8.0, 500.0, 30.0


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def detector() -> Detector:
    """Upper and lower halves with amplifiers of different gain; the upper one is read from the top."""
    half = NY // 2
    amplifiers = tuple(
        Amplifier(
            name=name, extension=i, data_section=f"[1:{NX},1:{half}]",
            detector_section=f"[1:{NX},{1 + i * half}:{(i + 1) * half}]",
            overscans=(Overscan(section=f"[{NX + 1}:{NX + 30},1:{half}]"),), flip_y=i == 1, gain=GAINS[i],
            read_noise=READ_NOISE, saturation=55_000.0,
        )
        for i, name in enumerate(("lower", "upper"))
    )  # fmt: skip
    return Detector(id=7, name="d7", shape=(NY, NX), amplifiers=amplifiers)


def stars(rng, n=40):
    image = np.zeros((NY, NX))
    y, x = np.mgrid[:NY, :NX]
    flux = 10.0 ** rng.uniform(3.0, 5.0, n)
    for x0, y0, f in zip(rng.uniform(10, NX - 10, n), rng.uniform(10, NY - 10, n), flux, strict=True):
        image += f * 2.0 / (np.pi * 4.0) * (1.0 + ((x - x0) ** 2 + (y - y0) ** 2) / 4.0) ** -3.0
    return image


def response():
    y, x = np.mgrid[:NY, :NX]
    shape = 1.0 - 0.3 * ((x - NX / 2) ** 2 + (y - NY / 2) ** 2) / (NX / 2) ** 2
    return (shape / np.median(shape)).astype(np.float32)


def dark_rate():
    rate = np.full((NY, NX), 2.0, np.float32)
    rate[:, :20] = 5.0
    return rate


def bias_structure():
    return np.broadcast_to(3.0 * np.cos(np.arange(NX) / 5.0), (NY, NX)).astype(np.float32)


def exposure(rng, sky_light, *, filt="r"):
    """Read out an exposure of the given light (electrons before the flat) with everything the camera adds."""
    electrons = rng.poisson(np.maximum(sky_light * response() + dark_rate() * EXPOSURE, 0.0)).astype(float)
    parts = []
    for amplifier in detector().amplifiers:
        target = parse_section(amplifier.detector_section)
        counts = electrons[target] / amplifier.gain + bias_structure()[target]
        counts = counts[::-1] if amplifier.flip_y else counts
        rows = 1200.0 + 30.0 * np.exp(-np.arange(counts.shape[0]) / 10.0)[:, None]
        noise = READ_NOISE / amplifier.gain
        data = np.clip(np.round(counts + rows + rng.normal(0, noise, counts.shape)), 0, 60_000)
        overscan = np.round(rows + rng.normal(0, noise, (counts.shape[0], 30)))
        parts.append(AmplifierPixels(amplifier, data.astype(np.float32), (overscan.astype(np.float32),)))
    info = ExposureInfo(
        "camera", "science", 60000.0, EXPOSURE, 20230225, Program.PUBLIC, physical_filter=filt, band=filt
    )
    return RawDetector(info, detector(), tuple(parts))


def masters(**changes):
    def master(kind, image, variance, filt=None):
        pixels = MaskedImage(image, np.full(image.shape, variance, np.float32), np.zeros(image.shape, np.int32))
        return CalibrationMaster(kind, 7, pixels, 59999.0, 20, filt)

    found = {
        "bias": master("bias", bias_structure(), 0.1),
        "dark": master("dark", dark_rate(), 1e-4),
        "flat": master("flat", response(), 1e-6, "r"),
    }
    return Calibrations(**{**found, **changes})


def test_sky_and_stars_come_back_with_unit_pulls(rng):
    truth = stars(rng) + SKY
    result = Detrend().run(exposure(rng, truth), masters())
    image = result.pixels
    good = image.is_usable()
    pull = (image.image - truth)[good] / np.sqrt(image.variance)[good]
    faint = (truth < SKY + 20.0)[good]
    assert np.median((image.image - truth)[good][faint]) == pytest.approx(0.0, abs=1.0)
    assert pull[faint].std() == pytest.approx(1.0, abs=0.03)
    assert pull[~faint].std() == pytest.approx(1.0, abs=0.12)
    assert result.metrics["fraction_masked"] < 0.01


def test_metrics_say_what_was_measured_and_used(rng):
    result = Detrend().run(exposure(rng, stars(rng) + SKY), masters(dark=None))
    metrics = json.loads(json.dumps(result.metrics))
    assert metrics["overscan_level_adu"]["lower"] == pytest.approx(1200.0, abs=2.0)
    assert metrics["read_noise"]["upper"] == pytest.approx(READ_NOISE, rel=0.06)
    assert metrics["sky_rms"] == pytest.approx(np.sqrt(SKY + 60.0 + READ_NOISE**2), rel=0.15)
    assert metrics["calibrations"]["flat"]["age_days"] == pytest.approx(1.0, abs=0.01)
    assert metrics["calibrations_missing"] == ["dark"]
    assert {"n_saturated", "n_cosmic_rays", "n_satellite_trails", "sky_level"} <= set(metrics)


def test_without_any_calibration_the_overscan_is_still_removed(rng):
    result = Detrend().run(exposure(rng, stars(rng) + SKY))
    assert result.metrics["calibrations_missing"] == ["bias", "dark", "flat"]
    assert result.metrics["sky_level"] == pytest.approx(SKY + 60.0, rel=0.1)


def test_without_overscan_the_cameras_level_or_the_bias_is_subtracted():
    rng = np.random.default_rng(6)
    amplifier = Amplifier(
        name="a", data_section=f"[1:{NX},1:{NY}]", detector_section=f"[1:{NX},1:{NY}]", gain=2.0, read_noise=4.0,
        saturation=60_000.0, bias_level=300.0,
    )  # fmt: skip
    plain = Detector(id=7, name="d7", shape=(NY, NX), amplifiers=(amplifier,))
    data = (300.0 + rng.poisson(400.0, (NY, NX)) / 2.0 + rng.normal(0, 2.0, (NY, NX))).astype(np.float32)
    info = ExposureInfo("camera", "science", 60000.0, EXPOSURE, 20230225, Program.PUBLIC)
    raw = RawDetector(info, plain, (AmplifierPixels(amplifier, data),))
    assert Detrend().run(raw).metrics["sky_level"] == pytest.approx(400.0, abs=2.0)
    pixels = MaskedImage(
        np.full((NY, NX), 290.0, np.float32), np.full((NY, NX), 0.2, np.float32), np.zeros((NY, NX), np.int32)
    )
    bias = CalibrationMaster("bias", 7, pixels, 59999.0, 10)
    assert Detrend().run(raw, Calibrations(bias=bias)).metrics["sky_level"] == pytest.approx(420.0, abs=2.0)


def test_saturation_defects_and_rays_are_marked_for_what_they_are(rng):
    light = np.full((NY, NX), SKY)
    light[100:104, 150:154] = 400_000.0
    light[60, 40:46] += 3_000.0
    given = masters()
    given.flat.pixels.mask[30, 50] = int(MaskPlane.BAD)
    image = Detrend().run(exposure(rng, light), given).pixels
    assert (image.mask[101, 151] & int(MaskPlane.SATURATED)) != 0
    assert (image.mask[60, 42] & int(MaskPlane.COSMIC_RAY | MaskPlane.INTERPOLATED)) == int(
        MaskPlane.COSMIC_RAY | MaskPlane.INTERPOLATED
    )
    assert (image.mask[30, 50] & int(MaskPlane.BAD | MaskPlane.INTERPOLATED)) == int(
        MaskPlane.BAD | MaskPlane.INTERPOLATED
    )
    assert image.image[60, 42] == pytest.approx(SKY, abs=120.0)


def test_sky_is_gone_after_subtraction_and_nothing_else(rng):
    truth = stars(rng)
    detrended = Detrend().run(exposure(rng, truth + SKY), masters())
    result = SubtractBackground().run(detrended.pixels)
    good = result.pixels.is_usable() & (truth < 20.0)
    assert np.mean((result.pixels.image - truth)[good]) == pytest.approx(0.0, abs=1.0)
    assert result.metrics["sky_level"] == pytest.approx(SKY, abs=3.0)
    np.testing.assert_array_equal(result.pixels.variance, detrended.pixels.variance)


def test_saturated_exposure_is_refused(rng):
    with pytest.raises(DataError, match="saturated"):
        Detrend().run(exposure(rng, np.full((NY, NX), 1e6)))


def test_masters_of_another_detector_or_filter_are_an_operators_mistake(rng):
    raw = exposure(rng, np.full((NY, NX), SKY), filt="g")
    with pytest.raises(ConfigError, match="filter"):
        Detrend().run(raw, masters())
    other = dataclasses.replace(masters().bias, detector_id=8)
    with pytest.raises(ConfigError, match="detector"):
        Detrend().run(raw, Calibrations(bias=other))


def test_searches_can_be_switched_off(rng):
    config = DetrendConfig(cosmic_rays=None, trails=None)
    metrics = Detrend(config).run(exposure(rng, stars(rng) + SKY), masters()).metrics
    assert metrics["n_cosmic_rays"] == 0
    assert metrics["n_satellite_trails"] == 0


@pytest.mark.parametrize(("flip_x", "flip_y"), [(False, False), (True, False), (False, True), (True, True)])
def test_flips_put_pixels_where_they_belong(flip_x, flip_y):
    sky = np.arange(12.0, dtype=np.float32).reshape(3, 4) + 100.0
    read = sky[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    image, mask = np.zeros((5, 6), np.float32), np.zeros((5, 6), np.int32)
    place_amplifier_in_place(
        image, mask, data=np.ascontiguousarray(read), row_level=np.full(3, 100.0, np.float32),
        target=(slice(1, 4), slice(2, 6)), flip_x=flip_x, flip_y=flip_y, gain=2.0, saturation=110.0,
    )  # fmt: skip
    np.testing.assert_array_equal(image[1:4, 2:6], 2.0 * (sky - 100.0))
    assert image[0].sum() == 0
    np.testing.assert_array_equal(mask[1:4, 2:6] != 0, sky >= 110.0)


def test_weighted_flux_of_a_faint_star_is_unbiased_unlike_with_noisy_weights(rng):
    y, x = np.mgrid[-7:8, -7:8]
    profile = np.exp(-(x**2 + y**2) / (2 * 1.5**2))
    profile /= profile.sum()
    sky, flux, n = 100.0, 400.0, 600
    biases = {"model": [], "own counts": []}
    level = np.full(profile.shape, sky, np.float32)
    for _ in range(n):
        image = (rng.poisson(sky + flux * profile) + rng.normal(0, 5.0, profile.shape)).astype(np.float32)
        variances = {
            "model": model_variance(image, level, read_variance=25.0),
            "own counts": np.maximum(image, 1.0) + 25.0,
        }
        for name, variance in variances.items():
            weight = profile / variance
            biases[name].append(np.sum(weight * (image - sky)) / np.sum(weight * profile) - flux)
    assert abs(np.mean(biases["model"])) < 0.4 * abs(np.mean(biases["own counts"]))
    assert abs(np.mean(biases["model"])) < 0.02 * flux


def real_data(name):
    root = Path(os.environ.get("GUESTSTAR_SHARED", Path(__file__).parents[3] / "shared"))
    found = root / "data" / name
    if not found.exists():
        pytest.skip(f"real data are not at {found} (set GUESTSTAR_SHARED)")
    return found


def from_fits(path, kind, amplifier, shape):
    """Read a plain one-amplifier file of the two real cameras; their own readers are tested elsewhere."""
    from astropy.io import fits

    data = fits.getdata(path).astype(np.float32)
    info = ExposureInfo("real", kind, 58568.2, 60.0, 20190326, Program.PUBLIC, physical_filter="VR", band="VR")
    plain = Detector(id=1, name="d1", shape=shape, amplifiers=(amplifier,))
    cut = [np.ascontiguousarray(data[parse_section(s)]) for s in
           (amplifier.data_section, *(o.section for o in amplifier.overscans))]  # fmt: skip
    return RawDetector(info, plain, (AmplifierPixels(amplifier, cut[0], tuple(cut[1:])),))


@pytest.mark.real_data
def test_settling_of_a_real_overscan_leaves_no_trace_in_the_rows():
    folder = real_data("lowell42_5945")
    amplifier = Amplifier(
        name="a", data_section="[18:1382,1:1370]", detector_section="[1:1365,1:1370]",
        overscans=(Overscan(section="[1388:1432,1:1370]"),), gain=3.7, read_noise=4.2, saturation=60_000.0,
    )  # fmt: skip
    paths = sorted((folder / "zero").glob("*.gz"))[:2]
    frames = [from_fits(path, "science", amplifier, (1370, 1365)) for path in paths]
    config = DetrendConfig(cosmic_rays=None, trails=None)
    images = [Detrend(config).run(frame).pixels.image for frame in frames]
    rows = [np.array([clipped_mean(row).mean for row in image[60:-5]]) for image in images]
    assert np.abs(rows[1] - rows[0]).max() < 0.3 * 4.2
    assert np.std(np.diff(rows[0])) < 0.1 * 4.2


@pytest.mark.real_data
def test_real_frame_without_calibrations_is_detrended():
    path = sorted(real_data("microobs_hatp32b").glob("*.gz"))[0]
    amplifier = Amplifier(
        name="a", data_section="[1:650,1:500]", detector_section="[1:650,1:500]", gain=10.0, read_noise=15.0,
        saturation=4000.0,
    )  # fmt: skip
    result = Detrend().run(from_fits(path, "science", amplifier, (500, 650)))
    assert result.metrics["calibrations_missing"] == ["bias", "dark", "flat"]
    assert result.metrics["n_satellite_trails"] == 0
    assert 0.0 < result.metrics["fraction_masked"] < 0.05
    assert np.isfinite(result.pixels.image).all()
    assert (result.pixels.variance > 0).all()


def test_edge_and_pixels_beyond_linearity_are_marked(rng):
    given = masters()
    given.flat.pixels.image[:, -6:] *= np.float32(0.8)
    given.flat.pixels.variance[50, 60] = 0.01
    raw = exposure(rng, np.full((NY, NX), SKY))
    amplifiers = tuple(part.amplifier.model_copy(update={"linear_below": 1800.0}) for part in raw.amplifiers)
    parts = tuple(dataclasses.replace(p, amplifier=a) for p, a in zip(raw.amplifiers, amplifiers, strict=True))
    parts[0].data[40, 30] = 2000.0
    bordered = raw.detector.model_copy(update={"edge_pixels": 2, "amplifiers": amplifiers})
    result = Detrend().run(dataclasses.replace(raw, detector=bordered, amplifiers=parts), given)
    is_edge = (result.pixels.mask & int(MaskPlane.EDGE)) != 0
    assert result.metrics["edge_lines"] == {"bottom": 2, "top": 2, "left": 2, "right": 6}
    assert is_edge[:, -6:].all()
    assert is_edge[:2].all()
    assert not is_edge[2:-2, 2:-6].any()
    is_suspect = (result.pixels.mask & int(MaskPlane.SUSPECT)) != 0
    assert is_suspect[[40, 50], [30, 60]].all()
    assert is_suspect.sum() == 2


def test_what_a_flat_puts_in_doubt_is_found_once_and_forgotten_with_it():
    given = masters()
    y, x = np.mgrid[:NY, :NX]
    given.flat.pixels.image[np.hypot(x, y) < 60] *= np.float32(0.3)
    first = doubtful_response(given.flat, edges=EdgeConfig(), max_error=0.05)
    assert 0.0 < first.vignetted_fraction < 0.3
    mask = np.zeros((NY, NX), np.int32)
    first.mark_in_place(mask)
    assert mask[5, 5] == int(MaskPlane.EDGE)
    assert mask[-5, -5] == 0
    assert doubtful_response(given.flat, edges=EdgeConfig(), max_error=0.05) is first
    assert doubtful_response(given.flat, edges=EdgeConfig(min_illumination=0.1), max_error=0.05).is_vignetted is None
    assert np.all(doubtful_response(given.flat, edges=EdgeConfig(), max_error=1e-9).is_uncertain)
    is_held = weakref.ref(given.flat)
    del given
    gc.collect()
    assert is_held() is None
