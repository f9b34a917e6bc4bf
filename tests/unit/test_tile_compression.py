"""Tile-compressed planes: what we write others read alike, what others write we read as astropy does."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from gueststar.formats import fits_planes
from gueststar.formats.tile_compression import compress, decompress


def opened(name: str, plane: np.ndarray, *, step: float | None = None, tile: tuple[int, int] = (64, 64)) -> np.ndarray:
    """Return what astropy reads of a plane that we packed."""
    packed = compress(name, plane, {"BUNIT": "electron"}, tile=tile, step=step)
    assert packed is not None
    text = fits.PrimaryHDU().header.tostring(padding=True) + packed.header.tostring(padding=True)
    data = packed.data + b"\0" * (-len(packed.data) % 2880)
    with fits.open(io.BytesIO(text.encode() + data)) as hdus:
        assert hdus[1].header["BUNIT"] == "electron"
        return np.array(hdus[1].data)


def ours_and_astropys(hdu: fits.CompImageHDU) -> tuple[np.ndarray | None, np.ndarray]:
    """Return what we and astropy read of an extension that astropy packed."""
    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(stream)
    packed = stream.getvalue()
    with fits.open(io.BytesIO(packed)) as hdus:
        theirs = np.array(hdus[1].data)
    with fits.open(io.BytesIO(packed), disable_image_compression=True) as hdus:
        where = hdus[1].fileinfo()
        data = packed[where["datLoc"] : where["datLoc"] + where["datSpan"]]
        return decompress(hdus[1].header, data), theirs


@pytest.mark.parametrize("spread", [0, 1, 30, 5000, 2**31 - 1])
def test_integers_of_any_spread_are_read_by_astropy_as_they_were(spread: int) -> None:
    rng = np.random.default_rng(spread)
    plane = rng.integers(-spread - 1, spread, (97, 131), endpoint=True).astype(np.int32)
    np.testing.assert_array_equal(opened("MASK", plane), plane)


def test_sparse_bits_are_read_by_astropy_as_they_were() -> None:
    plane = np.zeros((256, 300), np.int32)
    plane[np.random.default_rng(1).random(plane.shape) < 0.01] = 1 << 30
    np.testing.assert_array_equal(opened("MASK", plane), plane)


def test_floats_are_within_half_a_step_and_what_is_not_finite_is_nan() -> None:
    rng = np.random.default_rng(2)
    plane = rng.normal(0.0, 10.0, (150, 200)).astype(np.float32)
    plane[:80, :70], plane[100, 100], plane[149, 199] = np.nan, np.inf, -np.inf
    read = opened("IMAGE", plane, step=0.5)
    is_good = np.isfinite(plane)
    assert np.isnan(read[~is_good]).all()
    assert np.abs(read - plane)[is_good].max() <= 0.2501


def test_rounding_is_white_and_without_bias_even_where_the_image_is_flat() -> None:
    plane = np.full((512, 512), 3.3, np.float32)
    error = opened("IMAGE", plane, step=1.0, tile=(256, 256)) - plane
    assert abs(error.mean()) < 0.003
    assert error.std() == pytest.approx(1.0 / np.sqrt(12.0), rel=0.01)


def test_a_plane_of_nan_is_one() -> None:
    assert np.isnan(opened("IMAGE", np.full((20, 30), np.nan, np.float32), step=1.0)).all()


def test_a_range_too_great_for_its_step_is_kept_as_it_is(tmp_path: Path) -> None:
    plane = np.array([[0.0, 1e12], [1.0, 2.0]], np.float32)
    fits_planes.write_hdus(tmp_path / "a.fits", [fits.PrimaryHDU(), fits_planes.float_plane("A", plane, {}, step=1e-3)])
    with fits_planes.PlanesFile(tmp_path / "a.fits") as file:
        np.testing.assert_array_equal(file.pixels("A", np.float32), plane)


@pytest.mark.parametrize("kind", [np.int16, np.uint16, np.int32])
@pytest.mark.parametrize("tile", [(1, 131), (64, 50)])
def test_integers_that_astropy_packed_are_read_as_astropy_reads_them(kind: type, tile: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    pixels = rng.normal(3000.0, 40.0, (97, 131)).astype(kind)
    pixels[5, 5:60] = np.iinfo(kind).max
    ours, theirs = ours_and_astropys(fits.CompImageHDU(pixels, compression_type="RICE_1", tile_shape=tile))
    assert ours is not None
    assert ours.dtype.newbyteorder("=") == theirs.dtype.newbyteorder("=")
    np.testing.assert_array_equal(ours, theirs)


def test_dithered_floats_that_astropy_packed_are_read_as_astropy_reads_them() -> None:
    pixels = np.random.default_rng(4).normal(0.0, 5.0, (200, 170)).astype(np.float32)
    hdu = fits.CompImageHDU(
        pixels, compression_type="RICE_1", tile_shape=(64, 64), quantize_level=-0.3, quantize_method=1, dither_seed=77
    )
    ours, theirs = ours_and_astropys(hdu)
    assert ours is not None
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("how", [{"compression_type": "GZIP_2"}, {"compression_type": "HCOMPRESS_1"}])
def test_other_codes_are_left_to_astropy(how: dict[str, str]) -> None:
    pixels = np.arange(64 * 64, dtype=np.int32).reshape(64, 64)
    assert ours_and_astropys(fits.CompImageHDU(pixels, tile_shape=(64, 64), **how))[0] is None


def test_damaged_code_is_refused_or_read_but_never_read_beyond_its_end() -> None:
    rng = np.random.default_rng(5)
    packed = compress("MASK", rng.integers(0, 500, (64, 64)).astype(np.int32), {}, tile=(16, 16))
    assert packed is not None
    for trial in range(200):
        data = np.frombuffer(packed.data, np.uint8).copy()
        data[rng.integers(0, data.size, 20)] = rng.integers(0, 256, 20)
        found = decompress(packed.header, data[: data.size - trial].tobytes())
        assert found is None or found.shape == (64, 64)


@pytest.mark.parametrize("step", [None, 0.25])
def test_a_part_is_read_as_it_is_in_the_whole_and_nothing_else_is(tmp_path: Path, step: float | None) -> None:
    """Tiles are dithered by their number: one that is read alone must know its own."""
    rng = np.random.default_rng(4)
    plane = rng.normal(0.0, 20.0, (600, 700))
    path, near = tmp_path / "a.fits", [(-3, 4, 690, 720), (250, 260, 100, 101), (599, 599, 511, 512)]
    if step is None:
        hdu = fits_planes.integer_plane("A", plane.astype(np.int32), {})
    else:
        plane[10, 695] = np.nan
        hdu = fits_planes.float_plane("A", plane.astype(np.float32), {}, step=step)
    fits_planes.write_hdus(path, [fits.PrimaryHDU(), hdu])
    with fits_planes.PlanesFile(path) as file:
        kind = np.int32 if step is None else np.float32
        whole, part = file.pixels("A", kind), file.pixels("A", kind, near=near)
        nothing = file.pixels("A", kind, near=[(-40, -30, 5, 9), (5, 9, 700, 720)])
    is_read = np.zeros(plane.shape, bool)
    is_read[:256, 512:] = is_read[:512, :256] = is_read[512:, 256:] = True
    np.testing.assert_array_equal(part[is_read], whole[is_read])
    assert not part[~is_read].any()
    assert not nothing.any()
