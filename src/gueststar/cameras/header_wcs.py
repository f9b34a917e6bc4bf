"""The WCS that a raw header holds, in the frame of the assembled detector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gueststar.cameras.cards import Card, Cards
from gueststar.core.errors import DataError
from gueststar.formats.raw import RawFile
from gueststar.formats.wcs_header import WCS_NUMBER, has_celestial_axes, wcs_from_header
from gueststar.model.camera import Amplifier, Camera, Detector, parse_section
from gueststar.model.wcs import Wcs


def detector_wcs(camera: Camera, raw: RawFile, detector: Detector) -> Wcs | None:
    """Return the header's WCS for an assembled detector, None where the header holds none.

    Raises DataError where its numbers are text or TAN has distortion terms and the camera's description
    does not say that this camera writes so.
    """
    for amplifier in detector.amplifiers:
        extension = raw.find(amplifier.extension)
        if extension is None or extension.shape is None:
            continue
        header = raw.cards_of(extension)
        if has_celestial_axes(header):
            wcs = wcs_from_header(_mended(camera, header, str(raw.path)), extension.shape)
            return in_detector_frame(wcs, amplifier)
    return None


def _mended(camera: Camera, header: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the WCS cards with what the camera is known to write wrongly set right."""
    cards = Cards(name, header, camera.header.numbers_as_strings)
    mended = {
        key: cards.number_of(Card(key, value)) if WCS_NUMBER.fullmatch(key) and isinstance(value, str) else value
        for key, value in header.items()
    }
    is_tan = str(mended.get("CTYPE1", "")).endswith("-TAN")
    terms = [key for key, value in mended.items() if key.startswith(("PV1_", "PV2_")) and value != 0.0]
    if is_tan and terms:
        if not camera.header.tan_means_tpv:
            raise DataError(
                f"{name}: CTYPE1 says TAN but {terms[0]} = {mended[terms[0]]} is there; "
                "if this camera means TPV, set header.tan_means_tpv"
            )
        mended["CTYPE1"] = str(mended["CTYPE1"])[:-3] + "TPV"
        mended["CTYPE2"] = str(mended["CTYPE2"])[:-3] + "TPV"
    return mended


def in_detector_frame(wcs: Wcs, amplifier: Amplifier) -> Wcs:
    """Return a WCS of an amplifier's raw extension as one of the detector it is assembled into."""
    source, target = parse_section(amplifier.data_section), parse_section(amplifier.detector_section)
    cd, crpix = np.array(wcs.cd), list(wcs.crpix)
    for axis, is_flipped in ((0, amplifier.flip_x), (1, amplifier.flip_y)):
        read, put = source[1 - axis], target[1 - axis]
        if is_flipped:
            crpix[axis] = put.stop - 1 - (crpix[axis] - read.start)
            cd[:, axis] *= -1.0
        else:
            crpix[axis] += put.start - read.start
    return Wcs(wcs.crval, (crpix[0], crpix[1]), cd, wcs.pv1, wcs.pv2)
