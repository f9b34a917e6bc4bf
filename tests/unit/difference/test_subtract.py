import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy import fft

from gueststar.algorithms.subtraction.mismatch import MismatchNoise, RegionNoise
from gueststar.algorithms.subtraction.tiles import plane_of, subtract_in_tiles, tile_layout
from gueststar.algorithms.subtraction.transfer import proper_transfer
from gueststar.core.bits import MaskPlane
from gueststar.core.errors import DataError
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.pipelines.difference.reference_warp import WarpReference
from gueststar.pipelines.difference.subtract import DifferenceConfig, DifferenceResult, MakeDifference

from .conftest import Sky

SMALL = DifferenceConfig(tile_size=160, score_box=150, background_box=150)
REFERENCE = {"shape": (380, 400), "sky": 60.0, "fwhm": 2.4, "zero_point": 29.5, "offset": (3.2, -2.7), "seed": 77}


def subtract(science: CalibratedImage, reference: CalibratedImage, **changes) -> DifferenceResult:
    config = DifferenceConfig(**(SMALL.__dict__ | changes))
    return MakeDifference(config).run(science, WarpReference().run(science, reference))


def sigma_of(score: np.ndarray) -> float:
    values = score[score != 0]
    return float(np.subtract(*np.percentile(values, [84.13, 15.87])) / 2)


def test_tile_weights_add_up_to_one_everywhere() -> None:
    total = np.zeros((250, 333))
    for tile, grid in tile_layout((250, 333), tile_size=100, ramp=8, margin=20):
        total[slice(*tile.rows), slice(*tile.columns)] += tile.weight_y[:, None] * tile.weight_x[None, :]
        assert grid[0] >= tile.rows[1] - tile.rows[0] + 40
    np.testing.assert_allclose(total, 1.0, atol=1e-6)


@pytest.mark.parametrize("grid", [(576, 576), (80, 90), (45, 50)])
def test_planes_of_spectra_are_scipys_to_the_bit(grid: tuple[int, int]) -> None:
    spectrum = fft.rfft2(np.random.default_rng(1).normal(size=grid).astype(np.float32))
    expected = fft.irfft2(spectrum, s=grid)
    assert expected.dtype == np.float32
    np.testing.assert_array_equal(plane_of(spectrum.copy(), grid), expected)


def test_tiles_leave_no_seam_when_the_psf_is_constant(sky) -> None:
    science, reference = sky.image(fwhm=2.8), sky.image(fwhm=2.3, seed=9)

    def filters(x, y, grid):
        return proper_transfer(
            science.psf.stamps(x=0 * x, y=0 * y), reference.psf.stamps(x=0 * x, y=0 * y), grid,
            science_noise=400.0, reference_noise=400.0,
        )  # fmt: skip

    planes = [science.pixels.image, reference.pixels.image, science.pixels.variance, reference.pixels.variance]
    none = MismatchNoise(0.0, 0.0, (), ())
    whole, tiled = (
        subtract_in_tiles(*planes, transfer_at=filters, noise=RegionNoise(none), tile_size=size, margin=40)
        for size in (1000, 110)
    )
    inner = np.s_[20:-20, 20:-20]
    assert np.abs(whole.score - tiled.score)[inner].max() < 0.02
    assert np.abs(whole.difference - tiled.difference)[inner].max() < 0.02 * 20


def test_images_alike_in_psf_and_noise_are_simply_subtracted() -> None:
    profile = np.exp(-(np.arange(-10, 11) ** 2) / 4.5)
    stamp = np.outer(profile, profile).astype(np.float32)
    stamp /= stamp.sum()
    made = proper_transfer(stamp, stamp, (64, 64), science_noise=5.0, reference_noise=5.0)
    np.testing.assert_allclose(made.science[:7, :7], 1.0, atol=0.02)
    np.testing.assert_array_equal(made.science, made.reference)


@pytest.mark.parametrize("method", ["proper", "kernel"])
@pytest.mark.parametrize("fwhm", [2.0, 2.4, 3.4])
def test_score_has_unit_variance_and_static_stars_leave_nothing(method: str, fwhm: float, sky) -> None:
    result = subtract(sky.image(fwhm=fwhm, seed=3), sky.image(**REFERENCE), method=method)
    assert result.metrics["method"] == method
    assert 0.95 < sigma_of(result.score) < 1.05
    assert 0.9 < result.metrics["score_noise"] < 1.1
    assert np.count_nonzero(np.abs(result.score) > 5) <= 3


