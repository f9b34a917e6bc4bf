"""Artificial sources at other stages: raw counts and differences, hosts, fadings, and light far from a star."""

import numpy as np
import pytest

from gueststar.algorithms.photocal.spatial import ZeroPointMap
from gueststar.algorithms.photometry.far_wing import add_far_wings_in_place, far_wing
from gueststar.algorithms.psf.profile import moffat_stamp
from gueststar.core.bits import MaskPlane
from gueststar.model.calibration import CalibrationMaster, Calibrations, CalibrationTable
from gueststar.model.camera import Amplifier, Detector, Overscan, parse_section
from gueststar.model.columns import DIA_SOURCE
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf
from gueststar.model.raw import AmplifierPixels, RawDetector
from gueststar.model.rights import Program
from gueststar.model.wcs import Wcs
from gueststar.pipelines.injection.inject import InjectedImage, InjectSources, light_of
from gueststar.pipelines.injection.place import ArtificialSources, InjectionConfig, PlaceSources
from gueststar.pipelines.injection.raw import InjectRaw
from gueststar.pipelines.injection.score import Detections, ScoreInjections
from gueststar.pipelines.science.detrend import Detrend, DetrendConfig

NY, NX = 200, 240
SHAPE = (NY, NX)
SKY, ZERO_POINT, FWHM = 300.0, 27.0, 3.0


def detector() -> Detector:
    """Left and right halves of different gain, read out from the outer corners: the right one mirrored twice."""
    half = NX // 2
    parts = tuple(
        Amplifier(
            name=name, extension=k, data_section=f"[1:{half},1:{NY}]",
            detector_section=f"[{1 + k * half}:{(k + 1) * half},1:{NY}]",
            overscans=(Overscan(section=f"[{half + 1}:{half + 20},1:{NY}]"),), flip_x=k == 1, flip_y=k == 1,
            gain=(2.0, 3.5)[k], read_noise=5.0, saturation=40_000.0,
        )
        for k, name in enumerate(("left", "right"))
    )  # fmt: skip
    return Detector(id=1, name="d1", shape=SHAPE, amplifiers=parts)


def response() -> np.ndarray:
    x = np.broadcast_to(np.linspace(-1.0, 1.0, NX), SHAPE)
    return ((1.0 - 0.4 * x**2) / np.median(1.0 - 0.4 * x**2)).astype(np.float32)


def raw_sky(rng: np.random.Generator) -> RawDetector:
    electrons = rng.poisson(SKY * response()).astype(float)
    parts = []
    for amplifier in detector().amplifiers:
        counts = electrons[parse_section(amplifier.detector_section)] / amplifier.gain
        counts = counts[::-1, ::-1] if amplifier.flip_x else counts
        noise = amplifier.read_noise / amplifier.gain
        data, overscan = (np.rint(1000.0 + c + rng.normal(0.0, noise, c.shape)) for c in (counts, np.zeros((NY, 20))))
        parts.append(AmplifierPixels(amplifier, data.astype(np.float32), (overscan.astype(np.float32),)))
    info = ExposureInfo("cam", "science", 60000.0, 30.0, 20230225, Program.PUBLIC, physical_filter="r", band="r")
    return RawDetector(info, detector(), tuple(parts))


def flat() -> Calibrations:
    pixels = MaskedImage(response(), np.full(SHAPE, 1e-8), np.zeros(SHAPE))
    return Calibrations(flat=CalibrationMaster("flat", 1, pixels, 60000.0, 20, "r"))


def image(*, side_fwhm: float = 4.0) -> CalibratedImage:
    psf = Psf(moffat_stamp(FWHM, reach_fwhm=side_fwhm)[None], 0, SHAPE)
    pixels = MaskedImage(np.zeros(SHAPE), np.full(SHAPE, SKY), np.zeros(SHAPE))
    wcs = Wcs.tangent(ra=10.0, dec=20.0, x=120.0, y=100.0, scale_arcsec=1.0)
    return CalibratedImage(pixels, wcs, psf, PhotoCal(ZERO_POINT, 0.01, band="r"))


def stars(x: list[float], y: list[float], electrons: list[float]) -> ArtificialSources:
    magnitude = ZERO_POINT - 2.5 * np.log10(electrons)
    none = np.zeros(len(x))
    return ArtificialSources(
        np.array(x), np.array(y), magnitude, 10 ** (0.4 * (31.4 - magnitude)), none, none, np.zeros(none.size, np.int8)
    )


