"""Write raw exposures as FITS: integer pixels, one or many extensions, plain or tile-compressed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from gueststar.core.errors import DataError


@dataclass(frozen=True, eq=False)
class RawImage:
    """One image of a raw file."""

    extension: int | str
    """HDU number or name; 0: the only image of the file."""
    pixels: NDArray[np.uint16]
    cards: dict[str, Any] = field(default_factory=dict)


def write_raw(
    path: str | Path, cards: Mapping[str, Any], images: Sequence[RawImage], *, compression: Literal["rice", "none"]
) -> None:
    """Write a raw file whose primary header has ``cards``; under a temporary name first, then renamed.

    The same arguments give the same bytes. Images are put at the HDU numbers they name, those with names after
    them. An image of extension 0 is the primary (plain) or the first extension (compressed) and takes the cards.
    """
    primary, hdus = _header(cards), fits.HDUList()
    if [image.extension for image in images] == [0]:
        merged = _header({**cards, **images[0].cards})
        if compression == "none":
            hdus.append(fits.PrimaryHDU(images[0].pixels, header=merged))
        else:
            hdus.extend([fits.PrimaryHDU(), _image_hdu(images[0].pixels, merged, None, compression)])
    else:
        hdus.append(fits.PrimaryHDU(header=primary))
        for image in _in_order(images):
            name = image.extension if isinstance(image.extension, str) else None
            if isinstance(image.extension, int):
                hdus.extend(fits.ImageHDU() for _ in range(image.extension - len(hdus)))
            hdus.append(_image_hdu(image.pixels, _header(image.cards), name, compression))
    _write_atomically(Path(path), hdus)


def _in_order(images: Sequence[RawImage]) -> list[RawImage]:
    numbers = [image.extension for image in images]
    if 0 in numbers or len(set(numbers)) != len(numbers):
        raise DataError(f"images cannot be put at the extensions {numbers}")
    numbered = sorted((i for i in images if isinstance(i.extension, int)), key=lambda i: int(i.extension))
    return [*numbered, *(i for i in images if isinstance(i.extension, str))]


def _image_hdu(
    pixels: NDArray[np.uint16], header: fits.Header, name: str | None, compression: Literal["rice", "none"]
) -> fits.ImageHDU | fits.CompImageHDU:
    if compression == "none":
        return fits.ImageHDU(pixels, header=header, name=name)
    # Tiles of many rows: with one row a tile the bookkeeping takes longer than the compression.
    tile = (min(64, pixels.shape[0]), pixels.shape[1])
    return fits.CompImageHDU(pixels, header=header, name=name, compression_type="RICE_1", tile_shape=tile)


def _header(cards: Mapping[str, Any]) -> fits.Header:
    return fits.Header([(key, value) for key, value in cards.items() if value is not None])


def _write_atomically(path: Path, hdus: fits.HDUList) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            hdus.writeto(stream)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
