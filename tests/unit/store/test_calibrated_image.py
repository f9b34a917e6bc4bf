"""Images survive being stored, to well within their noise."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal

from gueststar.core.bits import MaskPlane
from gueststar.core.errors import DataError
from gueststar.formats.calibrated_image import (
    is_calibrated_image,
    read_calibrated_image,
    read_frame,
    write_and_restore,
    write_calibrated_image,
)
from gueststar.formats.calibration_master import read_calibration_master, read_master_time, write_calibration_master
from gueststar.model.calibration import CalibrationMaster
from gueststar.model.depth import DepthMap
from gueststar.model.image import MaskedImage


def test_everything_but_the_pixels_comes_back_exactly(tmp_path, make_image):
    metadata = {"seeing_arcsec": 2.125, "names": ["a", "ü"], "nested": {"none": None, "tiny": 1e-300}, "is_good": True}
    image = make_image(1, **metadata)
    image = replace(image, coverage=np.arange(image.shape[0] * image.shape[1], dtype=np.int16).reshape(image.shape))
    write_calibrated_image(tmp_path / "i.fits", image)
    back = read_calibrated_image(tmp_path / "i.fits")
    assert back.metadata == metadata
    assert back.photocal == image.photocal
    assert_array_equal(back.pixels.mask, image.pixels.mask)
    assert_array_equal(back.coverage, image.coverage)
    assert_array_equal(back.psf.coefficients, image.psf.coefficients)
    assert (back.psf.order, back.psf.shape, back.psf.oversampling) == (1, image.shape, 1)
    assert (back.wcs.crval, back.wcs.crpix) == (image.wcs.crval, image.wcs.crpix)
    assert_allclose(back.wcs.cd, image.wcs.cd, rtol=1e-12)


def test_the_frame_of_an_image_is_all_but_its_pixels(tmp_path, make_image):
    image = make_image()
    write_calibrated_image(tmp_path / "image.fits", image)
    frame, whole = read_frame(tmp_path / "image.fits"), read_calibrated_image(tmp_path / "image.fits")
    assert (frame.shape, frame.photocal, frame.metadata) == (whole.shape, whole.photocal, whole.metadata)
    assert_array_equal(frame.psf.coefficients, whole.psf.coefficients)
    assert frame.wcs.to_header() == whole.wcs.to_header()


def test_rounding_is_white_and_unbiased_and_far_below_the_noise(tmp_path, make_image):
    image = make_image(2, shape=(512, 500))
    write_calibrated_image(tmp_path / "i.fits", image)
    error = read_calibrated_image(tmp_path / "i.fits").pixels.image - image.pixels.image
    step = 10.0 / 16.0
    assert abs(error.mean()) < 4.0 * step / math.sqrt(12.0 * error.size)
    assert error.std() == pytest.approx(step / math.sqrt(12.0), rel=0.02)
    neighbours = np.mean(error[:, 1:] * error[:, :-1]) / error.var()
    assert abs(neighbours) < 0.01


def test_fluxes_in_apertures_change_by_far_less_than_their_errors(tmp_path, make_image):
    image = make_image(3, shape=(1024, 1000))
    write_calibrated_image(tmp_path / "i.fits", image)
    error = read_calibrated_image(tmp_path / "i.fits").pixels.image - image.pixels.image
    sums = error[:1024, :992].reshape(128, 8, 124, 8).sum(axis=(1, 3))
    flux_error = 8 * 10.0
    assert abs(sums.mean()) < 1e-3 * flux_error
    assert sums.std() < 0.02 * flux_error


def test_variance_is_kept_to_a_percent_and_stays_positive(tmp_path, make_image):
    image = make_image(4)
    variance = image.pixels.variance.copy()
    variance[10:20] *= 1000.0
    variance[0, 0] = np.inf
    image = replace(image, pixels=replace(image.pixels, variance=variance))
    write_calibrated_image(tmp_path / "i.fits", image)
    back = read_calibrated_image(tmp_path / "i.fits").pixels.variance
    assert np.isinf(back[0, 0])
    good = np.isfinite(variance)
    assert_allclose(back[good], variance[good], rtol=0.0125)
    assert (back > 0).all()


def test_pixels_without_value_stay_so_and_do_not_spoil_their_neighbours(tmp_path, make_image):
    image = make_image(5)
    pixels = image.pixels.image.copy()
    pixels[5, :] = np.nan
    pixels[7, 7] = 3e9
    image = replace(image, pixels=replace(image.pixels, image=pixels))
    write_calibrated_image(tmp_path / "i.fits", image)
    back = read_calibrated_image(tmp_path / "i.fits").pixels.image
    assert_array_equal(np.isnan(back), np.isnan(pixels))
    is_normal = np.isfinite(pixels) & (pixels < 1e6)
    assert np.abs(back - pixels)[is_normal].max() < 10.0 / 16.0


def test_a_pixel_of_endless_variance_does_not_keep_the_others_from_being_compressed(tmp_path, make_image):
    image, path = make_image(1), tmp_path / "i.fits"
    plain = image.pixels
    variance = plain.variance.copy()
    variance[3, 4] = 1e13 * np.median(plain.variance)
    handed_on = write_and_restore(path, replace(image, pixels=MaskedImage(plain.image, variance, plain.mask)))
    with fits.open(path, disable_image_compression=True) as file:
        assert file["VARIANCE"].header["ZCMPTYPE"] == "RICE_1"
    back = read_calibrated_image(path).pixels.variance
    assert_array_equal(back, handed_on.pixels.variance)
    assert np.isposinf(back[3, 4])
    others = np.isfinite(plain.variance)
    others[3, 4] = False
    assert_allclose(back[others], plain.variance[others], rtol=0.02)


@pytest.mark.parametrize("shape", [(300, 520), (48, 64)])
@pytest.mark.parametrize("noise", [10.0, 0.0])
def test_what_is_handed_on_in_memory_is_what_the_file_gives_to_the_bit(tmp_path, make_image, shape, noise):
    image = make_image(9, shape=shape, names=("a", "b"), value=np.float32(0.1))
    planes = [plane.copy() for plane in (image.pixels.image, image.pixels.variance)]
    planes[0][5, :], planes[0][7, 7] = np.nan, np.inf
    planes[1][9, 3:9] = np.inf
    if noise == 0.0:  # leaves no step to round to
        planes[1][:] = 0.0
    depth = DepthMap(np.full((3, 3), 21.5, np.float32), shape)
    image = replace(image, pixels=MaskedImage(*planes, image.pixels.mask), depth=depth)
    handed = write_and_restore(tmp_path / "a.fits", image)
    write_calibrated_image(tmp_path / "b.fits", image)
    read = read_calibrated_image(tmp_path / "b.fits")
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()
    for name in ("image", "variance", "mask"):
        assert getattr(handed.pixels, name).tobytes() == getattr(read.pixels, name).tobytes()
    assert (handed.metadata, handed.photocal, handed.coverage) == (read.metadata, read.photocal, None)
    assert handed.wcs.to_header() == read.wcs.to_header()
    assert handed.psf.coefficients.tobytes() == read.psf.coefficients.tobytes()
    assert handed.depth.limit.tobytes() == read.depth.limit.tobytes()


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (129, 127), (48, 64)])
def test_odd_shapes_survive(tmp_path, make_image, shape):
    image = make_image(6, shape=(max(shape[0], 4), max(shape[1], 5)))
    ny, nx = shape
    cut = [plane[:ny, :nx] for plane in (image.pixels.image, image.pixels.variance, image.pixels.mask)]
    image = replace(image, pixels=MaskedImage(*cut), psf=replace(image.psf, shape=shape))
    write_calibrated_image(tmp_path / "i.fits", image)
    assert_allclose(read_calibrated_image(tmp_path / "i.fits").pixels.image, cut[0], atol=1.0)


def test_an_image_without_known_noise_is_kept_exactly(tmp_path, make_image):
    image = make_image(7)
    image = replace(image, pixels=replace(image.pixels, variance=np.zeros(image.shape, np.float32)))
    write_calibrated_image(tmp_path / "i.fits", image)
    assert_array_equal(read_calibrated_image(tmp_path / "i.fits").pixels.image, image.pixels.image)


def test_the_same_image_is_the_same_file(tmp_path, make_image):
    for name in ("a.fits", "b.fits"):
        write_calibrated_image(tmp_path / name, make_image(8, note="same"))
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()


def test_astropy_alone_understands_the_file(tmp_path, make_image):
    image = make_image(9, seeing=2.5, exposure={"a": 1})
    write_calibrated_image(tmp_path / "i.fits", image)
    with fits.open(tmp_path / "i.fits") as hdus:
        hdus.verify("exception")
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "IMAGE", "VARIANCE", "MASK", "PSF", "METADATA"]
        assert hdus[0].header["GS SEEING"] == 2.5
        assert hdus[0].header["ZP"] == pytest.approx(26.123456789)
        assert hdus["MASK"].header["MP_BAD"] == 0
        assert hdus["MASK"].header["MP_REFERENCE_MASKED"] == 12
        assert json.loads(hdus["METADATA"].data["json"][0])["exposure"] == {"a": 1}
        ra, dec = WCS(hdus["IMAGE"].header).pixel_to_world_values(12.0, 34.0)
    expected = image.wcs.pixel_to_sky(x=12.0, y=34.0)
    assert_allclose((ra, dec), expected, atol=1e-10)


def test_mask_bits_follow_the_names_in_the_file(tmp_path, make_image):
    image = make_image(10)
    write_calibrated_image(tmp_path / "i.fits", image)
    with fits.open(tmp_path / "i.fits", mode="update") as hdus:
        hdus["MASK"].header["MP_SATURATED"] = 20
        moved = hdus["MASK"].data.copy()
        is_set = moved & int(MaskPlane.SATURATED) != 0
        moved[is_set] ^= int(MaskPlane.SATURATED) | (1 << 20)
        hdus["MASK"].data = moved
    back = read_calibrated_image(tmp_path / "i.fits")
    assert_array_equal(back.pixels.mask, image.pixels.mask)


def test_what_is_no_calibrated_image_is_told_so(tmp_path):
    (tmp_path / "text.fits").write_text("hello")
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(tmp_path / "other.fits")
    with pytest.raises(DataError, match="not a readable FITS"):
        read_calibrated_image(tmp_path / "text.fits")
    with pytest.raises(DataError, match="has no IMAGE extension"):
        read_calibrated_image(tmp_path / "other.fits")
    assert not is_calibrated_image(tmp_path / "other.fits")


def test_a_failed_write_leaves_nothing_behind(tmp_path, make_image):
    image = make_image(11, bad={"set": {1, 2}})
    with pytest.raises(TypeError, match="not JSON-able"):
        write_calibrated_image(tmp_path / "i.fits", image)
    assert list(Path(tmp_path).iterdir()) == []


@pytest.mark.parametrize(("kind", "level"), [("bias", 0.0), ("dark", 0.02), ("flat", 1.0)])
def test_a_master_comes_back_with_its_facts(tmp_path, make_image, kind, level):
    noise = make_image(12, shape=(256, 200)).pixels
    sigma = 1e-3
    pixels = MaskedImage(
        (level + noise.image / 10.0 * sigma).astype(np.float32), np.full(noise.shape, sigma**2, np.float32), noise.mask
    )
    master = CalibrationMaster(kind, 3, pixels, 60000.123, 20, "tiny g" if kind == "flat" else None, {"gain": [1.5]})
    write_calibration_master(tmp_path / "m.fits", master)
    back = read_calibration_master(tmp_path / "m.fits")
    facts = ("kind", "detector_id", "mjd_tai", "n_frames", "physical_filter", "metadata")
    assert [getattr(back, name) for name in facts] == [getattr(master, name) for name in facts]
    assert read_master_time(tmp_path / "m.fits") == 60000.123
    error = back.pixels.image.astype(float) - pixels.image
    assert error.std() < 0.02 * sigma
    assert abs(error.mean()) < 1e-3 * sigma
    assert_array_equal(back.pixels.mask, pixels.mask)
