"""The facts of an exposure one by one, as the camera's description says: each from cards, or DataError."""

from __future__ import annotations

import re

from gueststar.algorithms.astrometry.horizon import airmass_at, altitude_deg
from gueststar.cameras.cards import Cards
from gueststar.cameras.header_position import boresight
from gueststar.core import times
from gueststar.core.errors import DataError
from gueststar.model.camera import Camera, Filter
from gueststar.model.exposure import ObservationType
from gueststar.model.rights import Program

_HIGHEST_AIRMASS = 40.0
"""At the horizon."""

Doubts = tuple[str, ...]
"""What was mended, computed or is doubtful."""


def check_instrument(camera: Camera, cards: Cards) -> None:
    """Raise DataError where a card of ``instrument_match`` says the file is another camera's."""
    for keyword, pattern in camera.header.instrument_match.items():
        value = cards.text((keyword,))
        if value is None or not re.fullmatch(pattern, value):
            raise DataError(f"{cards.name} is not from {camera.name}: {keyword} = {value!r}, expected {pattern!r}")


def observation_type(camera: Camera, cards: Cards) -> ObservationType:
    """Return what was observed."""
    mapping = camera.header
    text = cards.text(mapping.observation_type)
    if text is None:
        if mapping.default_observation_type is None:
            raise DataError(f"{cards.name}: none of the cards {list(mapping.observation_type)} tells what was observed")
        return mapping.default_observation_type
    known = {name.upper(): kind for name, kind in mapping.observation_types.items()}
    try:
        return known[text.upper()]
    except KeyError:
        raise DataError(
            f"{cards.name}: observation type {text!r} is unknown to {camera.name}, which knows {sorted(known)}"
        ) from None


def exposure_time(camera: Camera, cards: Cards, kind: ObservationType) -> float:
    """Return the exposure time in seconds; 0 for a bias without the card."""
    card = cards.find(camera.header.exposure_s)
    if card is None:
        if kind == "bias":
            return 0.0
        if camera.header.default_exposure_s is not None:
            return camera.header.default_exposure_s
        raise DataError(f"{cards.name}: none of the cards {list(camera.header.exposure_s)} tells the exposure time")
    seconds = cards.number_of(card)
    least, most = camera.exposure_range_s if kind == "science" else (0.0, camera.exposure_range_s[1])
    if not least <= seconds <= most:
        raise DataError(f"{cards.name}: {card.keyword} = {card.value!r} s is impossible, needs {least} to {most}")
    return seconds


def filter_used(camera: Camera, cards: Cards) -> Filter:
    """Return the filter."""
    name = cards.text(camera.header.filter) or camera.header.default_filter
    if name is None:
        raise DataError(f"{cards.name}: none of the cards {list(camera.header.filter)} tells the filter")
    found = camera.filter_named(name)
    if found is None:
        known = [item.physical_filter for item in camera.filters]
        raise DataError(f"{cards.name}: filter {name!r} is unknown to {camera.name}, which knows {known}")
    return found


def position(camera: Camera, cards: Cards) -> tuple[tuple[float, float] | None, Doubts]:
    """Return the boresight (ra, dec), degrees ICRS; None where it is missing or wrong and the stars may tell it."""
    try:
        found = boresight(cards, camera.header)
    except DataError as problem:
        if camera.blind_solving is None:
            raise
        return None, (f"{problem}: to be found by the stars",)
    if found is None and camera.blind_solving is None:
        raise DataError(
            f"{cards.name}: none of the cards {list(camera.header.ra)} tells the position; to have such exposures "
            "found by their stars, put 'blind_solving: {}' into the camera's file"
        )
    return found, () if found else ("no card tells the position: to be found by the stars",)


def program(camera: Camera, cards: Cards) -> tuple[Program, Doubts]:
    """Return the access category; where it is not told, the default, where it is no known value, private."""
    mapping = camera.header.program
    if mapping.keyword is None:
        return Program(mapping.default), ()
    text = cards.text((mapping.keyword,))
    if text is None:
        default = Program(mapping.default)
        return default, (f"{mapping.keyword} is missing: program taken as {default.name.lower()}",)
    known = mapping.values or {str(int(item)): int(item) for item in Program}
    if text not in known:
        return Program.PRIVATE, (f"{mapping.keyword} = {text!r} is unknown: program taken as private",)
    return Program(known[text]), ()


def is_target_of_opportunity(camera: Camera, cards: Cards) -> bool:
    """Return whether the header says that the exposure interrupted the survey."""
    mapping = camera.header.target_of_opportunity
    text = cards.text((mapping.keyword,)) if mapping else None
    return mapping is not None and text is not None and text.lower() in {value.lower() for value in mapping.values}


def airmass(
    camera: Camera, cards: Cards, pointing: tuple[float, float] | None, mjd_tai: float
) -> tuple[float | None, Doubts]:
    """Return the header's airmass, or else that of the pointing at ``mjd_tai``; doubt a pointing below the horizon."""
    card = cards.find(camera.header.airmass)
    told = None if card is None else cards.number_or_none(card)
    if pointing is None:
        return told, ()
    site = camera.site
    altitude = altitude_deg(
        ra=pointing[0], dec=pointing[1], mjd_utc=times.mjd_utc(mjd_tai),
        latitude_deg=site.latitude_deg, longitude_deg=site.longitude_deg, height_m=site.height_m,
    )  # fmt: skip
    doubts: Doubts = ()
    if altitude < 0.0:
        doubts = (
            f"the position is {-altitude:.0f} deg below the horizon of {site.name} at this time: "
            "local time, or a wrong sign of longitude?",
        )
    computed = airmass_at(altitude) if altitude > 0.0 else None
    if card is None:
        return computed, doubts
    if told is None or not 1.0 <= told <= _HIGHEST_AIRMASS:
        wrong = f"{card.keyword} = {card.value!r} is no airmass: computed from site, time and position instead"
        return computed, (*doubts, wrong)
    return told, doubts


def field_number(camera: Camera, cards: Cards) -> tuple[int | None, Doubts]:
    """Return the survey field; None where the header does not tell."""
    text = cards.text(camera.header.field)
    if text is None:
        return None, ()
    if re.fullmatch(r"\d+(\.0*)?", text):
        return int(text.split(".")[0]), ()
    return None, (f"field {text!r} is not a number: left to be found from the position",)