@pytest.mark.parametrize("method", ["proper", "kernel"])
def test_new_sources_are_recovered_with_their_flux_and_honest_errors(method: str, sky) -> None:
    rng = np.random.default_rng(8)
    places = [(x, y) for x in range(25, 300, 25) for y in range(25, 290, 25)]
    science = sky.image()
    star_x, star_y = science.wcs.sky_to_pixel(ra=sky.ra, dec=sky.dec)
    places = [(x, y) for x, y in places if np.hypot(star_x - x, star_y - y).min() > 10]
    added = tuple((x + rng.uniform(-0.5, 0.5), y + rng.uniform(-0.5, 0.5), 4000.0) for x, y in places)
    result = subtract(sky.image(fwhm=2.6, seed=5, added=added), sky.image(**REFERENCE), method=method)
    psf, pixels = result.difference.psf, result.difference.pixels
    pulls = []
    for x, y, flux in added:
        x0, y0 = round(x), round(y)
        stamp = psf.stamp(x=x, y=y, dx=x - x0, dy=y - y0, side=15)
        box = np.s_[y0 - 7 : y0 + 8, x0 - 7 : x0 + 8]
        variance = pixels.variance[box]
        weight = (stamp**2 / variance).sum()
        pulls.append(((stamp * pixels.image[box] / variance).sum() / weight - flux) * np.sqrt(weight))
    assert abs(np.median(pulls)) < 0.35
    assert 0.8 < 1.4826 * np.median(np.abs(pulls - np.median(pulls))) < 1.25


def test_a_bright_new_source_on_a_star_is_found_although_the_star_is_static(sky) -> None:
    k = int(np.argmax(sky.flux))
    science = sky.image(seed=6)
    x, y = (float(v) for v in science.wcs.sky_to_pixel(ra=sky.ra[k], dec=sky.dec[k]))
    result = subtract(sky.image(seed=6, added=((x + 0.6, y, 0.1 * sky.flux[k]),)), sky.image(**REFERENCE))
    assert result.score[round(y), round(x)] > 10
    assert result.inflation[round(y), round(x)] >= 1.0


@pytest.mark.parametrize(("rotation", "parity"), [(180.0, 1), (0.0, -1), (33.0, -1)])
def test_reference_may_be_turned_or_mirrored(rotation: float, parity: int, sky) -> None:
    turned = REFERENCE | {"shape": (480, 480), "rotation_deg": rotation, "parity": parity}
    result = subtract(sky.image(fwhm=2.9, added=((150.0, 120.0, 5e3),)), sky.image(**turned))
    assert result.score[120, 150] > 10
    result.score[112:129, 142:159] = 0
    assert np.count_nonzero(np.abs(result.score) > 5) <= 3
    assert 0.95 < sigma_of(result.score) < 1.05


def test_where_the_reference_does_not_reach_there_is_no_score(sky) -> None:
    short = REFERENCE | {"shape": (380, 200), "offset": (60.0, 0.0)}
    result = subtract(sky.image(fwhm=2.6), sky.image(**short))
    missing = (result.difference.pixels.mask & int(MaskPlane.REFERENCE_MASKED)) != 0
    assert 0.2 < missing.mean() < 0.6
    assert not result.score[missing].any()
    assert 0.95 < sigma_of(result.score) < 1.05
    assert np.count_nonzero(np.abs(result.score) > 5) <= 3


def test_saturated_stars_do_not_spoil_their_surroundings(sky) -> None:
    science = sky.image(fwhm=2.9, saturation=8000.0)
    reference = sky.image(**REFERENCE, saturation=8000.0)
    assert ((science.pixels.mask & int(MaskPlane.SATURATED)) != 0).sum() > 50
    result = subtract(science, reference)
    assert np.count_nonzero(np.abs(result.score) > 5) <= 3


def test_masked_images_are_refused_in_words(sky) -> None:
    science = sky.image()
    pixels = science.pixels
    dead = MaskedImage(pixels.image, pixels.variance, np.full(pixels.shape, int(MaskPlane.BAD), np.int32))
    masked = CalibratedImage(dead, science.wcs, science.psf, science.photocal)
    with pytest.raises(DataError, match="usable"):
        MakeDifference(SMALL).run(masked, science)
    with pytest.raises(DataError, match="reference is"):
        MakeDifference(SMALL).run(science, sky.image(shape=(100, 100)))


def test_an_unregistered_or_distant_reference_is_refused(sky) -> None:
    science = sky.image(fwhm=2.6)
    shifted = sky.image(**REFERENCE)
    wcs = shifted.wcs
    wrong = type(wcs)(wcs.crval, (wcs.crpix[0] + 3.1, wcs.crpix[1]), wcs.cd, wcs.pv1, wcs.pv2)
    with pytest.raises(DataError, match="off by 3"):
        WarpReference().run(science, CalibratedImage(shifted.pixels, wrong, shifted.psf, shifted.photocal))
    away = type(wcs)((wcs.crval[0] + 5.0, wcs.crval[1]), wcs.crpix, wcs.cd, wcs.pv1, wcs.pv2)
    with pytest.raises(DataError, match="covers"):
        WarpReference().run(science, CalibratedImage(shifted.pixels, away, shifted.psf, shifted.photocal))