def test_light_put_into_raw_counts_comes_back_where_it_belongs_with_its_flux() -> None:
    put_in = stars([30.0, 100.3, 150.6, 210.0, 119.5], [40.0, 150.2, 60.0, 170.4, 100.0], [4e4] * 5)
    config = DetrendConfig(cosmic_rays=None, trails=None)
    raw = raw_sky(np.random.default_rng(1))
    made = InjectRaw().run(raw, image(), put_in, flat(), random=np.random.default_rng(2))
    before, after = (Detrend(config).run(item, flat()).pixels for item in (raw, made))
    added = after.image.astype(float) - before.image
    y, x = np.mgrid[:NY, :NX]
    for px, py in zip(put_in.x, put_in.y, strict=True):
        near = np.hypot(x - px, y - py) < 12
        total = added[near].sum()
        assert total == pytest.approx(4e4, rel=0.02)
        assert (added[near] * x[near]).sum() / total == pytest.approx(px, abs=0.05)
        assert (added[near] * y[near]).sum() / total == pytest.approx(py, abs=0.05)
    for part, old in zip(made.amplifiers, raw.amplifiers, strict=True):
        assert np.all(part.data == np.rint(part.data))
        assert np.array_equal(part.overscans[0], old.overscans[0])


def test_raw_light_undoes_the_levelling_that_the_chain_will_do() -> None:
    put_in = stars([40.0, 200.0], [100.0, 100.0], [1e5, 1e5])
    slope = ZeroPointMap(np.array([0.2, 0.0]), SHAPE, 1)
    raw = raw_sky(np.random.default_rng(1))
    counts = []
    for levelled_by in (None, slope):
        made = InjectRaw().run(
            raw, image(), put_in, Calibrations(), random=np.random.default_rng(2), levelled_by=levelled_by
        )
        counts.append([(new.data - old.data).sum() for new, old in zip(made.amplifiers, raw.amplifiers, strict=True)])
    change = -2.5 * np.log10(np.array(counts[1]) / np.array(counts[0]))
    assert change == pytest.approx(-slope(x=put_in.x, y=put_in.y), abs=0.01)


def test_a_star_too_bright_for_a_pixel_saturates_and_bleeds_and_loses_no_charge() -> None:
    put_in = stars([60.0], [100.0], [6e6])
    raw = raw_sky(np.random.default_rng(1))
    made = InjectRaw().run(raw, image(), put_in, Calibrations(), random=np.random.default_rng(2))
    assert made.amplifiers[0].data.max() <= 40_002
    added = (made.amplifiers[0].data - raw.amplifiers[0].data) * 2.0
    assert added.sum() == pytest.approx(6e6, rel=0.02)
    mask = Detrend(DetrendConfig(cosmic_rays=None, trails=None)).run(made, Calibrations()).pixels.mask
    charged = (mask & int(MaskPlane.SATURATED | MaskPlane.BLEED)) != 0
    assert charged[:, 60].sum() > 3 * charged[100].sum()


def bent() -> CalibrationTable:
    """The left amplifier loses 4 % of its counts at 20,000, as a straight line."""
    knots = np.linspace(0.0, 30_000.0, 7)
    rows = {
        "amplifier": np.array(["left"]), "n_knots": np.array([7]), "knots": knots[None],
        "correction": (2e-6 * knots**2)[None], "error": np.full((1, 7), 1.0), "largest_error": np.array([1e-4]),
        "is_significant": np.array([True]), "lamp_scatter": np.zeros(1), "lamp_drift_per_hour": np.zeros(1),
        "chi2_per_dof": np.ones(1), "n_levels": np.array([10]),
    }  # fmt: skip
    return CalibrationTable("linearity", 1, {"curves": rows}, 60000.0, 10)


