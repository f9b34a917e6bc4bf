"""Which cards tell the facts of an exposure: instrument, type, filter, position, program."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from gueststar.cameras.cards import Card, Cards, is_number
from gueststar.cameras.drafting.guess import Guess
from gueststar.cameras.header_position import boresight
from gueststar.core.errors import DataError
from gueststar.model.header import HeaderMapping, TimeMapping

INSTRUMENT = ("INSTRUME", "TELESCOP", "CAMERA", "LCAMMOD")
EXPOSURE = ("EXPTIME", "EXPOSURE", "EXP_TIME", "AEXPTIME", "XPOSURE", "ITIME", "TEXP")
TYPE = ("IMAGETYP", "IMGTYPE", "OBSTYPE", "IMTYPE", "OBS_TYPE", "EXPTYPE", "PICTTYPE", "FRAME")
FILTER = ("FILTER", "FILTERID", "FILTNAME", "FILTER1", "FILTER2", "FILT", "INSFILTE", "FILTNAM")
POSITION = (
    ("RA", "DEC"), ("OBJCTRA", "OBJCTDEC"), ("TELRA", "TELDEC"), ("RADEG", "DECDEG"), ("RA_TEL", "DEC_TEL"),
    ("TRGTRA", "TRGTDEC"), ("RA_OBJ", "DEC_OBJ"), ("RAD", "DECD"), ("CRVAL1", "CRVAL2"),
)  # fmt: skip
AIRMASS, OBJECT, FIELD = ("AIRMASS", "SECZ"), ("OBJECT", "OBJNAME", "TARGNAME"), ("FIELDID", "FIELD_ID", "FIELD")
INVESTIGATOR = ("PROGRMPI", "PROPOSER", "PINAME", "PI", "OBSERVER")

_WORDS = {
    "science": ("OBJECT", "SCIENCE", "LIGHT", "LIGHT FRAME", "TARGET", "SKY", "OBSERVE"),
    "bias": ("BIAS", "ZERO", "BIAS FRAME"),
    "dark": ("DARK", "DARK FRAME"),
    "flat": (
        "FLAT", "FLAT FIELD", "FLAT FRAME", "FLATFIELD", "SKYFLAT", "SKY FLAT", "DOMEFLAT", "DOME FLAT", "DOME_FLAT",
        "TWIFLAT", "TWILIGHT", "TWILIGHT FLAT",
    ),
}  # fmt: skip
_BAND = re.compile(r"(?:^|[^A-Za-z])(u|g|r|i|z|y|U|B|V|R|I)(?:p|s|c|mag|')?(?![A-Za-z])")
_CLEAR = re.compile(r"clear|none|open|lum|white|empty|no filter", re.IGNORECASE)
_CATALOG_BAND = {
    "u": "g",
    "g": "g",
    "U": "g",
    "B": "g",
    "V": "g",
    "r": "r",
    "R": "r",
    "i": "i",
    "I": "i",
    "z": "z",
    "y": "z",
}
_FID = {"g": 1, "r": 2, "i": 3}


def choose_instrument(cards: Cards) -> dict[str, Any]:
    """Return the cards that say which camera this is."""
    found = {key: Guess(re.escape(value), key) for key in INSTRUMENT if (value := cards.text((key,)))}
    return dict(list(found.items())[:2])


def choose_type(cards: Cards) -> dict[str, Any]:
    """Return the card of the observation type and the meaning of its usual words."""
    card = cards.find(TYPE)
    if card is None:
        assumed = Guess("science", f"none of {', '.join(TYPE[:4])} is there", "assumed")
        return {"observation_type": [], "default_observation_type": assumed}
    meanings: dict[str, Any] = {word: kind for kind, words in _WORDS.items() for word in words}
    value = str(card.value).upper()
    if value not in meanings:
        meanings[value] = Guess(_similar_type(value), f"{card.keyword} = {card.value!r} is no usual word", "assumed")
    return {"observation_type": Guess([card.keyword], card.keyword), "observation_types": meanings}


def _similar_type(value: str) -> str:
    for kind in ("flat", "bias", "dark"):
        if kind.upper() in value:
            return kind
    return "bias" if "ZERO" in value else "science"


def choose_filters(all_cards: Sequence[Cards]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the header keys of the filter, and a filter for each value seen in the files."""
    names: dict[str, Card] = {}
    for cards in all_cards:
        card = cards.find(FILTER)
        if card is not None:
            names.setdefault(str(card.value).strip(), card)
    if not names:
        clear = {"physical_filter": "clear", "band": "clear", "fid": 4}
        return {"filter": [], "default_filter": Guess("clear", "no filter card", "assumed")}, [clear]
    keywords = list(dict.fromkeys(card.keyword for card in names.values()))
    filters = [_filter(name, card.keyword, number) for number, (name, card) in enumerate(sorted(names.items()))]
    return {"filter": Guess(keywords, ", ".join(keywords))}, filters


