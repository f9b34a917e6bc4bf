"""Marked values, and the search for them in everything that leaves: text, numbers in any width, packed or not."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from collections.abc import Iterable, Iterator

import pyarrow.parquet as pq
from astropy.io import fits

from gueststar.formats.avro import decode_alert

Canary = str | int | float


def forms(canary: Canary) -> Iterator[bytes]:
    """Yield how a value may stand in a file: as text (a float to seven digits), and in every width and byte order."""
    if isinstance(canary, str):
        yield canary.encode()
        yield canary.encode("utf-16-le")
    elif isinstance(canary, int):
        yield str(canary).encode()
        yield from (struct.pack(code, canary) for code in ("<q", ">q"))
    else:
        yield f"{canary:.7g}".encode()
        single = struct.unpack("<f", struct.pack("<f", canary))[0]
        yield from (struct.pack(code, value) for code in ("<d", ">d") for value in (canary, single))
        yield from (struct.pack(code, canary) for code in ("<f", ">f"))


def contents(blob: bytes) -> Iterator[bytes]:
    """Yield a file and everything that is packed in it, opened."""
    yield blob
    if blob[:2] == b"\x1f\x8b":
        yield from contents(gzip.decompress(blob))
    elif blob[:4] == b"Obj\x01":
        packet = decode_alert(blob)
        yield repr({key: value for key, value in packet.items() if not key.startswith("cutout")}).encode()
        for key in ("cutoutScience", "cutoutTemplate", "cutoutDifference"):
            if packet[key]:
                yield packet[key]["fileName"].encode()
                yield from contents(packet[key]["stampData"])
    elif blob[:4] == b"PAR1":
        yield repr(pq.read_table(io.BytesIO(blob)).to_pylist()).encode()
    elif blob[:6] == b"SIMPLE":
        with fits.open(io.BytesIO(blob)) as hdus:
            for hdu in hdus:
                yield repr(hdu.header).encode()
                if hdu.data is not None:
                    yield hdu.data.tobytes()
    elif blob[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(blob)) as archive:
            for member in archive:
                yield f"{member.name} {member.pax_headers}".encode()
                file = archive.extractfile(member)
                if file is not None:
                    yield from contents(file.read())


def found_in(blobs: Iterable[bytes], canaries: dict[str, Canary]) -> set[str]:
    """Return the names of the canaries that are in any of the blobs."""
    patterns = {name: tuple(forms(canary)) for name, canary in canaries.items()}
    found: set[str] = set()
    for blob in blobs:
        for part in contents(blob):
            found |= {name for name in patterns.keys() - found if any(form in part for form in patterns[name])}
    return found
