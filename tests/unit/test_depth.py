"""The map of limiting magnitudes: what noise, PSF and sky error make of it, and what is really found there."""

import numpy as np
import pytest

from gueststar.algorithms.photocal.limiting import limiting_magnitude, mesh_variance, sampled_area
from gueststar.algorithms.psf.profile import moffat_stamp
from gueststar.core.bits import MaskPlane
from gueststar.core.errors import DataError
from gueststar.formats.calibrated_image import read_calibrated_image, write_calibrated_image
from gueststar.model.depth import DepthMap
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf
from gueststar.model.wcs import Wcs
from gueststar.pipelines.injection.inject import InjectSources
from gueststar.pipelines.injection.place import InjectionConfig
from gueststar.pipelines.injection.score import Detections, ScoreInjections
from gueststar.pipelines.science.catalogs import MakeCatalogs, calibrate_sources
from gueststar.pipelines.science.depth import DepthConfig, MapDepth

SHAPE = (384, 512)
WCS = Wcs.tangent(ra=10.0, dec=20.0, x=256.0, y=192.0, scale_arcsec=1.0)


def sky(rng: np.random.Generator, *, variance: np.ndarray | float = 200.0, fwhm: float = 3.0) -> CalibratedImage:
    plane = np.broadcast_to(np.asarray(variance, dtype=float), SHAPE)
    psf = Psf(moffat_stamp(fwhm)[None], 0, SHAPE)
    pixels = MaskedImage(rng.normal(0.0, np.sqrt(plane)), plane, np.zeros(SHAPE))
    return CalibratedImage(pixels, WCS, psf, PhotoCal(27.0, 0.01, band="r"))


def test_four_times_the_variance_costs_three_quarters_of_a_magnitude() -> None:
    variance = np.where(np.arange(512) < 256, 100.0, 400.0)
    image = sky(np.random.default_rng(1), variance=variance)
    depth = MapDepth(DepthConfig(box=64)).run(image.pixels, image.psf, image.photocal)
    assert depth.limit.shape == (6, 8)
    left, right = depth.at(x=[50.0, 450.0], y=[190.0, 190.0])
    assert left - right == pytest.approx(2.5 * np.log10(2.0), abs=1e-3)
    assert depth.quantile(0.0) == pytest.approx(right)


def test_the_error_of_the_sky_counts_with_the_area_of_the_psf() -> None:
    white = limiting_magnitude(psf_effective_area=25.0, sky_variance=4.0, zero_point=25.0)
    both = limiting_magnitude(psf_effective_area=25.0, sky_variance=4.0, zero_point=25.0, level_error=0.4)
    assert white - both == pytest.approx(1.25 * np.log10(1.0 + 25.0**2 * 0.16 / 100.0))


def test_meshes_without_usable_pixels_have_no_limit_and_do_not_spoil_their_neighbours() -> None:
    image = sky(np.random.default_rng(2))
    mask = np.zeros(SHAPE, np.int32)
    mask[:, :128] = int(MaskPlane.NO_DATA)
    pixels = MaskedImage(image.pixels.image, image.pixels.variance, mask)
    depth = MapDepth().run(pixels, image.psf, image.photocal)
    assert np.isnan(depth.limit[:, 0]).all()
    assert np.isfinite(depth.limit[:, 1:]).all()
    assert np.isnan(depth.at(x=30.0, y=100.0))
    assert depth.at(x=135.0, y=100.0) == pytest.approx(depth.median, abs=0.01)
    nothing = MapDepth().run(
        MaskedImage(pixels.image, pixels.variance, np.full(SHAPE, int(MaskPlane.NO_DATA))), image.psf, image.photocal
    )
    assert nothing.median is None
    with pytest.raises(DataError, match="at least one mesh"):
        DepthMap(np.zeros((0, 3), np.float32), SHAPE)


def test_undersampled_stars_lose_between_the_pixels() -> None:
    def loss(fwhm: float) -> float:
        psf = Psf(moffat_stamp(fwhm)[None], 0, SHAPE)
        stamps = [psf.stamp(x=0.0, y=0.0, dx=dx, dy=dx) for dx in (0.0, 0.25, -0.25, 0.5)]
        return sampled_area(np.stack(stamps)) / sampled_area(np.stack(stamps[:1]))

    assert loss(1.6) > 1.05
    assert 1.0 < loss(5.0) < 1.03


def test_the_map_travels_with_the_image(tmp_path) -> None:
    image = sky(np.random.default_rng(3))
    depth = MapDepth().run(image.pixels, image.psf, image.photocal)
    stored = CalibratedImage(image.pixels, image.wcs, image.psf, image.photocal, {}, depth=depth)
    write_calibrated_image(tmp_path / "image.fits", stored)
    back = read_calibrated_image(tmp_path / "image.fits").depth
    assert back is not None
    assert np.array_equal(back.limit, depth.limit)
    assert (back.shape, back.n_sigma) == (SHAPE, 5.0)


def test_variance_of_a_mesh_is_that_of_its_usable_pixels() -> None:
    variance = np.full((100, 100), 9.0, np.float32)
    variance[:50] = 1e6
    usable = np.ones((100, 100), bool)
    usable[:50] = False
    assert mesh_variance(variance, usable, box=100) == pytest.approx(9.0)


def test_half_of_the_injected_stars_are_found_at_the_limit_of_their_place() -> None:
    """A sky that is eight times brighter on one side, in two seeings: the map tells both sides."""
    for fwhm in (2.0, 4.0):
        magnitude, is_found, is_left = [], [], []
        for seed in range(5):
            rng = np.random.default_rng(seed)
            image = sky(rng, variance=np.where(np.arange(512) < 256, 100.0, 800.0), fwhm=fwhm)
            depth = MapDepth().run(image.pixels, image.psf, image.photocal)
            config = InjectionConfig(n=250, separation_fwhm=4.0, brightest=-1.0, faintest=1.0)
            made = InjectSources(config).run(image, limiting_mag=depth.median, random=rng)
            found = MakeCatalogs().run(made.image.pixels, image.psf)
            sources = calibrate_sources(found.psf, WCS, image.photocal, visit=1, detector=1)
            score = ScoreInjections(config).run(made, Detections(sources)).catalog
            magnitude.append(score["mag"] - depth.at(x=score["x"], y=score["y"]))
            is_found.append(score["is_source_found"])
            is_left.append(score["x"] < 256)
        below, hit, left = (np.concatenate(part) for part in (magnitude, is_found, is_left))
        for side in (left, ~left):
            near = side & (np.abs(below) < 0.15)
            assert hit[near].mean() == pytest.approx(0.5, abs=0.17)
