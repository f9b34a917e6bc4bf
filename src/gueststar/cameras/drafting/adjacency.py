"""Which extensions are parts of one detector, told by a WCS that runs on from one to the next without a gap."""

from __future__ import annotations

import numpy as np

from gueststar.cameras.drafting.amplifiers import DraftAmplifier
from gueststar.cameras.drafting.scale import header_wcs
from gueststar.cameras.drafting.sections import Span
from gueststar.formats.raw import RawFile
from gueststar.model.wcs import Wcs

_PIXEL_TOLERANCE = 0.2
SOURCE = "WCS that runs on"


def group_by_wcs(raw: RawFile, amplifiers: list[DraftAmplifier]) -> list[list[DraftAmplifier]]:
    """Return groups of amplifiers that abut in the pixels of their first, with their places set.

    Where an extension has no WCS, or nothing abuts, every amplifier is a group of its own.
    """
    frames = [header_wcs(raw, amplifier.image)[0] for amplifier in amplifiers]
    if any(frame is None for frame in frames):
        return [[amplifier] for amplifier in amplifiers]
    rest = [(amplifier, frame) for amplifier, frame in zip(amplifiers, frames, strict=True) if frame is not None]
    groups = []
    while rest:
        seed, seed_frame = rest.pop(0)
        group, spans = [seed], [seed.span]
        is_growing = True
        while is_growing:
            is_growing = False
            for item in list(rest):
                span = _in_frame(item[0].span, item[1], seed_frame)
                if span is not None and any(_abut(span, other) for other in spans):
                    group.append(item[0])
                    spans.append(span)
                    rest.remove(item)
                    is_growing = True
        if len(group) > 1:
            for amplifier, span in zip(group, spans, strict=True):
                amplifier.place = (SOURCE, span)
        groups.append(group)
    return groups


def _in_frame(span: Span, own: Wcs, other: Wcs) -> Span | None:
    """Return a section of one frame as one of another; None where they are not aligned to the pixel."""
    x, y = np.array([span.x1, span.x2, span.x2]) - 1.0, np.array([span.y1, span.y2, span.y1]) - 1.0
    ra, dec = own.pixel_to_sky(x=x, y=y)
    there = np.array(other.sky_to_pixel(ra=ra, dec=dec)) + 1.0
    if not np.all(np.isfinite(there)):
        return None
    (x1, x2, _), (y1, y2, _) = np.rint(there).astype(int).tolist()
    found = Span(x1, x2, y1, y2)
    is_aligned = np.max(np.abs(there - [[x1, x2, x2], [y1, y2, y1]])) < _PIXEL_TOLERANCE
    return found if is_aligned and found.size == span.size else None


def _abut(first: Span, second: Span) -> bool:
    """Whether two sections share a whole edge."""
    (ax1, ax2), (ay1, ay2) = sorted((first.x1, first.x2)), sorted((first.y1, first.y2))
    (bx1, bx2), (by1, by2) = sorted((second.x1, second.x2)), sorted((second.y1, second.y2))
    beside = (ay1, ay2) == (by1, by2) and (ax1 == bx2 + 1 or bx1 == ax2 + 1)
    above = (ax1, ax2) == (bx1, bx2) and (ay1 == by2 + 1 or by1 == ay2 + 1)
    return beside or above
