"""When an exposure was taken, from the cards that a camera's description names."""

from __future__ import annotations

import re
from datetime import date

from astropy.time import Time

from gueststar.cameras.cards import Cards
from gueststar.core.errors import DataError
from gueststar.model.header import TimeMapping

_DATE = re.compile(r"(?P<year>\d{4})[-/](?P<month>\d{1,2})[-/](?P<day>\d{1,2})")
_OLD_DATE = re.compile(r"(?P<day>\d{1,2})/(?P<month>\d{1,2})/(?P<year>\d{2})")
"""Before 2000 FITS wrote DD/MM/YY and meant 19YY."""
_TIME = re.compile(r"(\d{1,2})[: ](\d{1,2})(?:[: ](\d{1,2}(?:\.\d*)?))?")
_ZONE = re.compile(r"(?P<rest>.*?)\s*(?P<zone>Z|UTC?|[+-]\d{2}:?\d{2})", re.IGNORECASE)
_SECONDS_A_DAY = 86400.0
_DISAGREEMENT_DAYS = 0.01
_FIRST_MJD = 45000.0
"""1982: a digital exposure from before was taken by a clock that had been reset."""


def start_of_exposure(cards: Cards, mapping: TimeMapping, *, exposure_s: float) -> tuple[float, tuple[str, ...]]:
    """Return the start as MJD TAI, and warnings.

    Raises DataError where the cards are missing or are no time.
    """
    told, warnings = _told_moment(cards, mapping)
    told += _delay_s(cards, mapping) / _SECONDS_A_DAY
    before = {"start": 0.0, "middle": exposure_s / 2.0, "end": exposure_s}[mapping.point]
    start = told - before / _SECONDS_A_DAY
    if start < _FIRST_MJD:
        raise DataError(f"{cards.name}: {' + '.join(mapping.keywords)} says MJD {start:.3f}, long before any CCD")
    return start, (*warnings, *_contradictions(cards, mapping, start, exposure_s))


def _delay_s(cards: Cards, mapping: TimeMapping) -> float:
    """Return how long after its stamp this frame of a shot was taken."""
    if mapping.delay_keyword is None:
        return 0.0
    text = cards.text((mapping.delay_keyword,))
    if text not in mapping.delays_s:
        known = sorted(mapping.delays_s)
        raise DataError(f"{cards.name}: {mapping.delay_keyword} = {text!r} is none of header.time.delays_s {known}")
    return mapping.delays_s[text]


def _told_moment(cards: Cards, mapping: TimeMapping) -> tuple[float, tuple[str, ...]]:
    found = [cards.find((keyword,)) for keyword in mapping.keywords]
    missing = [keyword for keyword, card in zip(mapping.keywords, found, strict=True) if card is None]
    if missing:
        raise DataError(f"{cards.name}: time card {missing[0]} is missing")
    if mapping.format != "isot":
        value = cards.number(mapping.keywords)
        assert value is not None
        mjd = value - 2400000.5 if mapping.format == "jd" else value
        if not 30000.0 < mjd < 100000.0:
            raise DataError(
                f"{cards.name}: {mapping.keywords[0]} = {value} is no {mapping.format.upper()} of an exposure"
            )
        mjd -= mapping.utc_offset_h / 24.0
        return float(Time(mjd, format="mjd", scale=mapping.scale).tai.mjd), ()
    texts = [str(card.value).strip() for card in found if card is not None]
    text = texts[0] if len(texts) == 1 else f"{re.split('[T ]', texts[0])[0]}T{texts[1].split('T')[-1]}"
    what = f"{cards.name}: {' + '.join(mapping.keywords)} = {' '.join(texts)!r}"
    text, offset_s = _without_zone(text)
    warnings = () if offset_s == 0 else (f"{what.split(': ', 1)[1]} is not UT: its offset was subtracted",)
    offset_s = offset_s or 3600.0 * mapping.utc_offset_h
    return _mjd_tai(text, mapping, what) - offset_s / _SECONDS_A_DAY, warnings


def _without_zone(text: str) -> tuple[str, float]:
    """Return a time without its zone, and the zone's offset from UT in seconds."""
    match = _ZONE.fullmatch(text) if len(text) > len("YYYY-MM-DD") else None
    if match is None:
        return text, 0.0
    zone = match["zone"].upper()
    if zone.startswith(("Z", "U")):
        return match["rest"], 0.0
    hours, minutes = int(zone[1:3]), int(zone[-2:])
    return match["rest"], (-1 if zone[0] == "-" else 1) * (hours * 3600.0 + minutes * 60.0)


def _mjd_tai(text: str, mapping: TimeMapping, what: str) -> float:
    """Return MJD TAI of a date and time; seconds of 60 and hours of 24 run over into what follows."""
    parts = re.split("[T ]", text.strip(), maxsplit=1)
    day = _DATE.fullmatch(parts[0]) or _OLD_DATE.fullmatch(parts[0])
    clock = _TIME.fullmatch(parts[1].strip()) if len(parts) == 2 else None
    if day is None or clock is None:
        raise DataError(f"{what} is not a date and time; needs YYYY-MM-DDThh:mm:ss, in one card or two")
    year = int(day["year"]) + (1900 if len(day["year"]) == 2 else 0)
    hour, minute, second = int(clock[1]), int(clock[2]), float(clock[3] or 0.0)
    try:
        ordinal = date(year, int(day["month"]), int(day["day"])).isoformat()
    except ValueError as error:
        raise DataError(f"{what}: {error}") from None
    if hour > 24 or minute > 60 or second >= 62.0:
        raise DataError(f"{what} is not a time of day")
    # Seconds are added in TAI, so that 23:59:60.5 is right on a day with a leap second as on any other.
    begin = Time(f"{ordinal}T{min(hour, 23):02d}:{min(minute, 59):02d}:00", format="isot", scale=mapping.scale)
    extra = (hour - min(hour, 23)) * 3600.0 + (minute - min(minute, 59)) * 60.0 + second
    return float(begin.tai.mjd) + extra / _SECONDS_A_DAY


def _contradictions(cards: Cards, mapping: TimeMapping, start: float, exposure_s: float) -> tuple[str, ...]:
    """Compare with TIMESYS, and with MJD-OBS where that was not used: local time shows here."""
    system = (cards.text(("TIMESYS",)) or mapping.scale).lower()
    if system not in (mapping.scale, {"utc": "ut"}.get(mapping.scale, "")):
        return (f"TIMESYS = {system!r} but header.time.scale is {mapping.scale}",)
    card = cards.find(("MJD-OBS",))
    if card is None or "MJD-OBS" in mapping.keywords or isinstance(card.value, bool | str):
        return ()
    difference = float(card.value) - float(Time(start, format="mjd", scale="tai").utc.mjd)
    if abs(difference) < _DISAGREEMENT_DAYS + exposure_s / _SECONDS_A_DAY:
        return ()
    return (f"MJD-OBS = {card.value} is {difference * 24:+.2f} h from {' + '.join(mapping.keywords)}: local time?",)
