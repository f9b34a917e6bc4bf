"""From a raw file's headers to the facts of the exposure, as the camera's description says."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from astropy.time import Time

from gueststar.algorithms.astrometry.horizon import airmass_at, altitude_deg
from gueststar.cameras.cards import Cards
from gueststar.cameras.header_position import boresight
from gueststar.cameras.header_time import start_of_exposure
from gueststar.cameras.header_wcs import detector_wcs
from gueststar.core import times
from gueststar.core.errors import DataError
from gueststar.formats.raw import RawFile, image_with_section
from gueststar.model.camera import Camera, Detector, Filter
from gueststar.model.exposure import ExposureInfo, ObservationType
from gueststar.model.rights import Program
from gueststar.model.wcs import Wcs

_FUTURE_DAYS = 1.0
_HIGHEST_AIRMASS = 40.0


@dataclass(frozen=True)
class Translation:
    """What the headers of one raw file say."""

    info: ExposureInfo
    detector_ids: tuple[int, ...]
    """Detectors of the camera that the file holds."""
    wcs: dict[int, Wcs] = field(default_factory=dict)
    """By detector id, in the assembled detector's frame; only where the camera's header WCS is trusted."""
    warnings: tuple[str, ...] = ()
    """What was mended, computed or is doubtful; for the exposure's account."""


def translate(camera: Camera, raw: RawFile, *, now_mjd_tai: float | None = None) -> Translation:
    """Translate the headers of a raw file of ``camera``.

    ``now_mjd_tai`` is the present (default: the clock's); exposures from the future are refused. Raises DataError,
    one line that names file, card and value, for anything impossible.
    """
    cards = Cards.of(raw, numbers_as_strings=camera.header.numbers_as_strings)
    _check_instrument(camera, cards)
    kind = _observation_type(camera, cards)
    exposure_s = _exposure_s(camera, cards, kind)
    start, warnings = start_of_exposure(cards, camera.header.time, exposure_s=exposure_s)
    _check_not_in_future(cards, start, now_mjd_tai)
    glass = _filter(camera, cards) if kind in ("science", "flat") else None
    position = _position(camera, cards) if kind == "science" else None
    program, doubt = _program(camera, cards)
    airmass, sky_doubts = _airmass(camera, cards, position, start + exposure_s / 172800.0)
    field_number, field_doubts = _field(camera, cards)
    detectors, lost = _detectors(camera, cards, raw)
    info = ExposureInfo(
        camera=camera.name,
        observation_type=kind,
        mjd_start=start,
        exposure_s=exposure_s,
        day_obs=times.day_obs(start, longitude_deg=camera.site.longitude_deg),
        program=program,
        physical_filter=glass.physical_filter if glass else None,
        band=glass.band if glass else None,
        ra=position[0] if position else None,
        dec=position[1] if position else None,
        rotation_deg=cards.number(camera.header.rotation_deg) or 0.0,
        field=field_number,
        object_name=cards.text(camera.header.object_name) or "",
        airmass=airmass,
        principal_investigator=cards.text(camera.header.principal_investigator) or "",
    )
    wcs, wcs_doubts = _trusted_wcs(camera, raw, detectors, kind)
    return Translation(
        info,
        tuple(detector.id for detector in detectors),
        wcs,
        (*warnings, *doubt, *sky_doubts, *field_doubts, *lost, *wcs_doubts),
    )


def _check_instrument(camera: Camera, cards: Cards) -> None:
    for keyword, pattern in camera.header.instrument_match.items():
        value = cards.text((keyword,))
        if value is None or not re.fullmatch(pattern, value):
            raise DataError(f"{cards.name} is not from {camera.name}: {keyword} = {value!r}, expected {pattern!r}")


def _observation_type(camera: Camera, cards: Cards) -> ObservationType:
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
            f"{cards.name}: observation type {text!r} is unknown to {camera.name}: {sorted(known)}"
        ) from None


def _exposure_s(camera: Camera, cards: Cards, kind: ObservationType) -> float:
    card = cards.find(camera.header.exposure_s)
    if card is None:
        if kind == "bias":
            return 0.0
        raise DataError(f"{cards.name}: none of the cards {list(camera.header.exposure_s)} tells the exposure time")
    seconds = cards.number_of(card)
    least, most = camera.exposure_range_s if kind == "science" else (0.0, camera.exposure_range_s[1])
    if not least <= seconds <= most:
        raise DataError(f"{cards.name}: {card.keyword} = {card.value!r} s is impossible, needs {least} to {most}")
    return seconds


def _check_not_in_future(cards: Cards, start: float, now_mjd_tai: float | None) -> None:
    now = float(Time.now().tai.mjd) if now_mjd_tai is None else now_mjd_tai
    if start > now + _FUTURE_DAYS:
        raise DataError(f"{cards.name}: taken {times.isot_utc(start)} UTC, which is in the future")


def _filter(camera: Camera, cards: Cards) -> Filter:
    name = cards.text(camera.header.filter) or camera.header.default_filter
    if name is None:
        raise DataError(f"{cards.name}: none of the cards {list(camera.header.filter)} tells the filter")
    found = camera.filter_named(name)
    if found is None:
        known = [item.physical_filter for item in camera.filters]
        raise DataError(f"{cards.name}: filter {name!r} is unknown to {camera.name}: {known}")
    return found


