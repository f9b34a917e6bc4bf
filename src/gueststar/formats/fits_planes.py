"""Image planes as tile-compressed FITS extensions, and metadata beside them.

Integer planes are lossless. Float planes are quantised in steps that the caller derives from the known
noise, with subtractive dithering, so that the rounding is white noise of ``step / sqrt(12)`` without
bias (Pence et al. 2010, PASP 122, 1065); NaN is kept. RICE tiles are what fpack writes: astropy, CFITSIO
and DS9 open them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from gueststar.core.bits import MaskPlane
from gueststar.core.errors import DataError
from gueststar.formats.atomic import appearing_whole
from gueststar.formats.fits_layout import BLOCK
from gueststar.formats.tile_compression import Boxes, Extension, compress, decompress

Pixel = TypeVar("Pixel", np.float32, np.int32, np.int16)

TILE = (256, 256)
"""Tile of the compression, (ny, nx): square, so that a cut-out reads few; large, so that a plane has few."""

METADATA_HDU = "METADATA"
"""Table of one cell that holds all metadata as JSON, exactly."""


def float_plane(
    name: str,
    plane: NDArray[np.float32],
    header: Mapping[str, Any],
    *,
    step: float | None,
    restored: NDArray[np.float32] | None = None,
) -> Extension | fits.ImageHDU:
    """Return a float plane as an extension, rounded to multiples of ``step`` (dithered); infinities become NaN.

    ``restored``, of the same shape, is filled with what reading the extension gives.

    Without a step, or where its range is too great for that, it is kept as it is, uncompressed. (Lossless compression
    of noise gains little; and gzip writes the time of day, so the same product would not be the same file.)
    """
    packed = compress(name, plane, header, tile=_tile_of(plane), step=step, restored=restored) if step else None
    if packed is None and restored is not None:
        restored[:] = plane
    return packed or fits.ImageHDU(plane, _header(header), name=name)


def integer_plane(name: str, plane: NDArray[Any], header: Mapping[str, Any]) -> Extension:
    """Return an integer plane as a lossless extension."""
    packed = compress(name, plane, header, tile=_tile_of(plane))
    assert packed is not None  # integers are not rounded
    return packed


def mask_cards() -> dict[str, tuple[int, str]]:
    """Return ``MP_<NAME>`` cards that tell which bit each mask plane is, from 0."""
    cards = {}
    for plane in MaskPlane:
        key = f"MP_{plane.name}"
        cards[key if len(key) <= 8 else f"HIERARCH {key}"] = (int(plane).bit_length() - 1, "bit of this mask plane")
    return cards


def mask_of(hdu: Any) -> NDArray[np.int32]:
    """Return a mask plane in this code's bits, whichever bits the file's ``MP_`` cards say it uses."""
    return mask_in_our_bits(np.ascontiguousarray(hdu.data, dtype=np.int32), hdu.header)


def mask_in_our_bits(mask: NDArray[np.int32], header: fits.Header) -> NDArray[np.int32]:
    """Return a mask in this code's bits, whichever bits the ``MP_`` cards of its header say it uses."""
    stated = {key.upper()[3:]: int(header[key]) for key in header if key.upper().startswith("MP_")}
    ours = {str(plane.name): int(plane).bit_length() - 1 for plane in MaskPlane}
    if not stated or all(ours.get(name) == bit for name, bit in stated.items()):
        return mask
    moved = np.zeros_like(mask)
    for name, bit in stated.items():
        if name in ours:
            moved |= ((mask >> bit) & 1) << ours[name]
    return moved


def metadata_hdu(metadata: Mapping[str, Any]) -> Extension:
    """Return metadata as a table of one cell of JSON."""
    text = json.dumps(metadata, default=_plain).encode("ascii")
    cards = [
        ("XTENSION", "BINTABLE", "binary table extension"),
        ("BITPIX", 8, "array data type"),
        ("NAXIS", 2, "number of array dimensions"),
        ("NAXIS1", max(len(text), 1), "length of dimension 1"),
        ("NAXIS2", 1, "length of dimension 2"),
        ("PCOUNT", 0, "number of group parameters"),
        ("GCOUNT", 1, "number of groups"),
        ("TFIELDS", 1, "number of table fields"),
        ("TTYPE1", "json"),
        ("TFORM1", f"{max(len(text), 1)}A"),
        ("EXTNAME", METADATA_HDU, "extension name"),
    ]
    return Extension(fits.Header(cards), text or b"\0")


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


