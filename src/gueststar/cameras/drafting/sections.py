"""FITS sections as cameras write them in headers: reversed, binned, with many names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

_SECTION = re.compile(r"\[?\s*(\d+)\s*:\s*(\d+)\s*,\s*(\d+)\s*:\s*(\d+)\s*\]?")


class Span(NamedTuple):
    """A section; reversed where the first number of an axis is the larger."""

    x1: int
    x2: int
    y1: int
    y2: int

    @property
    def size(self) -> tuple[int, int]:
        """(nx, ny)."""
        return abs(self.x2 - self.x1) + 1, abs(self.y2 - self.y1) + 1

    @property
    def is_reversed(self) -> tuple[bool, bool]:
        """Whether (x, y) run backwards."""
        return self.x2 < self.x1, self.y2 < self.y1

    def relative_to(self, x: int, y: int, binning: tuple[int, int] = (1, 1)) -> Span:
        """Return the section, forwards, counted from the unbinned pixel (x, y) = 1 and binned."""
        x1, x2 = sorted((self.x1, self.x2))
        y1, y2 = sorted((self.y1, self.y2))
        nx, ny = binning
        return Span((x1 - x) // nx + 1, (x2 - x + 1) // nx, (y1 - y) // ny + 1, (y2 - y + 1) // ny)

    def text(self) -> str:
        """Return it as FITS writes it."""
        return f"[{self.x1}:{self.x2},{self.y1}:{self.y2}]"


def parse_span(text: Any) -> Span | None:
    """Return a section written in a card, None where it is none."""
    match = _SECTION.fullmatch(str(text).strip()) if isinstance(text, str) else None
    if match is None or "0" in match.groups():
        return None
    return Span(*(int(group) for group in match.groups()))


def span_named(cards: Mapping[str, Any], names: tuple[str, ...], suffix: str = "") -> tuple[str, Span] | None:
    """Return the first card of ``names`` + ``suffix`` that holds a section."""
    for name in names:
        span = parse_span(cards.get(name + suffix))
        if span is not None:
            return name + suffix, span
    return None


def binning(cards: Mapping[str, Any]) -> tuple[int, int]:
    """Return the binning (x, y) from CCDSUM, XBINNING and the like; (1, 1) where none tells."""
    text = str(cards.get("CCDSUM") or cards.get("BINNING") or "").replace("x", " ").replace(",", " ").split()
    if len(text) == 2 and all(part.isdigit() and int(part) > 0 for part in text):
        return int(text[0]), int(text[1])
    x, y = cards.get("XBINNING"), cards.get("YBINNING")
    if isinstance(x, int | float) and isinstance(y, int | float) and x >= 1 and y >= 1:
        return int(x), int(y)
    return 1, 1
