"""Write raw headers so that the camera's own header mapping reads them back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.coordinates import Angle
from astropy.time import Time

from gueststar.core.errors import ConfigError
from gueststar.model.camera import Amplifier, Camera, Detector, Filter, parse_section
from gueststar.model.exposure import ObservationType
from gueststar.model.header import HeaderMapping, TimeMapping
from gueststar.model.wcs import Wcs


@dataclass(frozen=True)
class Facts:
    """What a header tells of an exposure."""

    observation_type: ObservationType
    mjd_start: float
    """MJD TAI."""
    exposure_s: float
    program: int
    glass: Filter | None = None
    ra: float | None = None
    """As the telescope believes, degrees."""
    dec: float | None = None
    airmass: float | None = None
    field: int | None = None
    object_name: str = ""


def primary_cards(camera: Camera, facts: Facts) -> dict[str, Any]:
    """Return the cards of the exposure as the camera writes them.

    ConfigError where the mapping has no way to say it, for instance no value for darks.
    """
    mapping = camera.header
    cards: dict[str, Any] = {key: example_of(pattern) for key, pattern in mapping.instrument_match.items()}
    if mapping.observation_type:
        cards[mapping.observation_type[0]] = observation_type_value(camera, facts.observation_type)
    cards.update(_time_cards(mapping.time, facts))
    if mapping.exposure_s:
        cards[mapping.exposure_s[0]] = _number(mapping, facts.exposure_s)
    if facts.glass is not None and mapping.filter:
        cards[mapping.filter[0]] = facts.glass.aliases[0] if facts.glass.aliases else facts.glass.physical_filter
    cards.update(_program_cards(mapping, facts.program))
    if facts.ra is not None and facts.dec is not None:
        cards.update(_position_cards(mapping, facts.ra, facts.dec))
        if mapping.rotation_deg:
            cards[mapping.rotation_deg[0]] = _number(mapping, 0.0)
    if facts.airmass is not None and mapping.airmass:
        cards[mapping.airmass[0]] = _number(mapping, round(facts.airmass, 4))
    if facts.field is not None and mapping.field:
        cards[mapping.field[0]] = facts.field
    if mapping.object_name:
        cards[mapping.object_name[0]] = facts.object_name
    if mapping.principal_investigator:
        cards[mapping.principal_investigator[0]] = f"program {facts.program}"
    cards["ORIGIN"] = "gueststar simulation"
    return cards


def calibration_program(camera: Camera) -> int:
    """Return the access category that calibration frames carry: engineering, where the camera can say so."""
    mapping = camera.header.program
    if mapping.keyword is None or (mapping.values and 0 not in mapping.values.values()):
        return mapping.default
    return 0


def has_observation_type(camera: Camera, kind: ObservationType) -> bool:
    """Return whether the camera's headers can say that an exposure is of this kind."""
    mapping = camera.header
    return kind in mapping.observation_types.values() or mapping.default_observation_type == kind


def observation_type_value(camera: Camera, kind: ObservationType) -> str | None:
    """Return the header value for a kind of exposure; None: the card is left out."""
    for value, meaning in camera.header.observation_types.items():
        if meaning == kind:
            return value
    if camera.header.default_observation_type == kind:
        return None
    raise ConfigError(f"camera {camera.name}: header.observation_types has no value for {kind}")


def part_cards(camera: Camera, detectors: tuple[Detector, ...]) -> dict[str, Any]:
    """Return the card that says which part of the camera a file holds, if the camera has one."""
    mapping = camera.header
    if mapping.detector_keyword is None:
        return {}
    first = detectors[0]
    value = {"detector_id": first.id, "detector_name": first.name, "ccd": first.ccd}[mapping.detector_keyword_means]
    return {mapping.detector_keyword: value}