def test_a_small_registration_error_is_measured_and_removed(sky) -> None:
    science, reference = sky.image(fwhm=2.6), sky.image(**REFERENCE)
    wcs = reference.wcs
    off = type(wcs)(wcs.crval, (wcs.crpix[0] + 0.4, wcs.crpix[1] - 0.3), wcs.cd, wcs.pv1, wcs.pv2)
    warped = WarpReference().run(science, CalibratedImage(reference.pixels, off, reference.psf, reference.photocal))
    assert warped.metadata["registration_shift"] == pytest.approx(0.5, abs=0.05)
    assert warped.metadata["flux_ratio"] == pytest.approx(1.0, abs=0.01)
    result = MakeDifference(SMALL).run(science, warped)
    assert np.count_nonzero(np.abs(result.score) > 5) <= 3


@pytest.mark.parametrize("n_stars", [3, 12])
def test_new_sources_that_outnumber_the_stars_do_not_scale_the_reference(n_stars: int, sky) -> None:
    brightest = np.argsort(-sky.flux)[:n_stars]
    few = Sky(sky.ra[brightest], sky.dec[brightest], sky.flux[brightest])
    star_x, star_y = few.image().wcs.sky_to_pixel(ra=few.ra, dec=few.dec)
    places = [(a + 0.3, b - 0.2) for a in range(30, 300, 45) for b in range(30, 280, 45)]
    new = [(a, b, 60_000.0) for a, b in places if np.hypot(star_x - a, star_y - b).min() > 12]
    assert len(new) > 2 * n_stars
    science, reference = few.image(seed=6, added=tuple(new)), few.image(**REFERENCE)
    warped = WarpReference().run(science, reference)
    assert warped.metadata["flux_ratio"] == pytest.approx(1.0, abs=0.02)
    assert warped.metadata["registration_n_stars"] <= n_stars
    result = MakeDifference(SMALL).run(science, warped)
    assert result.metrics["residual_flux_ratio"] == pytest.approx(1.0, abs=0.02)
    assert result.metrics["n_stars"] <= n_stars
    inside = (np.minimum(star_x, star_y) > 5) & (star_x < 314) & (star_y < 294)
    at_stars = result.score[np.rint(star_y[inside]).astype(int), np.rint(star_x[inside]).astype(int)]
    assert np.abs(at_stars).max() < 6.0
    at_new = np.array([result.score[round(b), round(a)] for a, b, _ in new])
    assert at_new.min() > 50.0


def test_clouds_that_dim_one_side_by_half_are_followed(sky) -> None:
    science, reference = sky.image(seed=6), WarpReference().run(sky.image(seed=6), sky.image(**REFERENCE))
    dimming = np.linspace(0.55, 1.1, science.shape[1], dtype=np.float32)
    pixels = science.pixels
    cloudy = MaskedImage(pixels.image * dimming, pixels.variance * dimming**2, pixels.mask)
    result = MakeDifference(SMALL).run(replace(science, pixels=cloudy), reference)
    clear = MakeDifference(SMALL).run(science, reference)
    assert result.metrics["n_stars"] > 0.9 * clear.metrics["n_stars"] > 20
    assert result.metrics["residual_flux_ratio_rms"] < 0.03
    x, y = science.wcs.sky_to_pixel(ra=sky.ra, dec=sky.dec)
    inside = (np.minimum(x, y) > 10) & (x < 309) & (y < 289)
    at_stars = result.score[np.rint(y[inside]).astype(int), np.rint(x[inside]).astype(int)]
    assert np.quantile(np.abs(at_stars), 0.9) < 4.0


def test_subtraction_is_the_same_twice(sky) -> None:
    one, two = (subtract(sky.image(), sky.image(**REFERENCE)) for _ in range(2))
    np.testing.assert_array_equal(one.score, two.score)
    assert one.metrics == two.metrics


def test_a_difference_tells_no_shift_where_no_star_stayed_as_it_was(sky) -> None:
    rows = np.argsort(-sky.flux)[5:9]
    few = Sky(sky.ra[rows], sky.dec[rows], sky.flux[rows])
    changed = Sky(few.ra, few.dec, few.flux * np.array([0.3, 3.3, 0.3, 3.3]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        result = MakeDifference().run(few.image(seed=1), changed.image(seed=2))
    assert result.metrics["n_stars"] == 0
    assert result.metrics["residual_flux_ratio"] == 1.0
    assert result.metrics["residual_shift_x"] is None
