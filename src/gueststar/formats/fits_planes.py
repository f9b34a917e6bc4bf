"""Image planes as tile-compressed FITS extensions, and metadata beside them.

Integer planes are lossless. Float planes are quantised in steps that the caller derives from the known
noise, with subtractive dithering, so that the rounding is white noise of ``step / sqrt(12)`` without
bias (Pence et al. 2010, PASP 122, 1065); NaN is kept. RICE tiles are what fpack writes: astropy, CFITSIO
and DS9 open them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from gueststar.core.bits import MaskPlane
from gueststar.core.errors import DataError
from gueststar.formats.atomic import appearing_whole

TILE = (256, 256)
"""Tile of the compression, (ny, nx): square, so that a cut-out reads few; large, so that a plane has few."""

METADATA_HDU = "METADATA"
"""Table of one cell that holds all metadata as JSON, exactly."""


def float_plane(
    name: str, plane: NDArray[np.float32], header: Mapping[str, Any], *, step: float | None
) -> fits.CompImageHDU | fits.ImageHDU:
    """Return a float plane as an extension, rounded to multiples of ``step`` (dithered).

    Without a step it is kept as it is, uncompressed. (Lossless compression of noise gains little; and gzip
    writes the time of day, so the same product would not be the same file.)
    """
    if not step:
        return fits.ImageHDU(plane, _header(header), name=name)
    return fits.CompImageHDU(
        plane, _header(header), name=name, tile_shape=_tile_of(plane),
        compression_type="RICE_1", quantize_level=-step, quantize_method=1, dither_seed=1,
    )  # fmt: skip


def integer_plane(name: str, plane: NDArray[Any], header: Mapping[str, Any]) -> fits.CompImageHDU:
    """Return an integer plane as a lossless extension."""
    return fits.CompImageHDU(plane, _header(header), name=name, tile_shape=_tile_of(plane), compression_type="RICE_1")


def without_infinities(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a plane with NaN for every value that is not finite: the quantisation knows NaN only."""
    is_infinite = np.isinf(plane)
    return np.where(is_infinite, np.float32(np.nan), plane) if is_infinite.any() else plane


def mask_cards() -> dict[str, tuple[int, str]]:
    """Return ``MP_<NAME>`` cards that tell which bit each mask plane is, from 0."""
    cards = {}
    for plane in MaskPlane:
        key = f"MP_{plane.name}"
        cards[key if len(key) <= 8 else f"HIERARCH {key}"] = (int(plane).bit_length() - 1, "bit of this mask plane")
    return cards


def mask_of(hdu: Any) -> NDArray[np.int32]:
    """Return a mask plane in this code's bits, whichever bits the file's ``MP_`` cards say it uses."""
    mask = np.ascontiguousarray(hdu.data, dtype=np.int32)
    stated = {key.upper()[3:]: int(value) for key, value in hdu.header.items() if key.upper().startswith("MP_")}
    ours = {str(plane.name): int(plane).bit_length() - 1 for plane in MaskPlane}
    if not stated or all(ours.get(name) == bit for name, bit in stated.items()):
        return mask
    moved = np.zeros_like(mask)
    for name, bit in stated.items():
        if name in ours:
            moved |= ((mask >> bit) & 1) << ours[name]
    return moved


def metadata_hdu(metadata: Mapping[str, Any]) -> fits.BinTableHDU:
    """Return metadata as a table of one cell of JSON."""
    text = json.dumps(metadata, default=_plain).encode("ascii")
    column = fits.Column(name="json", format=f"{max(len(text), 1)}A", array=[text])
    return fits.BinTableHDU.from_columns([column], name=METADATA_HDU)


def metadata_of(hdus: fits.HDUList) -> dict[str, Any]:
    """Return the metadata that `metadata_hdu` wrote."""
    return dict(json.loads(str(hdus[METADATA_HDU].data["json"][0])))


def scalar_cards(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain values among ``metadata`` as cards for the reader's eye; JSON holds them exactly."""
    cards: dict[str, Any] = {}
    for key, value in metadata.items():
        plain = _plain(value) if isinstance(value, np.generic) else value
        is_shown = isinstance(plain, bool | int | str) or (isinstance(plain, float) and np.isfinite(plain))
        if not is_shown or not key.isidentifier() or not key.isascii() or len(key) > 40:
            continue
        if isinstance(plain, str) and not (len(plain) <= 60 - len(key) and plain.isascii() and plain.isprintable()):
            continue
        if isinstance(plain, int) and abs(plain) >= 10**18:
            continue
        cards[f"HIERARCH GS {key.upper()}"] = plain
    return cards


def write_hdus(path: Path | str, hdus: list[Any]) -> None:
    """Write a FITS file that appears whole or not at all."""
    with appearing_whole(Path(path)) as temporary:
        fits.HDUList(hdus).writeto(temporary, output_verify="exception")


def open_fits(path: Path | str) -> fits.HDUList:
    """Open a FITS file; DataError if it is none."""
    try:
        return fits.open(path, memmap=False)
    except (OSError, ValueError) as problem:
        raise DataError(f"{path}: not a readable FITS file: {problem}") from None


def hdu_named(hdus: fits.HDUList, name: str, path: Path | str) -> Any:
    """Return an extension; DataError if the file has none of that name."""
    if name not in hdus:
        raise DataError(f"{path}: has no {name} extension")
    return hdus[name]


def _tile_of(plane: NDArray[Any]) -> tuple[int, int]:
    return min(TILE[0], plane.shape[0]), min(TILE[1], plane.shape[1])


def _header(cards: Mapping[str, Any]) -> fits.Header:
    header = fits.Header()
    for key, value in cards.items():
        header[key] = value
    return header


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"metadata of type {type(value).__name__} is not JSON-able")