def _position(camera: Camera, cards: Cards) -> tuple[float, float]:
    position = boresight(cards, camera.header)
    if position is None:
        raise DataError(f"{cards.name}: none of the cards {list(camera.header.ra)} tells the position")
    return position


def _program(camera: Camera, cards: Cards) -> tuple[Program, tuple[str, ...]]:
    """Return the access category; where it is not told, the default, where it is no known value, private."""
    mapping = camera.header.program
    if mapping.keyword is None:
        return Program(mapping.default), ()
    text = cards.text((mapping.keyword,))
    if text is None:
        default = Program(mapping.default)
        return default, (f"{mapping.keyword} is missing: program taken as {default.name.lower()}",)
    known = mapping.values or {str(int(program)): int(program) for program in Program}
    if text not in known:
        return Program.PRIVATE, (f"{mapping.keyword} = {text!r} is unknown: program taken as private",)
    return Program(known[text]), ()


def _airmass(
    camera: Camera, cards: Cards, position: tuple[float, float] | None, mjd_tai: float
) -> tuple[float | None, tuple[str, ...]]:
    """Return the header's airmass, or that of the position; a position that cannot be seen is doubted."""
    card = cards.find(camera.header.airmass)
    told = cards.number_of(card) if card is not None else None
    if position is None:
        return told, ()
    site = camera.site
    altitude = altitude_deg(
        ra=position[0], dec=position[1], mjd_utc=times.mjd_utc(mjd_tai),
        latitude_deg=site.latitude_deg, longitude_deg=site.longitude_deg, height_m=site.height_m,
    )  # fmt: skip
    doubts: tuple[str, ...] = ()
    if altitude < 0.0:
        doubts = (
            f"the position is {-altitude:.0f} deg below the horizon of {site.name} at this time: "
            "local time, or a wrong sign of longitude?",
        )
    computed = airmass_at(altitude) if altitude > 0.0 else None
    if told is None:
        return computed, doubts
    if not 1.0 <= told <= _HIGHEST_AIRMASS:
        return computed, (*doubts, f"airmass {told} is impossible: computed from site, time and position instead")
    return told, doubts


def _field(camera: Camera, cards: Cards) -> tuple[int | None, tuple[str, ...]]:
    text = cards.text(camera.header.field)
    if text is None:
        return None, ()
    if re.fullmatch(r"\d+(\.0*)?", text):
        return int(text.split(".")[0]), ()
    return None, (f"field {text!r} is not a number: left to be found from the position",)


def _detectors(camera: Camera, cards: Cards, raw: RawFile) -> tuple[tuple[Detector, ...], tuple[str, ...]]:
    """Return the detectors that the file holds, and warnings of those it should but does not."""
    wanted = _expected_detectors(camera, cards)
    held, lost, reasons = [], [], []
    for detector in wanted:
        try:
            _check_sections(detector, raw)
        except DataError as error:
            lost.append(detector.name)
            reasons.append(str(error))
        else:
            held.append(detector)
    if not held:
        raise DataError(reasons[0])
    return tuple(held), tuple(
        f"detector {name} is not in the file: {why}" for name, why in zip(lost, reasons, strict=True)
    )


def _expected_detectors(camera: Camera, cards: Cards) -> tuple[Detector, ...]:
    keyword = camera.header.detector_keyword
    if keyword is None:
        return camera.detectors
    value = cards.text((keyword,))
    if value is None:
        raise DataError(f"{cards.name}: card {keyword} that names the detector is missing")
    means = camera.header.detector_keyword_means
    wanted = value if means == "detector_name" else value.split(".")[0].lstrip("0") or "0"
    found = tuple(detector for detector in camera.detectors if _named(detector, means) == wanted)
    if not found:
        raise DataError(f"{cards.name}: {keyword} = {value!r} names no {means} of {camera.name}")
    return found


def _named(detector: Detector, means: str) -> str:
    return {"ccd": str(detector.ccd), "detector_id": str(detector.id), "detector_name": detector.name}[means]


def _check_sections(detector: Detector, raw: RawFile) -> None:
    for amplifier in detector.amplifiers:
        image_with_section(raw, amplifier.extension, amplifier.data_section)
        for overscan in amplifier.overscans:
            extension = amplifier.extension if overscan.extension is None else overscan.extension
            image_with_section(raw, extension, overscan.section)


def _trusted_wcs(
    camera: Camera, raw: RawFile, detectors: tuple[Detector, ...], kind: ObservationType
) -> tuple[dict[int, Wcs], tuple[str, ...]]:
    if not camera.header.is_wcs_trusted or kind != "science":
        return {}, ()
    found = {detector.id: detector_wcs(camera, raw, detector) for detector in detectors}
    missing = [detector.name for detector in detectors if found[detector.id] is None]
    warnings = (f"detectors {missing} have no WCS in the header",) if missing else ()
    return {key: wcs for key, wcs in found.items() if wcs is not None}, warnings
