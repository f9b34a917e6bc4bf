"""Fluxes forced on differences, and upper limits that are those of the place."""

from __future__ import annotations

import numpy as np
import pytest

from gueststar.algorithms.association.footprint import places_within
from gueststar.algorithms.photometry.forced import fitting_radius, forced_fluxes, forced_psf_photometry, stamps_at
from gueststar.core.bits import MaskPlane, SourceFlag
from gueststar.formats.avro import decode_alert
from gueststar.formats.depth_map import decode_depth, encode_depth
from gueststar.model.depth import DepthMap
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf
from gueststar.model.wcs import Wcs
from gueststar.pipelines.difference.forced import ImageFacts, MeasureOnDifference
from tests.unit.alerts.conftest import NIGHT_ZERO, make_record, make_sources

SHAPE = (300, 340)
FACTS = ImageFacts(1, 2, 61000.2, 1, 1)


def varying_psf(sigma: float = 1.3, half: int = 12) -> Psf:
    """A Gaussian that grows across the image."""
    y, x = np.indices((2 * half + 1, 2 * half + 1)) - half
    core = np.exp(-0.5 * (x**2 + y**2) / sigma**2)
    wider = np.exp(-0.5 * (x**2 + y**2) / (1.2 * sigma) ** 2)
    terms = [core / core.sum(), 0.1 * (wider / wider.sum() - core / core.sum()), 0 * core]
    return Psf(np.stack(terms).astype(np.float32), 1, SHAPE)


def difference(rng: np.random.Generator, sigma: np.ndarray) -> CalibratedImage:
    """White noise of a told sigma for each pixel."""
    image = (sigma * rng.standard_normal(SHAPE)).astype(np.float32)
    wcs = Wcs.tangent(ra=10.0, dec=-30.0, x=170.0, y=150.0, scale_arcsec=1.0, rotation_deg=25.0)
    pixels = MaskedImage(image, (sigma**2 * np.ones(SHAPE)).astype(np.float32), np.zeros(SHAPE, np.int32))
    return CalibratedImage(pixels, wcs, varying_psf(), PhotoCal(27.0, 0.01))