def _filter(name: str, keyword: str, number: int) -> dict[str, Any]:
    band = band_of(name)
    catalog = _CATALOG_BAND.get(band, "r")
    return {
        "physical_filter": Guess(name, keyword),
        "band": Guess(band, f"from the name {name!r}", "inferred"),
        "fid": Guess(_FID.get(band, 4 + number), "number in alerts", "inferred" if band in _FID else "assumed"),
        "catalog_band": Guess(catalog, f"nearest to {band}", "inferred"),
        "colour": ["r", "i"] if catalog in "iz" else ["g", "r"],
    }


def band_of(name: str) -> str:
    """Return a band (g, r, V, clear...) from the name of a filter."""
    if _CLEAR.search(name):
        return "clear"
    found = _BAND.findall(name)
    return found[-1] if found else re.sub(r"\W+", "", name) or "clear"


def choose_position(cards: Cards) -> tuple[dict[str, Any], tuple[float, float] | None]:
    """Return the position's cards and unit, and the position they give."""
    for ra, dec in POSITION:
        card = cards.find((ra,))
        if card is None or cards.find((dec,)) is None:
            continue
        for unit in ("auto", "decimal_hours"):
            mapping = HeaderMapping(time=TimeMapping(keywords=("DATE-OBS",)), ra=(ra,), dec=(dec,), position_unit=unit)
            try:
                place = boresight(cards, mapping)
            except DataError:
                continue
            return {"ra": Guess([ra], ra), "dec": Guess([dec], dec), "position_unit": _unit(card, unit)}, place
    assumed = Guess(["RA"], "no card holds a position", "assumed")
    return {"ra": assumed, "dec": ["DEC"], "position_unit": "auto"}, None


def _unit(card: Card, unit: str) -> Guess:
    if unit == "decimal_hours":
        return Guess(unit, f"{card.keyword} in degrees contradicts the WCS", "inferred")
    if isinstance(card.value, str) and not is_number(card.value):
        return Guess("sexagesimal_hours", card.keyword)
    is_doubtful = card.keyword != "CRVAL1" and abs(float(card.value)) <= 24.0
    source = f"{card.keyword} = {card.value} may be hours" if is_doubtful else card.keyword
    return Guess("degrees", source, "assumed" if is_doubtful else "read")


def choose_rest(cards: Cards) -> dict[str, Any]:
    """Return the cards of exposure time, airmass, object, field, program and investigator."""
    chosen: dict[str, Any] = {}
    told = {"exposure_s": EXPOSURE, "airmass": AIRMASS, "object_name": OBJECT, "principal_investigator": INVESTIGATOR}
    for key, names in told.items():
        card = cards.find(names)
        missing: Any = Guess([names[0]], "no card is there", "assumed") if key == "exposure_s" else []
        chosen[key] = Guess([card.keyword], card.keyword) if card else missing
    field = cards.find(FIELD)
    chosen["field"] = Guess([field.keyword], field.keyword) if field and is_number(str(field.value)) else []
    if cards.text(("PROGRMID",)) in {"0", "1", "2", "3"}:
        chosen["program"] = {"keyword": Guess("PROGRMID", "PROGRMID")}
    else:
        chosen["program"] = {"default": Guess(3, "no card tells who may see the data: private", "assumed")}
    texts = [card for names in (EXPOSURE, AIRMASS) if (card := cards.find(names)) and isinstance(card.value, str)]
    if texts:
        chosen["numbers_as_strings"] = Guess(True, f"{texts[0].keyword} is text")
    return chosen
