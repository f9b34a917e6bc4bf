import bz2
import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from gueststar.cameras.load import load_camera
from gueststar.cameras.translate import translate
from gueststar.core.errors import DataError
from gueststar.formats.raw import pixel_checksum, read_comments, read_detector, read_headers
from gueststar.model.camera import Camera

Writer = Callable[..., Path]


def write_single(path: Path, pixels: np.ndarray, **cards: object) -> Path:
    fits.PrimaryHDU(pixels, fits.Header(cards)).writeto(path, overwrite=True)
    return path


def single_camera(shape: tuple[int, int], **header: object) -> Camera:
    ny, nx = shape
    section = f"[1:{nx},1:{ny}]"
    amplifier = {"name": "A", "data_section": section, "detector_section": section, "gain": 1, "read_noise": 5}
    return Camera.model_validate(
        {
            "name": "single", "site": {"name": "s", "latitude_deg": 0, "longitude_deg": 0}, "pixel_scale_arcsec": 1,
            "filters": [{"physical_filter": "r", "band": "r", "fid": 2}],
            "detectors": [{"id": 0, "name": "D", "shape": shape, "amplifiers": [{**amplifier, "saturation": 6e4}]}],
            "header": {"time": {"keywords": ["DATE-OBS"]}, "default_observation_type": "bias", **header},
        }
    )  # fmt: skip


def test_pixels_are_the_same_plain_gzipped_bzipped_and_tile_compressed(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 65535, (50, 70)).astype(np.uint16)
    plain = write_single(tmp_path / "a.fits", pixels, **{"DATE-OBS": "2024-01-01T00:00:00"})
    zipped, bzipped = tmp_path / "a.fits.gz", tmp_path / "a.fits.bz2"
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    half = len(plain.read_bytes()) // 2
    bzipped.write_bytes(bz2.compress(plain.read_bytes()[:half]) + bz2.compress(plain.read_bytes()[half:]))
    tiled = tmp_path / "a.fits.fz"
    packed = fits.CompImageHDU(pixels, header=fits.getheader(plain), compression_type="RICE_1")
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(tiled)
    camera = single_camera(pixels.shape)
    for path in (plain, zipped, bzipped, tiled):
        info = translate(camera, read_headers(path)).info
        read = read_detector(path, camera.detectors[0], info).amplifiers[0].data
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, pixels)
    assert len({pixel_checksum(path) for path in (plain, zipped, bzipped, tiled)}) == 1


def test_one_changed_pixel_changes_the_checksum_and_a_changed_card_does_not(tmp_path: Path) -> None:
    pixels = np.zeros((20, 30), np.int16)
    first = pixel_checksum(write_single(tmp_path / "a.fits", pixels, OBJECT="one"))
    assert first == pixel_checksum(write_single(tmp_path / "b.fits", pixels, OBJECT="two"))
    pixels[3, 4] = 1
    assert first != pixel_checksum(write_single(tmp_path / "c.fits", pixels, OBJECT="one"))


def test_scaled_integers_are_read_as_the_numbers_they_stand_for(tmp_path: Path) -> None:
    path = tmp_path / "scaled.fits"
    hdu = fits.PrimaryHDU(np.arange(600, dtype=np.float32).reshape(20, 30) / 4.0)
    hdu.scale("int16", bzero=5.0, bscale=0.25)
    hdu.writeto(path)
    camera = single_camera((20, 30))
    info = translate(camera, read_headers(write_single(tmp_path / "b.fits", np.zeros((20, 30)), **DATE))).info
    read = read_detector(path, camera.detectors[0], info).amplifiers[0].data
    np.testing.assert_allclose(read, np.arange(600).reshape(20, 30) / 4.0, atol=0.13)


DATE = {"DATE-OBS": "2024-01-01T00:00:00"}


def test_amplifiers_and_overscans_come_from_their_own_extensions(ztf_file: Writer) -> None:
    path, camera = ztf_file(), load_camera("ztf")
    translation = translate(camera, read_headers(path))
    assert translation.detector_ids == (20, 21, 22, 23)
    raw = read_detector(path, camera.detector(22), translation.info)
    assert raw.amplifiers[0].data.mean() == 2003.0
    assert raw.amplifiers[0].overscans[0].shape == (3080, 30)
    assert raw.amplifiers[0].overscans[0].mean() == 1003.0
    assert raw.header["CCD_ID"] == 6
    assert raw.header["NAXIS1"] == 3072


