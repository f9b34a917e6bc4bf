"""Raw exposures: plain, gzip, bzip2 or tile-compressed (.fz) FITS, one or many extensions; TIFF, one or many pages."""

from __future__ import annotations

import bz2
import hashlib
import io
import mmap
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from gueststar.core.errors import DataError, TransientError
from gueststar.formats.fits_layout import BLOCK, Block, Buffer, check_datasum, image_cards, image_shape, read_layout
from gueststar.formats.tiff import decode_tiff_page, is_tiff, read_tiff_pages
from gueststar.formats.tile_compression import decompress
from gueststar.model.camera import Amplifier, Detector, parse_section
from gueststar.model.exposure import ExposureInfo
from gueststar.model.raw import AmplifierPixels, RawDetector

_GZIP_MAGIC, _BZIP2_MAGIC = b"\x1f\x8b", b"BZh"
_EMPTY_PRIMARY = fits.PrimaryHDU().header.tostring(padding=True).encode("ascii")

Cut = Callable[[int | str, str], NDArray[np.float32]]
"""From an extension and a FITS section of it to pixels."""


@dataclass(frozen=True, eq=False)
class RawExtension:
    """One HDU of a raw FITS file, the primary included (index 0), or one page of a TIFF file."""

    index: int
    name: str
    """EXTNAME; empty: none."""
    header: dict[str, Any]
    """Its cards as plain values; a tile-compressed image has those of the image."""
    shape: tuple[int, int] | None
    """(ny, nx) of its image; None: it holds none."""


@dataclass(frozen=True, eq=False)
class RawFile:
    """The headers of a raw file whose pixels are known to be all there."""

    path: Path
    primary: dict[str, Any]
    extensions: tuple[RawExtension, ...] = field(default=())
    """Every HDU in order, the primary first."""

    @property
    def images(self) -> tuple[RawExtension, ...]:
        """The HDUs that hold a two-dimensional image."""
        return tuple(extension for extension in self.extensions if extension.shape is not None)

    def find(self, extension: int | str) -> RawExtension | None:
        """Return the HDU an `Amplifier.extension` means: a number, a name, or 0 for the first image."""
        if extension == 0:
            return next(iter(self.images), None)
        if isinstance(extension, int):
            return self.extensions[extension] if 0 < extension < len(self.extensions) else None
        wanted = extension.upper()
        return next((item for item in self.extensions if item.name.upper() == wanted), None)

    def cards_of(self, extension: RawExtension) -> dict[str, Any]:
        """Return the primary's cards with those of one HDU on top."""
        return {**self.primary, **extension.header}


def read_headers(path: str | Path) -> RawFile:
    """Read all headers of a raw file and check that the file is whole.

    Raises DataError for a file that is missing, empty, neither FITS nor TIFF, damaged or truncated.
    """
    return _contents(Path(path)).raw


def read_detector(
    path: str | Path, detector: Detector, info: ExposureInfo, *, others: Sequence[Detector] = ()
) -> RawDetector:
    """Read one detector's pixels, amplifier by amplifier: float32 ADU (BZERO and BSCALE applied).

    ``others`` are detectors of the same file that come along in `RawDetector.others`.
    Raises DataError where the file is unreadable or lacks what the camera's description says.
    """
    contents = _contents(Path(path))
    raw = contents.raw
    images: dict[int, NDArray[Any]] = {}

    def cut(extension: int | str, section: str) -> NDArray[np.float32]:
        found = image_with_section(raw, extension, section)
        if found.index not in images:
            images[found.index] = contents.decode(found)
        return np.ascontiguousarray(images[found.index][parse_section(section)], dtype=np.float32)

    amplifiers = tuple(_read_amplifier(amplifier, cut) for amplifier in detector.amplifiers)
    first = image_with_section(raw, detector.amplifiers[0].extension, detector.amplifiers[0].data_section)
    beside = tuple(read_detector(path, other, info) for other in others)
    return RawDetector(info, detector, amplifiers, raw.cards_of(first), beside)


def _read_amplifier(amplifier: Amplifier, cut: Cut) -> AmplifierPixels:
    overscans = tuple(
        cut(amplifier.extension if overscan.extension is None else overscan.extension, overscan.section)
        for overscan in amplifier.overscans
    )
    return AmplifierPixels(amplifier, cut(amplifier.extension, amplifier.data_section), overscans)


def image_with_section(raw: RawFile, extension: int | str, section: str) -> RawExtension:
    """Return the HDU of a raw file that holds ``section``; DataError where it is absent or too small."""
    found = raw.find(extension)
    if found is None or found.shape is None:
        names = [item.name or item.index for item in raw.images]
        raise DataError(f"{raw.path} has no image extension {extension!r}; it has {names}")
    rows, columns = parse_section(section)
    if rows.stop > found.shape[0] or columns.stop > found.shape[1]:
        raise DataError(
            f"{raw.path}: extension {extension!r} is {found.shape[1]} x {found.shape[0]} pixels, "
            f"too small for section {section} of the camera's description"
        )
    return found


def read_section(raw: RawFile, extension: int | str, section: str) -> NDArray[np.float32]:
    """Return a FITS section of one extension, float32 ADU; for looking into a file without a camera."""
    found = image_with_section(raw, extension, section)
    return np.ascontiguousarray(_contents(raw.path).decode(found)[parse_section(section)], dtype=np.float32)


