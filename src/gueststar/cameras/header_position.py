"""Where the telescope pointed, from the cards that a camera's description names."""

from __future__ import annotations

import re
from typing import Literal

from astropy import units
from astropy.coordinates import FK4, FK5, SkyCoord
from astropy.time import Time

from gueststar.cameras.cards import Card, Cards, is_number
from gueststar.core.errors import DataError
from gueststar.model.header import HeaderMapping

_SEXAGESIMAL = re.compile(r"([+-]?)\s*(\d{1,3})[: hd°]\s*(\d{1,2})(?:[: m']\s*(\d{1,2}(?:\.\d*)?)[s\"]?|[: m']?)")
_EQUINOX_TOLERANCE_YEARS = 0.2
"""Precession over this is 10 arcsec."""

_OTHER_RA = ("CRVAL1", "OBJCTRA", "TELRA", "RA")
_SAME_POINTING_DEG = 2.0

Unit = Literal["sexagesimal_hours", "decimal_hours", "degrees", "auto"]


def boresight(cards: Cards, mapping: HeaderMapping) -> tuple[float, float] | None:
    """Return (ra, dec) in degrees ICRS, None where both cards are missing.

    Raises DataError where only one is there or a value is impossible. Positions of another equinox are
    precessed to ICRS.
    """
    ra_card, dec_card = cards.find(mapping.ra), cards.find(mapping.dec)
    if ra_card is None and dec_card is None:
        return None
    if ra_card is None or dec_card is None:
        raise DataError(f"{cards.name}: of {list(mapping.ra)} and {list(mapping.dec)} only one is there")
    ra, dec = _ra_degrees(cards, ra_card, mapping.position_unit), _dec_degrees(cards, dec_card)
    if not -180.0 <= ra <= 360.0:
        raise DataError(f"{cards.name}: {ra_card.keyword} = {ra_card.value!r} is no right ascension")
    if not -90.0 <= dec <= 90.0:
        raise DataError(f"{cards.name}: {dec_card.keyword} = {dec_card.value!r} is no declination")
    _check_not_hours(cards, ra_card, ra, mapping.position_unit)
    return _to_icrs(cards, ra % 360.0, dec)


def _check_not_hours(cards: Cards, card: Card, ra: float, unit: Unit) -> None:
    """Raise DataError where a plain number was taken as degrees but another card shows it to be hours."""
    if unit != "auto" or isinstance(card.value, str) or not 0.0 <= ra < 24.0:
        return
    for other in (cards.find((keyword,)) for keyword in _OTHER_RA if keyword != card.keyword):
        if other is None:
            continue
        try:
            degrees = _ra_degrees(cards, other, "auto")
        except DataError:
            continue
        if abs(degrees - 15.0 * ra) < _SAME_POINTING_DEG < abs(degrees - ra):
            raise DataError(
                f"{cards.name}: {card.keyword} = {card.value!r} seems to be hours ({other.keyword} = "
                f"{other.value!r}); set header.position_unit to decimal_hours"
            )


def _ra_degrees(cards: Cards, card: Card, unit: Unit) -> float:
    is_text = isinstance(card.value, str) and not is_number(card.value)
    if is_text:
        if unit in ("degrees", "decimal_hours"):
            raise DataError(f"{cards.name}: {card.keyword} = {card.value!r} but header.position_unit is {unit}")
        hours = _sexagesimal(cards, card)
        if not 0.0 <= hours <= 24.0:
            raise DataError(f"{cards.name}: {card.keyword} = {card.value!r} is not within 0 to 24 hours")
        return 15.0 * hours
    if unit == "sexagesimal_hours":
        raise DataError(f"{cards.name}: {card.keyword} = {card.value!r} but header.position_unit is {unit}")
    number = cards.number_of(card)
    return 15.0 * number if unit == "decimal_hours" else number


def _dec_degrees(cards: Cards, card: Card) -> float:
    if isinstance(card.value, str) and not is_number(card.value):
        return _sexagesimal(cards, card)
    return cards.number_of(card)


def _sexagesimal(cards: Cards, card: Card) -> float:
    """Return hours or degrees of a text such as -01:02:03.4, -01 02 03.4 or -01d02m03.4s."""
    match = _SEXAGESIMAL.fullmatch(str(card.value).strip())
    seconds = float(match[4] or 0.0) if match else 0.0
    if match is None or int(match[3]) > 59 or seconds > 60.0:
        raise DataError(f"{cards.name}: {card.keyword} = {card.value!r} is not sexagesimal (01:02:03.4)")
    value = int(match[2]) + int(match[3]) / 60.0 + seconds / 3600.0
    return -value if match[1] == "-" else value


def _to_icrs(cards: Cards, ra: float, dec: float) -> tuple[float, float]:
    """Precess a position whose EQUINOX is not 2000; the frames ICRS and FK5 J2000 agree to 0.1 arcsec."""
    equinox = _equinox(cards)
    if equinox is None or abs(equinox - 2000.0) < _EQUINOX_TOLERANCE_YEARS:
        return ra, dec
    frame = (
        FK4(equinox=Time(equinox, format="byear")) if equinox < 1984.0 else FK5(equinox=Time(equinox, format="jyear"))
    )
    icrs = SkyCoord(ra * units.deg, dec * units.deg, frame=frame).icrs
    return float(icrs.ra.deg) % 360.0, float(icrs.dec.deg)


def _equinox(cards: Cards) -> float | None:
    """Return the equinox of the position in years; None where not told or told to be ICRS."""
    if str(cards.values.get("RADESYS", "")).upper() == "ICRS":
        return None
    text = str(cards.values.get("EQUINOX", "")).strip().lstrip("JB")
    return float(text) if is_number(text) and 1800.0 < float(text) < 2200.0 else None