def write_hdus(path: Path | str, hdus: Sequence[Any]) -> None:
    """Write a FITS file of astropy's HDUs and of `Extension`, the primary first; it appears whole or not at all."""
    with appearing_whole(Path(path)) as temporary, temporary.open("wb") as stream:
        for hdu in hdus:
            if isinstance(hdu, Extension):
                stream.write(hdu.header.tostring(padding=True).encode("ascii"))
                stream.write(hdu.data)
                stream.write(b"\0" * (-len(hdu.data) % BLOCK))
            else:
                stream.write(_bytes_of(hdu))


def _bytes_of(hdu: Any) -> bytes:
    """Return one header and its data as they stand in a file.

    A new image or empty primary is what astropy makes of it, without the checks that cost it ten times as long.
    """
    if type(hdu) in (fits.PrimaryHDU, fits.ImageHDU) and (hdu.data is None or hdu.data.dtype.kind == "f"):
        data = b"" if hdu.data is None else hdu.data.astype(hdu.data.dtype.newbyteorder(">")).tobytes()
        return bytes(hdu.header.tostring(padding=True).encode("ascii")) + data + b"\0" * (-len(data) % BLOCK)
    stream, is_first = io.BytesIO(), isinstance(hdu, fits.PrimaryHDU)
    fits.HDUList([hdu] if is_first else [fits.PrimaryHDU(), hdu]).writeto(stream, output_verify="exception")
    return stream.getvalue()[0 if is_first else BLOCK :]


class PlanesFile:
    """A file of planes that `write_hdus` wrote, open for reading."""

    def __init__(self, path: Path | str) -> None:
        self.path = path
        try:
            self.hdus = fits.open(path, memmap=False, disable_image_compression=True)
        except (OSError, ValueError) as problem:
            raise DataError(f"{path}: not a readable FITS file: {problem}") from None

    def __enter__(self) -> PlanesFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.hdus.close()

    def __contains__(self, name: str) -> bool:
        return name in self.hdus

    def hdu(self, name: str) -> Any:
        """Return an extension, a compressed image as its table; DataError if the file has none of that name."""
        return hdu_named(self.hdus, name, self.path)

    def names(self) -> tuple[str, ...]:
        """Return the names of all extensions, in order."""
        return tuple(str(hdu.name) for hdu in self.hdus)

    def pixels(self, name: str, kind: type[Pixel], *, near: Boxes | None = None) -> NDArray[Pixel]:
        """Return the pixels of an extension as numbers of ``kind``; DataError if the file has none of that name.

        With ``near``, pixels of compressed tiles that no box touches are 0 and cost nothing.
        """
        hdu, pixels = self.hdu(name), None
        if hdu.header.get("ZIMAGE") is True:
            where = hdu.fileinfo()
            if near is None:
                with Path(self.path).open("rb") as stream:
                    stream.seek(where["datLoc"])
                    pixels = decompress(hdu.header, stream.read(where["datSpan"]))
            else:
                data = np.memmap(self.path, np.uint8, "r", offset=where["datLoc"], shape=(where["datSpan"],))
                pixels = decompress(hdu.header, data, near=near)
            if pixels is None:
                with fits.open(self.path, memmap=False) as hdus:
                    pixels = hdus[name].data
        return np.ascontiguousarray(hdu.data if pixels is None else pixels, dtype=kind)

    def mask(self, name: str = "MASK", *, near: Boxes | None = None) -> NDArray[np.int32]:
        """Return a mask plane in this code's bits; with ``near`` as `pixels` does."""
        return mask_in_our_bits(self.pixels(name, np.int32, near=near), self.hdu(name).header)

    def metadata(self) -> dict[str, Any]:
        """Return the metadata that `metadata_hdu` wrote; DataError if there are none."""
        return dict(json.loads(str(self.hdu(METADATA_HDU).data["json"][0])))


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