def read_comments(path: str | Path) -> dict[str, str]:
    """Return the comments of the cards of the primary header and the first image extension; TIFF has none."""
    path = Path(path)
    buffer = _open(path)
    if is_tiff(bytes(buffer[:4])):
        return {}
    blocks = read_layout(buffer, str(path))
    first = _raw_file(path, blocks).find(0)
    headers = [blocks[0].header] + ([blocks[first.index].header] if first else [])
    return {card.keyword: str(card.comment) for header in headers for card in header.cards if card.keyword}


def pixel_checksum(path: str | Path) -> str:
    """Return a hash of the decoded pixel values of all image HDUs.

    The same pixels stored plain, gzipped or losslessly tile-compressed give the same hash.
    """
    contents = _contents(Path(path))
    digest = hashlib.blake2b(digest_size=16)
    for image in contents.raw.images:
        pixels = contents.decode(image)
        digest.update(f"{pixels.dtype.kind}{pixels.dtype.itemsize}{pixels.shape}".encode())
        digest.update(np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<")).data)
    return digest.hexdigest()


class _Contents(NamedTuple):
    """A raw file of whatever format: its headers, and how an image of it is decoded."""

    raw: RawFile
    decode: Callable[[RawExtension], NDArray[Any]]


def _contents(path: Path) -> _Contents:
    buffer = _open(path)
    if is_tiff(bytes(buffer[:4])):
        pages = read_tiff_pages(buffer, str(path))
        held = tuple(RawExtension(number, "", page.cards, page.shape) for number, page in enumerate(pages))
        return _Contents(
            RawFile(path, pages[0].cards, held), lambda image: decode_tiff_page(buffer, image.index, str(path))
        )
    blocks = read_layout(buffer, str(path))
    return _Contents(_raw_file(path, blocks), lambda image: _decode(buffer, blocks[image.index], path, image))


def _open(path: Path) -> Buffer:
    """Return the bytes of a file, decompressed if the whole of it is gzip or bzip2, else mapped."""
    try:
        with path.open("rb") as stream:
            start = stream.read(512)
            stream.seek(0)
            if not start:
                raise DataError(f"{path} is empty (0 bytes); fetch it again")
            if start.startswith((_GZIP_MAGIC, _BZIP2_MAGIC)):
                return _decompress(stream.read(), path)
            _refuse_web_page(start, path)
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except OSError as error:
        raise TransientError(f"{path} cannot be read now: {error}") from error


def _decompress(data: bytes, path: Path) -> bytes:
    try:
        plain = _members(data)
    except EOFError:
        raise DataError(f"{path} is truncated: its compressed stream ends early; fetch it again") from None
    except (zlib.error, OSError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}; fetch it again") from None
    if not plain:
        raise DataError(f"{path} is empty once decompressed; fetch it again")
    _refuse_web_page(plain[:512], path)
    return plain


def _members(data: bytes) -> bytes:
    """Return the content of all gzip or bzip2 members; EOFError where the last is cut."""
    parts = []
    while data.startswith((_GZIP_MAGIC, _BZIP2_MAGIC)):
        is_gzip = data.startswith(_GZIP_MAGIC)
        decompressor: Any = zlib.decompressobj(wbits=31) if is_gzip else bz2.BZ2Decompressor()
        parts.append(decompressor.decompress(data))
        if not decompressor.eof:
            raise EOFError
        data = decompressor.unused_data.lstrip(b"\0")
    return b"".join(parts)


def _refuse_web_page(start: bytes, path: Path) -> None:
    if start.lstrip()[:1] == b"<":
        raise DataError(f"{path} is a web page or XML, not FITS ({start.lstrip()[:30]!r}); was a login page saved?")


def _raw_file(path: Path, blocks: list[Block]) -> RawFile:
    extensions = []
    for index, block in enumerate(blocks):
        cards = image_cards(block.header)
        name = cards.get("EXTNAME")
        extensions.append(RawExtension(index, str(name) if name is not None else "", cards, image_shape(cards)))
    return RawFile(path, extensions[0].header, tuple(extensions))


def _decode(buffer: Buffer, block: Block, path: Path, image: RawExtension) -> NDArray[Any]:
    """Return the pixel values of one image HDU, [y, x]."""
    check_datasum(buffer, block, str(path), image.index)
    if block.header.get("ZIMAGE") is True:
        found = decompress(block.header, memoryview(buffer)[block.data_start : block.data_end])
        if found is not None and found.shape == image.shape:
            return found
    data = bytes(buffer[block.header_start : block.data_end])
    data += b"\0" * (-len(data) % BLOCK)
    try:
        if block.header.get("ZIMAGE") is True:
            with fits.open(io.BytesIO(_EMPTY_PRIMARY + data)) as hdus:
                pixels = np.asarray(hdus[1].data)
        else:
            kind = fits.PrimaryHDU if image.index == 0 else fits.ImageHDU
            pixels = np.asarray(kind.fromstring(data).data)
    except Exception as error:  # astropy's tile codecs raise a class without a public name
        raise DataError(f"{path} is damaged: pixels of HDU {image.index} cannot be decoded ({error})") from error
    shape = image.shape
    if shape is None or pixels.size != shape[0] * shape[1]:
        raise DataError(f"{path} is damaged: HDU {image.index} decodes to {pixels.shape}, its header says {shape}")
    return pixels.reshape(shape)
