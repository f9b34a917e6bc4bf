"""TIFF images: pages as arrays, tags as cards.

A laboratory or video camera's TIFF tells of the exposure in its tags (TIFF 6.0, and private ones of the maker), in
lines of the description such as ``exposure=0.5``, in the file's name or in a text file beside it. All become cards as
a FITS header has them, so that a camera's header mapping reads them alike.
"""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.core.errors import DataError
from gueststar.formats.fits_layout import Buffer

if TYPE_CHECKING:
    from tifffile import TiffFile

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""Classic and big TIFF, of either byte order."""
_LAYOUT = frozenset(
    (
        "NewSubfileType", "SubfileType", "ImageWidth", "ImageLength", "BitsPerSample", "Compression",
        "PhotometricInterpretation", "FillOrder", "StripOffsets", "StripByteCounts", "RowsPerStrip",
        "TileOffsets", "TileByteCounts", "TileWidth", "TileLength", "SamplesPerPixel", "PlanarConfiguration",
        "SampleFormat", "Predictor", "ColorMap", "ExtraSamples",
    )
)  # fmt: skip
"""Tags that tell how the pixels are packed, not of the exposure."""
_TIFF_DATE = re.compile(r"(\d{4}):(\d{2}):(\d{2}) (\d{2}:\d{2}:\d{2}(?:\.\d+)?)")
_PAIR = re.compile(r"\s*([A-Za-z_][\w .-]{0,60}?)\s*[=:]\s*(\S.*?)\s*")
_LONGEST_TEXT = 2000


class TiffPage(NamedTuple):
    """One page (image file directory) of a TIFF file."""

    cards: dict[str, Any]
    """Tags by their names in capitals (``DATETIME``, ``MAKE``; those without a name ``TAG`` and number), the
    date as ISO 8601; pairs within the description by their own names in capitals."""
    shape: tuple[int, int] | None
    """(ny, nx), row 0 as the first that is stored; None: not one plane of numbers (colour, stacks)."""


def is_tiff(start: bytes) -> bool:
    """Return whether a file that begins with these bytes is TIFF."""
    return start[:4] in _MAGIC


def read_tiff_pages(buffer: Buffer, name: str) -> list[TiffPage]:
    """Return every page of a file; DataError (with ``name``) if it is damaged or pixels are missing."""
    with _opened(buffer, name) as tiff:
        pages = []
        for number, page in enumerate(tiff.pages):
            ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False)]
            if not ends or max(ends) > len(buffer):
                raise DataError(
                    f"{name} is truncated: page {number} ends at byte {max(ends, default=0)}; fetch it again"
                )
            is_plane = len(page.shape) == 2 and page.dtype is not None and page.dtype.kind in "uif"
            pages.append(TiffPage(_cards(page), (int(page.shape[0]), int(page.shape[1])) if is_plane else None))
    if not pages:
        raise DataError(f"{name} is TIFF without a page")
    return pages


def decode_tiff_page(buffer: Buffer, number: int, name: str) -> NDArray[Any]:
    """Return the pixels of one page, [y, x]."""
    with _opened(buffer, name) as tiff:
        try:
            return np.asarray(tiff.pages[number].asarray())
        except (ValueError, RuntimeError, ImportError, KeyError, OSError) as error:
            raise DataError(f"{name} is damaged, or packed in a way that is not known here: {error}") from error


def cards_of_text(text: str) -> dict[str, Any]:
    """Return cards from a JSON object, or from lines such as ``exposure = 0.5``; numbers become numbers."""
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if isinstance(content, dict):
        return {str(key).upper(): value for key, value in content.items() if isinstance(value, str | int | float)}
    found = (_PAIR.fullmatch(line) for line in text.splitlines())
    return {match[1].strip().upper(): _number_or_text(match[2]) for match in found if match is not None}


def _opened(buffer: Buffer, name: str) -> TiffFile:
    import tifffile  # on first use: most cameras write none

    try:
        return tifffile.TiffFile(io.BytesIO(bytes(buffer)))
    except Exception as error:  # the parser lets anything through that a damaged directory causes
        raise DataError(f"{name} is damaged: its TIFF directory cannot be read ({error}); fetch it again") from error


def _cards(page: Any) -> dict[str, Any]:
    cards: dict[str, Any] = {}
    for tag in page.tags:
        if tag.name in _LAYOUT or not isinstance(tag.value, str | int | float | tuple):
            continue
        keyword = f"TAG{tag.code}" if str(tag.name).isdigit() else str(tag.name).upper()
        if (value := _plain(tag.value)) is not None:
            cards[keyword] = value
    described = cards.get("IMAGEDESCRIPTION")
    pairs = cards_of_text(described) if isinstance(described, str) else {}
    return {**pairs, **cards}


def _plain(value: str | int | float | tuple[Any, ...]) -> str | int | float | None:
    """Return a tag's value as text or number: rationals as quotients, dates as ISO 8601; None for arrays."""
    if isinstance(value, tuple):
        is_rational = len(value) == 2 and all(isinstance(item, int) for item in value) and value[1] != 0
        return value[0] / value[1] if is_rational else None
    if not isinstance(value, str):
        return value
    text = value.split("\0")[0].strip()
    if len(text) > _LONGEST_TEXT or (not text.isprintable() and "\n" not in text):
        return None
    date = _TIFF_DATE.fullmatch(text)
    return f"{date[1]}-{date[2]}-{date[3]}T{date[4]}" if date else text


def _number_or_text(text: str) -> str | int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text.strip("\"'")
