"""Draft a camera's description from the headers of its files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gueststar.cameras.cards import Cards
from gueststar.cameras.drafting import exposure
from gueststar.cameras.drafting.amplifiers import amplifiers_of
from gueststar.cameras.drafting.detectors import (
    describe_detector,
    describe_place,
    extension_of,
    group_into_detectors,
    wcs_on_detector,
)
from gueststar.cameras.drafting.guess import Guess, guesses_in, plain
from gueststar.cameras.drafting.scale import choose_scale, header_wcs
from gueststar.cameras.drafting.site import choose_site
from gueststar.cameras.drafting.time import choose_time
from gueststar.cameras.drafting.yaml_text import yaml_text
from gueststar.cameras.load import parse_camera
from gueststar.core.errors import DataError
from gueststar.formats.raw import RawFile, read_comments, read_headers
from gueststar.model.camera import Camera

_GENERIC = {"main", "camera", "ccd", "imager", "image"}
_PART_OF_CAMERA = ("CCD_ID", "CCDID", "CCDNUM", "CCDNO")


@dataclass(frozen=True)
class Draft:
    """A drafted description and where each of its values came from."""

    camera: Camera
    text: str
    """YAML; values that no card says carry a comment."""
    guesses: tuple[tuple[str, Guess], ...]
    """Dotted key and guess, in order."""
    doubts: tuple[str, ...]
    """What contradicts itself in the header."""

    def lines(self) -> list[str]:
        """Return a table of what was found, how sure it is and where it came from; then the doubts."""
        rows = [(key, str(plain(guess)), guess.sureness, guess.source) for key, guess in self.guesses]
        widths = [min(max(len(row[column]) for row in rows), most) for column, most in ((0, 44), (1, 40), (2, 9))]
        table = [
            "  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[3]]) for row in rows
        ]
        return [*table, *(f"doubt: {doubt}" for doubt in self.doubts)]


def draft_camera(paths: Sequence[str | Path]) -> Draft:
    """Draft a description from one file (geometry, cards); more files add filters and kinds of frames.

    Raises DataError where the first file holds no image. The draft always loads; values marked FILL IN
    must be set by a person.
    """
    raws = [read_headers(path) for path in paths]
    raw, comments = raws[0], read_comments(paths[0])
    if not raw.images:
        raise DataError(f"{raw.path} holds no image")
    cards = Cards.of(raw, numbers_as_strings=True)
    time = choose_time(cards, comments)
    position, place = exposure.choose_position(cards)
    filter_keys, filters = exposure.choose_filters([Cards.of(item, numbers_as_strings=True) for item in raws])
    detectors, scale, doubts = _detectors(raw, comments, place)
    part = _number_as_part(raw, detectors)
    description: dict[str, Any] = {
        "name": Guess(_name(cards), "INSTRUME or TELESCOP", "inferred"),
        "site": choose_site(cards, place, time.mjd_tai),
        "pixel_scale_arcsec": scale,
        "pointing_tolerance_arcmin": Guess(10.0, "generous; make it smaller once measured", "assumed"),
        **_orientation(detectors),
        "filters": filters,
        "detectors": detectors,
        "header": {
            "instrument_match": exposure.choose_instrument(cards),
            **_types(raws),
            "time": time.mapping,
            **filter_keys,
            **position,
            **exposure.choose_rest(cards),
            **part,
        },
    }
    text = yaml_text(description)
    camera = parse_camera(text, source=f"draft from {raw.path}")
    return Draft(camera, text, tuple(guesses_in(description)), (*time.doubts, *doubts))


def _name(cards: Cards) -> str:
    text = cards.text(("INSTRUME", "CAMERA", "TELESCOP")) or "camera"
    if text.lower() in _GENERIC:
        text = f"{cards.text(('TELESCOP',)) or ''} {text}"
    name = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    return name if re.match(r"[a-z]", name) else f"camera_{name}".rstrip("_")


def _number_as_part(raw: RawFile, detectors: list[dict[str, Any]]) -> dict[str, Any]:
    """Number the detectors of a file that holds one CCD of several, and return the header keys that tell which."""
    if raw.extensions[0].shape is not None:
        return {}
    for key in _PART_OF_CAMERA:
        ccd = raw.primary.get(key)
        if isinstance(ccd, int) and not isinstance(ccd, bool) and ccd > 0:
            for number, detector in enumerate(detectors):
                detector["id"] = (ccd - 1) * len(detectors) + number
                detector["ccd"] = Guess(ccd, key)
                if len(detectors) <= 4:
                    detector["quadrant"] = Guess(number + 1, "order in the file", "inferred")
                detector["name"] = f"{ccd}.{number + 1}"
            why = f"{key} in a primary header without image: other files hold other CCDs, ADD THEM"
            return {"detector_keyword": Guess(key, why, "inferred"), "detector_keyword_means": "ccd"}
    return {}


def _types(raws: Sequence[RawFile]) -> dict[str, Any]:
    """Return the card of the observation type and the meanings of all words seen."""
    chosen = [exposure.choose_type(Cards.of(raw, numbers_as_strings=True)) for raw in raws]
    told = [item for item in chosen if "observation_types" in item]
    if not told:
        return chosen[0]
    meanings: dict[str, Any] = {}
    for item in told:
        meanings |= item["observation_types"]
    return {**told[0], "observation_types": meanings}


def _orientation(detectors: list[dict[str, Any]]) -> dict[str, Any]:
    if "focal_plane" in detectors[0]:
        return {"rotation_tolerance_deg": Guess(5.0, "usual", "assumed")}
    why = "the header has no WCS"
    return {
        "rotation_tolerance_deg": Guess(180.0, f"{why}: the rotation is unknown", "inferred"),
        "is_parity_known": Guess(False, why, "inferred"),
    }


def _detectors(
    raw: RawFile, comments: dict[str, str], boresight: tuple[float, float] | None
) -> tuple[list[dict[str, Any]], Guess, tuple[str, ...]]:
    """Return the detectors' keys, the pixel scale, and doubts about the WCS."""
    groups = group_into_detectors(raw, amplifiers_of(raw))
    detectors, doubts, scale = [], [], None
    for number, group in enumerate(groups):
        described = describe_detector(raw, group, number=number)
        wcs, wrong = header_wcs(raw, group[0].image)
        if wrong:
            doubts.append(f"WCS of extension {extension_of(raw, group[0])}: {wrong}")
        if wcs is not None:
            on_detector = wcs_on_detector(wcs, plain(described["amplifiers"][0]))
            centre = boresight or wcs.crval
            described["focal_plane"] = describe_place(
                on_detector, described["shape"], centre, is_alone=len(groups) == 1
            )
        scale = scale or choose_scale(raw.cards_of(group[0].image), comments, wcs)
        detectors.append(described)
    assert scale is not None
    return detectors, scale, tuple(dict.fromkeys(doubts))
