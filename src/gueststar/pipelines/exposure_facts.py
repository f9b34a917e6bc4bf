"""The facts of the exposure that a processed file is of, from the cards that the camera's raw files carry too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from astropy.coordinates import Angle

from gueststar.cameras.translate import translate
from gueststar.core.errors import DataError
from gueststar.formats.raw import RawExtension, RawFile
from gueststar.formats.wcs_header import has_celestial_axes, wcs_from_header
from gueststar.model.camera import Amplifier, Camera, Detector
from gueststar.model.exposure import ExposureInfo


def with_cards(raw: RawFile, cards: Mapping[str, Any]) -> RawFile:
    """Return a file's headers with cards that stand in for those that no header of it has."""
    first = raw.images[0].header if raw.images else {}
    silent = {key: value for key, value in cards.items() if key not in raw.primary and key not in first}
    return replace(raw, primary={**raw.primary, **silent})


def exposure_of(camera: Camera, raw: RawFile, *, detector: int | None) -> tuple[ExposureInfo, int]:
    """Return the exposure and the detector of a processed file; DataError where its cards do not tell them.

    The pixels need not lie as in a raw file, so the amplifiers are left aside. A file that does not say what was
    observed is a science exposure, one that names no instrument is this camera's, and one without a
    pointing points where the middle of its WCS is.
    """
    raw = _with_position(camera, raw)
    largest = max(item.shape for item in camera.detectors)
    frame = RawExtension(0, "", raw.primary, largest)
    held = tuple(replace(item, index=0, name="", shape=largest) for item in raw.images[:1]) or (frame,)
    found = translate(_as_processed(camera, raw, detector), RawFile(raw.path, raw.primary, held))
    if found.info.observation_type != "science":
        raise DataError(f"{raw.path} is of a {found.info.observation_type} exposure, not of a science exposure")
    if len(found.detector_ids) != 1:
        raise DataError(
            f"{raw.path} does not tell which of {len(found.detector_ids)} detectors it is from: --detector ID"
        )
    return found.info, found.detector_ids[0]


def _as_processed(camera: Camera, raw: RawFile, detector: int | None) -> Camera:
    """Return the camera as processed files show it: whole detectors, cards that may be gone."""
    detectors = camera.detectors if detector is None else (camera.detector(detector),)
    cards = {**(raw.images[0].header if raw.images else {}), **raw.primary}
    changes: dict[str, Any] = {
        "is_wcs_trusted": False,
        "instrument_match": {key: value for key, value in camera.header.instrument_match.items() if key in cards},
        "default_observation_type": camera.header.default_observation_type or "science",
    }
    if detector is not None:
        changes["detector_keyword"] = None
    mapping = camera.header.model_copy(update=changes)
    stated = {name: getattr(camera, name) for name in Camera.model_fields}
    # The stars of a processed file are not looked at to find where it lies.
    stated["blind_solving"] = None
    return Camera(**{**stated, "header": mapping, "detectors": tuple(map(_one_amplifier, detectors))})


def _with_position(camera: Camera, raw: RawFile) -> RawFile:
    """Return the headers with a pointing from the WCS where no card tells one."""
    image = next(iter(raw.images), None)
    if image is None or image.shape is None:
        return raw
    cards = {**image.header, **raw.primary}
    if any(key in cards for key in camera.header.ra) or not has_celestial_axes(raw.cards_of(image)):
        return raw
    ny, nx = image.shape
    wcs = wcs_from_header(raw.cards_of(image), image.shape)
    ra, dec = (float(value) for value in wcs.pixel_to_sky(x=(nx - 1) / 2, y=(ny - 1) / 2))
    told: tuple[Any, Any] = (ra, dec)
    if camera.header.position_unit == "decimal_hours":
        told = (ra / 15.0, dec)
    elif camera.header.position_unit == "sexagesimal_hours":
        texts = Angle(ra, "deg").to_string("hourangle", sep=":", precision=4), Angle(dec, "deg").to_string(sep=":")
        told = (str(texts[0]), str(texts[1]))
    return replace(raw, primary={**raw.primary, camera.header.ra[0]: told[0], camera.header.dec[0]: told[1]})


def _one_amplifier(detector: Detector) -> Detector:
    section = f"[1:{detector.shape[1]},1:{detector.shape[0]}]"
    amplifier = detector.amplifiers[0]
    whole = Amplifier(
        name="whole", data_section=section, detector_section=section, gain=amplifier.gain,
        read_noise=amplifier.read_noise, saturation=amplifier.saturation,
    )  # fmt: skip
    return detector.model_copy(update={"amplifiers": (whole,)})
