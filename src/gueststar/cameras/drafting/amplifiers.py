"""Which amplifiers an image extension holds, from its section, gain and noise cards.

The conventions: IRAF's DATASEC, TRIMSEC, BIASSEC, CCDSEC and DETSEC; the same with a suffix for each amplifier in one
image (DECam's DATASECA, CTIO's TSEC11, Lowell's TRIM01); overscans in extensions of their own (ZTF).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gueststar.cameras.drafting.guess import Guess
from gueststar.cameras.drafting.sections import Span, span_named
from gueststar.formats.raw import RawExtension, RawFile

DATA = ("TRIMSEC", "DATASEC", "TRIM", "TSEC", "DSEC")
BIAS = ("BIASSEC", "BIAS", "BSEC", "OVERSEC", "PRESEC")
PLACE = ("CCDSEC", "CSEC", "DETSEC")
GAIN = ("GAIN", "EGAIN", "AGAIN_", "GTGAIN", "CCDGAIN", "GAIN_")
NOISE = ("RDNOISE", "READNOI", "READNOIS", "RDNOIS", "RON", "ARDNS_", "GTRON", "ENOISE", "RDNOISE_")
SATURATION = ("SATURATE", "SATURAT", "SATLEVEL", "SATURA", "MAXLIN")

_NARROW_FRACTION = 0.1
_LEAST_OVERSCAN = 4


@dataclass
class DraftAmplifier:
    """An amplifier as the headers tell it."""

    image: RawExtension
    suffix: str
    data: Guess
    """Span in its extension."""
    overscans: list[tuple[Guess, RawExtension]] = field(default_factory=list)
    place: tuple[str, Span] | None = None
    """Card and span that tell where it lies on the detector or mosaic."""

    @property
    def span(self) -> Span:
        """Where its data lie in its extension."""
        return self.data.value

    def number(self, names: tuple[str, ...], cards: Mapping[str, Any]) -> Guess | None:
        """Return the first number among cards ``names`` with the amplifier's suffix, then without."""
        for suffix in dict.fromkeys((self.suffix, "")):
            for name in names:
                value = cards.get(name + suffix)
                number = _positive(value)
                if number is not None:
                    return Guess(number, name + suffix)
        return None


def amplifiers_of(raw: RawFile) -> list[DraftAmplifier]:
    """Return the amplifiers of all images of a file, overscans that have extensions of their own attached."""
    images, strips = _data_and_overscans(raw)
    found = [amplifier for image in images for amplifier in _in_image(image, raw.cards_of(image))]
    if strips and len(strips) == len(found):
        for amplifier, strip in zip(found, strips, strict=True):
            assert strip.shape is not None
            whole = Span(1, strip.shape[1], 1, strip.shape[0])
            source = f"narrow extension {strip.name or strip.index}, paired in order"
            amplifier.overscans.append((Guess(whole, source, "inferred"), strip))
    return found


def _data_and_overscans(raw: RawFile) -> tuple[list[RawExtension], list[RawExtension]]:
    """Tell images from extensions that hold only an overscan: as tall as the others but narrow."""
    widest = max((image.shape[1] for image in raw.images if image.shape), default=0)
    images: list[RawExtension] = []
    strips: list[RawExtension] = []
    for image in raw.images:
        assert image.shape is not None
        (strips if image.shape[1] < _NARROW_FRACTION * widest else images).append(image)
    return images, strips


def _in_image(image: RawExtension, cards: Mapping[str, Any]) -> list[DraftAmplifier]:
    amplifiers: list[DraftAmplifier] = []
    for suffix in _suffixes(cards):
        amplifier = _amplifier(image, cards, suffix)
        if all(amplifier.span != other.span for other in amplifiers):
            amplifiers.append(amplifier)
        else:
            # The same pixels under a second name: the one with a suffix has the gain cards.
            twin = next(other for other in amplifiers if other.span == amplifier.span)
            twin.suffix = twin.suffix or suffix
    return amplifiers


def _suffixes(cards: Mapping[str, Any]) -> list[str]:
    """Return the amplifier suffixes of the data-section cards; a lone empty one where there are none."""
    pattern = re.compile(rf"({'|'.join(DATA)})(\d{{0,2}}|[A-D])")
    found = [
        match[2] for key in cards if (match := pattern.fullmatch(key)) and span_named(cards, (match[1],), match[2])
    ]
    named = sorted({suffix for suffix in found if suffix})
    if len(named) > 1:
        return named
    return ["", *named] if "" in found or not named else named


def _amplifier(image: RawExtension, cards: Mapping[str, Any], suffix: str) -> DraftAmplifier:
    assert image.shape is not None
    ny, nx = image.shape
    told = span_named(cards, DATA, suffix)
    if told is None:
        data = Guess(Span(1, nx, 1, ny), "no section card: the whole image", "assumed")
    else:
        data = Guess(_forwards(told[1]), told[0])
    overscan = span_named(cards, BIAS, suffix)
    if overscan is not None:
        overscans = [(Guess(_forwards(overscan[1]), overscan[0]), image)]
    else:
        overscans = _left_over(data.value, image) if told is not None and not suffix else []
    return DraftAmplifier(image, suffix, data, overscans, span_named(cards, PLACE, suffix))


def _left_over(data: Span, image: RawExtension) -> list[tuple[Guess, RawExtension]]:
    """Return the columns right of a data section, or left of it, as an overscan nobody told of."""
    assert image.shape is not None
    nx = image.shape[1]
    for x1, x2 in ((data.x2 + 1, nx), (1, data.x1 - 1)):
        if x2 - x1 + 1 >= _LEAST_OVERSCAN:
            return [
                (Guess(Span(x1, x2, data.y1, data.y2), "columns that the data section leaves over", "inferred"), image)
            ]
    return []


def _forwards(span: Span) -> Span:
    return Span(min(span.x1, span.x2), max(span.x1, span.x2), min(span.y1, span.y2), max(span.y1, span.y2))


def _positive(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if 0.0 < number < 1e7 else None
