"""Where the telescope stands, from header cards, with the sign of the longitude proved on the sky."""

from __future__ import annotations

import re
from typing import Any

from gueststar.algorithms.astrometry.horizon import altitude_deg, sun_position
from gueststar.cameras.cards import Card, Cards
from gueststar.cameras.drafting.guess import Guess
from gueststar.core.times import mjd_utc

_NAME = ("OBSERVAT", "SITE", "SITENAME", "ORIGIN", "TELESCOP")
_LATITUDE = ("LATITUDE", "OBSLAT", "OBS-LAT", "LAT-OBS", "SITELAT", "GEOLAT", "TELLAT", "OBSGEO-B", "LAT_OBS")
_LONGITUDE = (
    "LONGITUD", "OBSLON", "OBS-LONG", "LONG-OBS", "OBSLONG", "SITELONG", "GEOLON", "TELLONG", "OBSGEO-L", "LONG_OBS",
)  # fmt: skip
_HEIGHT = (
    "ALTITUDE", "OBSALT", "OBS-ELEV", "ALT-OBS", "SITEELEV", "SITEALT", "HEIGHT", "TELALTI", "OBSGEO-H", "ALT_OBS",
)  # fmt: skip
_SEXAGESIMAL = re.compile(r"([+-]?)(\d{1,3})[: d]+(\d{1,2})(?:[: m']+(\d{1,2}(?:\.\d*)?))?[s\"]?\s*([EWNS]?)")
_HIGHEST_SUN = -4.0


def choose_site(cards: Cards, position: tuple[float, float] | None, mjd_tai: float | None) -> dict[str, Any]:
    """Return the site's keys; a longitude for which the target would be down or the Sun up has its sign changed."""
    name = cards.find(_NAME)
    latitude, longitude = cards.find(_LATITUDE), cards.find(_LONGITUDE)
    site: dict[str, Any] = {
        "name": Guess(str(name.value), name.keyword) if name else Guess("unknown", "no card", "assumed")
    }
    if latitude is None or longitude is None or degrees_of(latitude) is None or degrees_of(longitude) is None:
        site["latitude_deg"] = Guess(0.0, "no card tells: FILL IN", "assumed")
        site["longitude_deg"] = Guess(0.0, "no card tells: FILL IN, east positive", "assumed")
        return site
    north, east = degrees_of(latitude), degrees_of(longitude)
    assert north is not None
    assert east is not None
    site["latitude_deg"] = Guess(north, latitude.keyword)
    site["longitude_deg"] = _east_longitude(longitude, (east + 180.0) % 360.0 - 180.0, north, position, mjd_tai)
    height = cards.find(_HEIGHT)
    metres = cards.number_or_none(height) if height else None
    if height and metres is not None:
        site["height_m"] = Guess(metres, height.keyword)
    site["mpc_code"] = Guess("500", "no card tells: see the MPC's list of observatory codes", "assumed")
    return site


def _east_longitude(
    card: Card, east: float, north: float, position: tuple[float, float] | None, mjd_tai: float | None
) -> Guess:
    if position is None or mjd_tai is None:
        return Guess(east, f"{card.keyword}, taken as east positive", "inferred")
    if _is_night_with_target_up(east, north, position, mjd_tai):
        return Guess(east, card.keyword)
    if _is_night_with_target_up(-east, north, position, mjd_tai):
        return Guess(
            -east, f"{card.keyword} = {card.value} counts west positive: else the target would be down", "inferred"
        )
    return Guess(east, f"{card.keyword}; the target is down or the Sun is up either way: check the time", "assumed")


def _is_night_with_target_up(east: float, north: float, position: tuple[float, float], mjd_tai: float) -> bool:
    utc = mjd_utc(mjd_tai)
    target, sun = (
        altitude_deg(ra=ra, dec=dec, mjd_utc=utc, latitude_deg=north, longitude_deg=east)
        for ra, dec in (position, sun_position(utc))
    )
    return target > 0.0 and sun < _HIGHEST_SUN


def degrees_of(card: Card) -> float | None:
    """Return a latitude or longitude written as a number or sexagesimal text, None where it is neither."""
    if isinstance(card.value, int | float) and not isinstance(card.value, bool):
        return float(card.value)
    text = str(card.value).strip()
    try:
        return float(text)
    except ValueError:
        pass
    match = _SEXAGESIMAL.fullmatch(text)
    if match is None:
        return None
    value = int(match[2]) + int(match[3]) / 60.0 + float(match[4] or 0.0) / 3600.0
    return -value if match[1] == "-" or match[5] in ("W", "S") else value