def test_drawing_and_fitting_at_once_gives_what_fitting_of_stamps_gives() -> None:
    rng = np.random.default_rng(1)
    image = difference(rng, np.full(SHAPE, 5.0))
    image.pixels.mask[100:120, 100:120] |= int(MaskPlane.SATURATED)
    x, y = rng.uniform(-2, 342, 400), rng.uniform(-2, 302, 400)
    psf, radius = image.psf, 6
    one = forced_fluxes(
        image.pixels.image, image.pixels.variance, image.pixels.mask, int(MaskPlane.SATURATED), psf.spline,
        psf.stamp_sums(x=x, y=y), x=x, y=y, radius=radius,
    )  # fmt: skip
    stamps = stamps_at(psf.spline, x=x, y=y, radius=radius) / psf.stamp_sums(x=x, y=y)[:, None, None]
    j, i = np.indices(stamps.shape[1:]) - radius
    other = forced_psf_photometry(
        image.pixels.image, image.pixels.variance, (image.pixels.mask != 0), stamps, x=np.rint(x), y=np.rint(y),
        radius=radius,
    )  # fmt: skip
    assert np.count_nonzero(i**2 + j**2 <= radius**2) > 100
    np.testing.assert_allclose(one.flux, other.flux, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(one.flux_err, other.flux_err, rtol=1e-5)
    np.testing.assert_array_equal(one.n_masked, other.n_masked)


def test_forced_fluxes_of_either_sign_come_out_with_honest_errors() -> None:
    rng = np.random.default_rng(2)
    image = difference(rng, np.full(SHAPE, 4.0))
    x, y = (grid.ravel() for grid in np.meshgrid(np.arange(20.3, 320, 25), np.arange(20.7, 280, 25)))
    flux = rng.uniform(-3000, 3000, x.size)
    for k, stamp in enumerate(image.psf.placed_stamps(x=x, y=y)):
        rows, columns = round(y[k]) - 12, round(x[k]) - 12
        image.pixels.image[rows : rows + 25, columns : columns + 25] += (flux[k] * stamp).astype(np.float32)
    ra, dec = image.wcs.pixel_to_sky(x=x, y=y)
    found = MeasureOnDifference().run(image, FACTS, object_ids=np.arange(x.size), ra=ra, dec=dec)
    pulls = (found["psf_flux"] - flux * image.photocal.njy_per_unit) / found["psf_flux_err"]
    assert np.abs(pulls.mean()) < 3.5 / np.sqrt(x.size)
    assert np.std(pulls) == pytest.approx(1.0, abs=3.5 / np.sqrt(2 * x.size))


def test_nothing_is_measured_where_the_reference_tells_nothing() -> None:
    image = difference(np.random.default_rng(3), np.full(SHAPE, 4.0))
    image.pixels.mask[40:80, 40:80] |= int(MaskPlane.REFERENCE_MASKED)
    ra, dec = image.wcs.pixel_to_sky(x=np.array([60.0, 38.0, 200.0, 900.0]), y=np.array([60.0, 60.0, 200.0, 60.0]))
    found = MeasureOnDifference().run(image, FACTS, object_ids=np.arange(4), ra=ra, dec=dec)
    assert found["dia_object_id"].tolist() == [0, 1, 2], "the last one is not on the image"
    assert np.isnan(found["psf_flux"][0])
    assert np.isfinite(found["psf_flux"][1:]).all()
    assert found["flags"].tolist() == [int(SourceFlag.BAD_PIXEL), int(SourceFlag.BAD_PIXEL), 0]


def test_the_map_of_depth_is_the_limit_of_forced_fluxes_at_each_place() -> None:
    y, x = np.indices(SHAPE)
    image = difference(np.random.default_rng(4), 3.0 + 7.0 * x / SHAPE[1])
    image.pixels.mask[100:164, 96:160] |= int(MaskPlane.SATURATED)
    measure = MeasureOnDifference()
    depth = measure.depth(image)
    rng = np.random.default_rng(5)
    x, y = rng.uniform(20, 320, 300), rng.uniform(20, 280, 300)
    ra, dec = image.wcs.pixel_to_sky(x=x, y=y)
    forced = measure.run(image, FACTS, object_ids=np.arange(300), ra=ra, dec=dec)
    told = depth.nearest(x=x, y=y)
    is_clear = forced["flags"] == 0
    off = told[is_clear] - forced["limiting_mag"][is_clear]
    assert np.nanmax(off) < 0.1, "a limit is never told to be much fainter than it is"
    assert np.nanmin(off) > -0.4, "beside masked pixels it is told brighter: half of the mesh may be masked"
    assert np.abs(np.nanmedian(off)) < 0.02
    is_masked = (x > 104) & (x < 152) & (y > 108) & (y < 156)
    assert is_masked.any()
    assert np.isnan(told[is_masked]).all()
    assert np.isfinite(told[is_clear & ~is_masked]).mean() > 0.97
    kept = decode_depth(encode_depth(depth))
    np.testing.assert_allclose(kept.limit, depth.limit, atol=0.0101)
    assert kept.shape == depth.shape


def test_most_of_the_signal_lies_within_the_fitting_radius() -> None:
    stamp = varying_psf(sigma=2.0).stamp(x=0.0, y=0.0)
    radius = fitting_radius(stamp, share=0.999)
    j, i = np.indices(stamp.shape) - 12
    inside = np.hypot(i, j) <= radius
    assert np.sum(stamp[inside] ** 2) >= 0.999 * np.sum(stamp**2)
    assert radius <= 8, "sigma of the squared PSF is 1.4"


@pytest.mark.parametrize(("ra", "dec"), [(0.0, 0.0), (359.99, -70.0), (30.0, 89.7)])
def test_places_within_an_image_are_those_of_its_wcs(ra: float, dec: float) -> None:
    wcs = Wcs.tangent(ra=ra, dec=dec, x=170.0, y=150.0, scale_arcsec=2.0, rotation_deg=200.0, parity=-1)
    rng = np.random.default_rng(6)
    x, y = rng.uniform(-30, 370, 50), rng.uniform(-30, 330, 50)
    corner_ra, corner_dec = wcs.corners(SHAPE)
    across, up = places_within(corner_ra[None], corner_dec[None], *wcs.pixel_to_sky(x=x, y=y))
    np.testing.assert_allclose(across[0] * SHAPE[1] - 0.5, x, atol=1e-4)
    np.testing.assert_allclose(up[0] * SHAPE[0] - 0.5, y, atol=1e-4)
    far = places_within(corner_ra[None], corner_dec[None], np.array([ra + 180.0]), np.array([-dec]))
    assert np.isnan(far[0]).all()


def test_an_upper_limit_is_that_of_the_place_and_there_is_none_where_the_image_was_masked(make_survey) -> None:
    survey = make_survey()
    limit = np.full((10, 10), 20.5, dtype=np.float32)
    limit[5, 5], limit[2, 7] = 19.25, np.nan
    depth = DepthMap(limit, (1000, 1000))
    wcs = Wcs.tangent(ra=359.99, dec=20.0, x=499.5, y=499.5, scale_arcsec=1.0)
    none = np.zeros(0)
    for k, told in enumerate((depth, None)):
        record = make_record(NIGHT_ZERO + 0.1 + k)
        survey.observe(record, make_sources(record, none, none), depth=told)
    record = make_record(NIGHT_ZERO + 2.1)
    places = wcs.pixel_to_sky(x=np.array([150.0, 550.0, 750.0]), y=np.array([150.0, 550.0, 250.0]))
    survey.observe(record, make_sources(record, *places))
    packets = [decode_alert(data) for _, data in survey.log.replay()]
    limits = [[item["diffmaglim"] for item in packet["prv_candidates"]] for packet in packets]
    assert [
        [pytest.approx(value, abs=0.011) for value in told] for told in ([20.5, 20.5], [19.25, 20.5], [20.5])
    ] == limits
