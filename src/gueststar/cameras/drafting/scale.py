"""The pixel scale and the WCS of a raw header, for a draft."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gueststar.cameras.cards import is_number
from gueststar.cameras.drafting.guess import Guess
from gueststar.cameras.drafting.sections import binning
from gueststar.core.errors import DataError
from gueststar.formats.raw import RawExtension, RawFile
from gueststar.formats.wcs_header import WCS_NUMBER, has_celestial_axes, wcs_from_header
from gueststar.model.wcs import Wcs

_SCALES = (
    "SECPIX",
    "SECPIX1",
    "SECPIXX",
    "PIXSCALE",
    "PIXSCAL1",
    "PIXSCALX",
    "IM_SCALE",
    "CCDSCALE",
    "SCALE",
    "PIXSCAL",
)
_PLAUSIBLE = (0.01, 120.0)


def header_wcs(raw: RawFile, image: RawExtension) -> tuple[Wcs | None, str]:
    """Return the WCS of an image's header, whatever is wrong with it mended, and what was wrong."""
    cards = raw.cards_of(image)
    if not has_celestial_axes(cards) or image.shape is None:
        return None, ""
    wrong = []
    texts = [
        key for key, value in cards.items() if WCS_NUMBER.fullmatch(key) and isinstance(value, str) and is_number(value)
    ]
    if texts:
        cards |= {key: float(cards[key]) for key in texts}
        wrong.append("its numbers are text")
    if str(cards["CTYPE1"]).endswith("-TAN") and any(key.startswith(("PV1_", "PV2_")) for key in cards):
        cards |= {key: str(cards[key])[:-3] + "TPV" for key in ("CTYPE1", "CTYPE2")}
        wrong.append("TAN with PV terms means TPV")
    try:
        return wcs_from_header(cards, image.shape), ", ".join(wrong)
    except DataError as error:
        return None, str(error)


def choose_scale(cards: Mapping[str, Any], comments: Mapping[str, str], wcs: Wcs | None) -> Guess:
    """Return the pixel scale from the WCS, a card, or pixel size and focal length."""
    if wcs is not None:
        return Guess(round(wcs.pixel_scale_arcsec, 4), "WCS of the header")
    n_binned = binning(cards)[0]
    for name in _SCALES:
        value = cards.get(name)
        if isinstance(value, int | float) and _PLAUSIBLE[0] < abs(value) < _PLAUSIBLE[1]:
            if n_binned > 1 and "unbin" in comments.get(name, "").lower():
                return Guess(round(abs(value) * n_binned, 4), f"{name} is unbinned, times {n_binned}", "inferred")
            return Guess(abs(float(value)), name, "inferred" if n_binned > 1 else "read")
    size, focal = cards.get("XPIXSZ"), cards.get("FOCALLEN")
    if isinstance(size, int | float) and isinstance(focal, int | float) and size > 0 and focal > 0:
        return Guess(round(206.265 * size / focal, 4), "XPIXSZ and FOCALLEN", "inferred")
    return Guess(1.0, "no card tells: FILL IN", "assumed")
