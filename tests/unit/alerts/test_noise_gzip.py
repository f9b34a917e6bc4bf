"""Gzip files of pixels are what any reader takes for gzip, of every kind of data."""

from __future__ import annotations

import gzip
import zlib

import numpy as np
import pytest

from gueststar.formats.noise_gzip import gzipped


def _is_whole(packed: bytes, plain: bytes) -> bool:
    """Return whether a strict reader gets the data back, and nothing is left over."""
    reader = zlib.decompressobj(31)
    return reader.decompress(packed) == plain and reader.eof and not reader.unused_data


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5000])
def test_noise_comes_back(n: int) -> None:
    plain = np.random.default_rng(n).bytes(n)
    assert gzip.decompress(gzipped(plain)) == plain
    assert _is_whole(gzipped(plain), plain)


def test_runs_of_every_length_come_back() -> None:
    for n in range(1, 600):
        plain = b"a" + b"b" * n + b"c"
        assert _is_whole(gzipped(plain), plain)
        assert _is_whole(gzipped(b"b" * n), b"b" * n)


def test_codes_are_never_longer_than_the_format_allows() -> None:
    n_of_each = [1, 1]
    while len(n_of_each) < 24:  # Huffman codes of such numbers are as long as codes can be
        n_of_each.append(n_of_each[-1] + n_of_each[-2])
    values = np.repeat(np.arange(24, dtype=np.uint8), n_of_each)
    plain = np.random.default_rng(1).permutation(values).tobytes()
    assert _is_whole(gzipped(plain), plain)


def test_pixels_take_hardly_more_room_than_zlib_needs_for_them() -> None:
    pixels = np.random.default_rng(2).normal(100.0, 20.0, (63, 63)).astype(">f4").tobytes()
    plain = b"SIMPLE  =".ljust(2880) + pixels + bytes(-len(pixels) % 2880)
    packed = gzipped(plain)
    assert _is_whole(packed, plain)
    assert len(packed) < 1.01 * len(zlib.compress(plain, 1))