def test_a_bent_response_and_crosstalk_are_in_the_counts_as_the_chain_takes_them_out() -> None:
    put_in = stars([60.0], [100.0], [3e5])
    coefficients = {
        "target": np.array(["right"]), "source_detector": np.array([1]), "source": np.array(["left"]),
        "coefficient": np.array([1e-2]),
    }  # fmt: skip
    crosstalk = CalibrationTable("crosstalk", 1, {"coefficients": coefficients}, 60000.0, 10)
    known = Calibrations(linearity=bent(), crosstalk=crosstalk)
    raw = raw_sky(np.random.default_rng(1))
    made = InjectRaw().run(raw, image(), put_in, known, random=np.random.default_rng(2))
    plain = InjectRaw().run(raw, image(), put_in, Calibrations(), random=np.random.default_rng(2))
    peak = [item.amplifiers[0].data.max() - 1000.0 for item in (made, plain)]
    assert peak[0] < 0.98 * peak[1]
    assert (made.amplifiers[1].data - raw.amplifiers[1].data).sum() > 0.008 * 3e5 / 2.0
    config = DetrendConfig(cosmic_rays=None, trails=None)
    before, after = (Detrend(config).run(item, known).pixels.image.astype(float) for item in (raw, made))
    added = after - before
    y, x = np.mgrid[:NY, :NX]
    assert added[np.hypot(x - 60, y - 100) < 12].sum() == pytest.approx(3e5, rel=0.01)
    assert abs(added[:, NX // 2 :].sum()) < 300.0


def test_what_has_faded_does_not_shine_in_raw_counts() -> None:
    fading, raw = stars([60.0], [100.0], [1e4]), raw_sky(np.random.default_rng(1))
    fading = fading._replace(flux=-fading.flux)
    made = InjectRaw().run(raw, image(), fading, Calibrations(), random=np.random.default_rng(2))
    for before, after in zip(raw.amplifiers, made.amplifiers, strict=True):
        assert np.array_equal(before.data, after.data)


def test_a_bright_star_shines_beyond_its_stamp_as_its_profile_goes_on() -> None:
    """The stamp of a Moffat profile of exponent 7 ends at 4 FWHM; a stamp that ends at 12 knows what lies beyond."""
    short, long = image(), image(side_fwhm=12.0)
    put_in = stars([120.0], [100.0], [1e7])
    everything = np.ones(1, bool)
    found, truth = light_of(short, put_in, everything), light_of(long, put_in, everything)
    y, x = np.mgrid[:NY, :NX]
    r = np.hypot(x - 120, y - 100)
    for ring in ((14.0, 20.0), (20.0, 30.0)):
        within = (r > ring[0]) & (r < ring[1])
        assert found[within].sum() == pytest.approx(truth[within].sum(), rel=0.5)
        assert found[within].sum() > 100.0


def test_faint_stars_have_no_far_wings_and_wings_end_at_the_floor() -> None:
    spline = image().psf.spline
    wing = far_wing(spline)
    assert wing is not None
    light = np.zeros(SHAPE)
    one = np.array([1.0])
    add_far_wings_in_place(light, spline, x=120 * one, y=100 * one, flux=100 * one, floor=0.5)
    assert not light.any()
    add_far_wings_in_place(light, spline, x=120 * one, y=100 * one, flux=1e7 * one, floor=0.5)
    assert light[light > 0].min() > 0.4
    assert wing.reach(flux=1e7, floor=0.5) > 2 * wing.half


def test_hosts_get_their_share_of_the_sources() -> None:
    config = InjectionConfig(n=120, host_fraction=0.5, separation_fwhm=0.5)
    hosts = (np.array([50.0, 150.0]), np.array([60.0, 120.0]))
    placed = PlaceSources(config).run(image(), limiting_mag=22.0, random=np.random.default_rng(3), hosts=hosts)
    distance = np.min([np.hypot(placed.x - hx, placed.y - hy) for hx, hy in zip(*hosts, strict=True)], axis=0)
    assert 0.2 < (distance < 3 * FWHM).mean() < 0.6
    gap = np.hypot(placed.x[:, None] - placed.x, placed.y[:, None] - placed.y) + 1e9 * np.eye(placed.x.size)
    assert gap.min() >= 0.5 * image().psf.central_fwhm


def test_what_has_faded_is_found_as_a_negative_detection_and_counted_apart() -> None:
    config = InjectionConfig(stage="difference", n=60, fading_fraction=0.5, separation_fwhm=2.0)
    made = InjectSources(config).run(image(), limiting_mag=22.0, random=np.random.default_rng(4))
    put_in = made.sources
    fading = put_in.flux < 0
    assert 15 < fading.sum() < 45
    assert made.image.pixels.image.min() > -50.0  # no hole
    values = {column.name: np.zeros(put_in.x.size) for column in DIA_SOURCE.columns}
    values |= {"x": put_in.x, "y": put_in.y, "psf_flux": put_in.flux, "is_positive": ~fading}
    found = Detections(
        candidates=DIA_SOURCE.catalog(values), likely=np.ones(put_in.x.size, bool),
        is_differenced=np.ones(SHAPE, bool),
    )  # fmt: skip
    score = ScoreInjections(config).run(InjectedImage(made.image, put_in), found)
    assert score.catalog["is_candidate_found"].all()
    assert score.metrics["fading"] == {"n": fading.sum(), "n_candidate": fading.sum()}
    assert score.metrics["difference"]["n"] == (~fading).sum()
    assert score.metrics["source"]["n_found"] == 0
    wrong = DIA_SOURCE.catalog(values | {"psf_flux": -put_in.flux})
    score = ScoreInjections(config).run(InjectedImage(made.image, put_in), Detections(
        candidates=wrong, likely=np.ones(put_in.x.size, bool), is_differenced=np.ones(SHAPE, bool)
    ))  # fmt: skip
    assert not score.catalog["is_candidate_found"].any()
