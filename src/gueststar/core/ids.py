"""Identifiers: deterministic, so that a rerun of the same exposure gives the same numbers.

The wire identifiers follow what public ZTF packets show (see docs/design/identifiers.md).
"""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gueststar.core.errors import DataError
from gueststar.core.times import mjd_utc, mjd_utc_of

NIGHT_ZERO_MJD = 57754
"""MJD of 2017-01-01, day 0 of the night number ``nid`` on the wire."""

MAX_PER_SIGN = 5000
"""Detections of one sign on one detector image that the wire's candid can number."""


MAX_SOURCES = 1 << 17
"""Sources on one detector image that `source_ids` can number."""


def content_id(*parts: object, bits: int = 63) -> int:
    """Return a positive integer that depends only on ``parts`` (a cut BLAKE2b digest)."""
    text = "\x1f".join(str(part) for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - bits)


def keyed_id(key: bytes, *parts: object, bits: int = 63) -> int:
    """Return a positive integer that depends on ``parts`` and on a secret ``key`` (at most 64 bytes).

    Who does not know the key learns nothing of ``parts``, not even by trying all of them.
    """
    text = "\x1f".join(str(part) for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=key).digest()
    return int.from_bytes(digest, "big") >> (64 - bits)


def exposure_id(mjd_tai_start: float) -> int:
    """Return an exposure's id: its start in units of 10 ms since MJD 50000 (one shutter, one start)."""
    return round((mjd_tai_start - 50000.0) * 8_640_000.0)


def exposure_start(number: int) -> float:
    """Return the start (MJD TAI, to 10 ms) of the exposure with this id."""
    return 50000.0 + number / 8_640_000.0


def source_ids(visit: int, detector: int, n: int) -> NDArray[np.int64]:
    """Return ``n`` identifiers for the sources of one detector image: visit, detector and serial packed in 63 bits.

    Visits of `exposure_id` fit their 38 bits until 2082, detectors have 8 and serials 17. A visit or detector beyond
    that is replaced by a `content_id` of 46 bits. Raises DataError for more than `MAX_SOURCES`.
    """
    if n > MAX_SOURCES:
        raise DataError(f"{n} sources on detector {detector} of visit {visit}: identifiers end at {MAX_SOURCES}")
    fits = 0 <= visit < 1 << 38 and 0 <= detector < 1 << 8
    prefix = visit << 8 | detector if fits else content_id(visit, detector, bits=46)
    return np.arange(n, dtype=np.int64) + np.int64(prefix << 17)


def night_number(mjd_tai: float) -> int:
    """Return ``nid``: UT days since 2017-01-01."""
    return math.floor(mjd_utc(mjd_tai)) - NIGHT_ZERO_MJD


def wire_pid(mjd_tai: float, rcid: int) -> int:
    """Return ``pid``, the processing id of one detector image: night, time of day and channel."""
    utc = mjd_utc(mjd_tai)
    fraction = math.floor((utc - math.floor(utc)) * 1e5)
    return night_number(mjd_tai) * 1_000_000_000 + fraction * 10_000 + rcid * 100 + 15


def wire_pids(mjd_tai: ArrayLike, rcid: ArrayLike) -> NDArray[np.int64]:
    """Return `wire_pid` of many detector images at once."""
    utc = mjd_utc_of(mjd_tai)
    night = np.floor(utc)
    fraction = np.floor((utc - night) * 1e5).astype(np.int64)
    number = night.astype(np.int64) - NIGHT_ZERO_MJD
    return np.asarray(number * 1_000_000_000 + fraction * 10_000 + np.asarray(rcid, dtype=np.int64) * 100 + 15)


def wire_candid(pid: int, *, is_positive: bool, serial: int) -> int:
    """Return ``candid`` of the ``serial``-th detection of its sign on the detector image ``pid``.

    Raises DataError if ``serial`` does not fit the format.
    """
    if not 0 <= serial < MAX_PER_SIGN:
        raise DataError(f"detection serial {serial} of pid {pid} is outside 0..{MAX_PER_SIGN - 1}")
    return pid * 1_000_000 + (15_000 if is_positive else 10_000) + serial


class CandidParts(NamedTuple):
    """What a candid says: the detector image, the sign and the serial number of the detection."""

    pid: int
    is_positive: bool
    serial: int


def candid_parts(candid: int) -> CandidParts:
    """Take a candid apart (the inverse of `wire_candid`); raises DataError if it is not one."""
    pid, rest = divmod(int(candid), 1_000_000)
    if pid <= 0 or not 10_000 <= rest < 20_000:
        raise DataError(f"{candid} is not a candid: its last six digits must lie in 010000..019999")
    return CandidParts(pid, rest >= 15_000, rest % MAX_PER_SIGN)


MAX_OBJECT_NAMES = 26**7
"""Numbers that seven letters can write."""


def object_name(number: int, *, prefix: str, year: int) -> str:
    """Return a public object name such as ``GST26aaaabcd``: prefix, two-digit year, seven letters.

    ``number`` counts objects within the year, from 0; raises DataError when seven letters overflow.
    """
    letters = ""
    rest = number
    for _ in range(7):
        rest, digit = divmod(rest, 26)
        letters = chr(ord("a") + digit) + letters
    if rest:
        raise DataError(f"object number {number} of year {year} does not fit in seven letters")
    return f"{prefix}{year % 100:02d}{letters}"


class ObjectNameParts(NamedTuple):
    """What an object's name says."""

    prefix: str
    year: int
    """Last two digits."""
    number: int


def object_name_parts(name: str) -> ObjectNameParts:
    """Take an object's name apart (the inverse of `object_name`); raises DataError if it is not one."""
    prefix, digits, letters = name[:3], name[3:5], name[5:]
    is_name = len(name) == 12 and digits.isdigit() and letters.isascii() and letters.islower() and letters.isalpha()
    if not is_name:
        raise DataError(f"{name!r} is not the name of an object: three letters, two digits, seven small letters")
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - ord("a")
    return ObjectNameParts(prefix, int(digits), number)