def wcs_cards(wcs: Wcs, amplifier: Amplifier) -> dict[str, Any]:
    """Return the WCS of a detector as one of the raw extension of an amplifier."""
    source, target = parse_section(amplifier.data_section), parse_section(amplifier.detector_section)
    cd, crpix = np.array(wcs.cd), list(wcs.crpix)
    for axis, is_flipped in ((0, amplifier.flip_x), (1, amplifier.flip_y)):
        read, put = source[1 - axis], target[1 - axis]
        if is_flipped:
            crpix[axis] = put.stop - 1 - crpix[axis] + read.start
            cd[:, axis] *= -1.0
        else:
            crpix[axis] += read.start - put.start
    return Wcs(wcs.crval, (crpix[0], crpix[1]), cd, wcs.pv1, wcs.pv2).to_header()


def _number(mapping: HeaderMapping, value: float) -> float | str:
    return str(value) if mapping.numbers_as_strings else value


def _time_cards(mapping: TimeMapping, facts: Facts) -> dict[str, Any]:
    part = {"start": 0.0, "middle": 0.5, "end": 1.0}[mapping.point]
    moment = Time(facts.mjd_start + part * facts.exposure_s / 86400.0, format="mjd", scale="tai")
    told = getattr(moment, mapping.scale)
    if mapping.format == "isot":
        text = str(told.isot)
        if len(mapping.keywords) == 2:
            day, clock = text.split("T")
            return {mapping.keywords[0]: day, mapping.keywords[1]: clock}
        return {mapping.keywords[0]: text}
    return {mapping.keywords[0]: float(told.mjd if mapping.format == "mjd" else told.jd)}


def _program_cards(mapping: HeaderMapping, program: int) -> dict[str, Any]:
    keyword = mapping.program.keyword
    if keyword is None:
        return {}
    if not mapping.program.values:
        return {keyword: program}
    for value, number in mapping.program.values.items():
        if number == program:
            return {keyword: value}
    if mapping.program.default == program:
        return {}
    raise ConfigError(f"header.program.values has no value for program {program}")


def _position_cards(mapping: HeaderMapping, ra: float, dec: float) -> dict[str, Any]:
    if mapping.position_unit == "sexagesimal_hours":
        hours = Angle(ra, unit="deg").to_string(unit="hour", sep=":", precision=4, pad=True)
        degrees = Angle(dec, unit="deg").to_string(unit="deg", sep=":", precision=3, pad=True, alwayssign=True)
        return {mapping.ra[0]: str(hours), mapping.dec[0]: str(degrees)}
    value = ra / 15.0 if mapping.position_unit == "decimal_hours" else ra
    return {mapping.ra[0]: _number(mapping, round(value, 8)), mapping.dec[0]: _number(mapping, round(dec, 8))}


def example_of(pattern: str) -> str:
    """Return a short text that a regular expression matches as a whole; ConfigError if none is found.

    Groups are reduced to their first alternative, classes to their first member, repetitions to one or none.
    """
    text = re.sub(r"\(\?[a-zA-Z]+\)|\^|\$", "", pattern)
    while (shorter := re.sub(r"\((?:\?:)?([^()|]*)(?:\|[^()]*)?\)", r"\1", text)) != text:
        text = shorter
    text = text.split("|")[0]
    text = re.sub(r"\[([^\]\\^])[^\]]*\]", r"\1", text)
    for escape, member in ((r"\d", "1"), (r"\w", "a"), (r"\s", " ")):
        text = text.replace(escape, member)
    none = re.sub(r"\.[*?]|(?<!\\).\?|(?<!\\).\*|\{.*?\}|(?<!\\)\+", "", text)
    once = re.sub(r"(?<!\\)[*?+]|\{.*?\}", "", text)
    for candidate in (pattern, none, once, text):
        plain = re.sub(r"\\(.)", r"\1", candidate)
        if re.fullmatch(pattern, plain) and not ("*" in plain and "*" in pattern):
            return plain
    raise ConfigError(f"no example of the regular expression {pattern!r} was found for the header")
