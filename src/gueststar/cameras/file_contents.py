"""Which detectors of a camera a raw file holds."""

from __future__ import annotations

from gueststar.cameras.cards import Cards
from gueststar.core.errors import DataError
from gueststar.formats.raw import RawFile, image_with_section
from gueststar.model.camera import Camera, Detector


def detectors_in(camera: Camera, cards: Cards, raw: RawFile) -> tuple[tuple[Detector, ...], tuple[str, ...]]:
    """Return the detectors that the file holds whole, and a warning for each that it should hold but does not.

    Raises DataError where it holds none, or its card names no detector of the camera.
    """
    held, warnings, errors = [], [], []
    for detector in _expected(camera, cards):
        try:
            _check_sections(detector, raw)
        except DataError as error:
            warnings.append(f"detector {detector.name} is not in the file: {error}")
            errors.append(error)
        else:
            held.append(detector)
    if not held:
        raise errors[0]
    return tuple(held), tuple(warnings)


def _expected(camera: Camera, cards: Cards) -> tuple[Detector, ...]:
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