@pytest.mark.parametrize("compress", [False, True])
def test_every_truncation_of_a_multi_extension_file_is_noticed(simcam_file: Writer, compress: bool) -> None:
    path = simcam_file(compress=compress)
    whole = path.read_bytes()
    for keep in (1, 100, 2879, 2880, 5760 - 1, 5760 + 17, len(whole) // 2, len(whole) - 2881):
        path.write_bytes(whole[:keep])
        with pytest.raises(DataError, match=r"exposure\.fits"):
            translate(load_camera("simcam"), read_headers(path))


def test_file_cut_between_extensions_is_refused_by_nextend_or_warned_of_by_detector(simcam_file: Writer) -> None:
    path = simcam_file()
    with fits.open(path) as hdus:
        fits.HDUList([hdu.copy() for hdu in hdus[:5]]).writeto(path.with_name("cut.fits"))
        hdus[0].header["NEXTEND"] = 8
        fits.HDUList([hdu.copy() for hdu in hdus[:5]]).writeto(path.with_name("cut2.fits"))
    translation = translate(load_camera("simcam"), read_headers(path.with_name("cut.fits")))
    assert translation.detector_ids == (0, 1)
    assert len([warning for warning in translation.warnings if "not in the file" in warning]) == 2
    with pytest.raises(DataError, match="NEXTEND = 8 but it holds 4"):
        read_headers(path.with_name("cut2.fits"))


def test_missing_padding_at_the_end_is_no_truncation(tmp_path: Path) -> None:
    path = write_single(tmp_path / "a.fits", np.ones((20, 30), np.int16))
    path.write_bytes(path.read_bytes()[: 2880 + 20 * 30 * 2])
    assert read_headers(path).images[0].shape == (20, 30)
    assert pixel_checksum(path)
    path.write_bytes(path.read_bytes()[: 2880 + 20 * 30 * 2 - 1])
    with pytest.raises(DataError, match="truncated: HDU 0 has 1199 bytes of data, its header says 1200"):
        read_headers(path)


def test_truncated_and_damaged_gzip_are_told_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    path = write_single(tmp_path / "a.fits", rng.integers(0, 99, (100, 100)).astype(np.int16))
    packed = gzip.compress(path.read_bytes())
    zipped = tmp_path / "a.fits.gz"
    zipped.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match="truncated"):
        read_headers(zipped)
    zipped.write_bytes(packed[:5000] + b"\x00\xff\x13" * 10 + packed[5030:])
    with pytest.raises(DataError, match="damaged"):
        read_headers(zipped)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>Sign in</html>", "web page"),
        (b"\x00\x01\x02 garbage" * 1000, "not FITS"),
        (b"SIMPLE  =                    T" + b" " * 5000, "no END card"),
        (b"SIMPLE  = " + b"\xff" * 9000, "no END card"),
        (gzip.compress(b"", mtime=0), "empty once decompressed"),
        (gzip.compress(b"<html>Sign in</html>", mtime=0), "web page"),
    ],
)
def test_what_is_no_fits_file_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.fits"
    path.write_bytes(content)
    for read in (read_headers, pixel_checksum):
        with pytest.raises(DataError, match=message) as caught:
            read(path)
        assert "bad.fits" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_missing_file_and_folder_are_data_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.fits", tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            read_headers(path)


def test_header_with_impossible_sizes_is_refused(tmp_path: Path) -> None:
    path = write_single(tmp_path / "a.fits", np.ones((20, 30), np.int16))
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"NAXIS1  =                   30", b"NAXIS1  =                  -30"))
    with pytest.raises(DataError, match="NAXIS1 of HDU 0 is -30"):
        read_headers(path)
    path.write_bytes(whole.replace(b"NAXIS1  =                   30", b"NAXIS1  =             'thirty'"))
    with pytest.raises(DataError, match="NAXIS1"):
        read_headers(path)


def test_flipped_bits_show_where_the_file_carries_its_sum(tmp_path: Path) -> None:
    path = tmp_path / "sum.fits"
    fits.PrimaryHDU(np.arange(5000, dtype=np.int16).reshape(50, 100)).writeto(path, checksum=True)
    assert pixel_checksum(path)
    damaged = bytearray(path.read_bytes())
    damaged[4000] ^= 1
    path.write_bytes(bytes(damaged))
    with pytest.raises(DataError, match="DATASUM"):
        pixel_checksum(path)


def test_damaged_tiles_are_a_data_error(tmp_path: Path) -> None:
    path = tmp_path / "tiles.fits.fz"
    pixels = np.random.default_rng(2).integers(0, 900, (60, 80)).astype(np.uint16)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(pixels)]).writeto(path)
    damaged = bytearray(path.read_bytes())
    start = len(damaged) - 2880 * 2
    damaged[start:] = b"\xff" * len(damaged[start:])
    path.write_bytes(bytes(damaged))
    try:
        changed = pixel_checksum(path)
    except DataError:
        return
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(pixels)]).writeto(path, overwrite=True)
    assert changed != pixel_checksum(path)


def test_cards_that_are_not_proper_fits_still_give_their_text(tmp_path: Path) -> None:
    path = write_single(tmp_path / "a.fits", np.ones((4, 5), np.int16), RA="XXXXXXXXXXXX", BLANK1="")
    path.write_bytes(path.read_bytes().replace(b"'XXXXXXXXXXXX'", b"12:34:56.7 / u"))
    cards = read_headers(path).primary
    assert cards["RA"] == "12:34:56.7"
    assert cards["BLANK1"] == ""


def test_comments_are_told_on_request(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    hdu = fits.PrimaryHDU(np.ones((4, 5), np.int16))
    hdu.header["EXPTIME"] = (3.0, "seconds")
    hdu.writeto(path)
    assert read_comments(path)["EXPTIME"] == "seconds"


def test_section_beyond_the_image_names_file_and_section(tmp_path: Path) -> None:
    path = write_single(tmp_path / "small.fits", np.ones((10, 10), np.int16), **DATE)
    with pytest.raises(
        DataError, match=r"small\.fits: extension 0 is 10 x 10 pixels, too small for section \[1:30,1:20\]"
    ):
        translate(single_camera((20, 30)), read_headers(path))


@pytest.mark.real_data
def test_real_frames_give_the_pixels_astropy_gives(shared_data: Path) -> None:
    cases = {
        "lowell42": shared_data / "lowell42_5945/object/20190326.0128.fits.gz",
        "microobs": shared_data / "microobs_hatp32b/HATP-32171220013343.FITS.gz",
    }
    for name, path in cases.items():
        camera = load_camera(name)
        raw = read_detector(path, camera.detectors[0], translate(camera, read_headers(path)).info)
        expected = fits.getdata(path).astype(np.float32)
        x0, y0 = {"lowell42": (17, 0), "microobs": (2, 8)}[name]
        ny, nx = camera.detectors[0].shape
        np.testing.assert_array_equal(raw.amplifiers[0].data, expected[y0 : y0 + ny, x0 : x0 + nx])
