"""Compare the WCS in raw headers with the focal plane that a camera's description implies."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from gueststar.cameras.findings import Finding
from gueststar.cameras.header_wcs import detector_wcs
from gueststar.cameras.translate import Translation
from gueststar.core.errors import DataError
from gueststar.formats.raw import RawFile
from gueststar.model.camera import Camera, Detector
from gueststar.model.wcs import Wcs


def wcs_findings(camera: Camera, raw: RawFile, translation: Translation) -> Iterable[Finding]:
    """Compare each detector's header WCS, where there is one, with scale, place, rotation and parity described.

    A disagreement is bad where the header's WCS is trusted, else a note: it may be the header that is wrong.
    """
    info = translation.info
    if info.observation_type != "science" or info.ra is None or info.dec is None:
        return
    for detector_id in translation.detector_ids:
        detector = camera.detector(detector_id)
        try:
            told = detector_wcs(camera, raw, detector)
        except DataError as error:
            yield Finding("note", f"header WCS not used: {str(error).removeprefix(f'{raw.path}: ')}").about(
                detector.name
            )
            continue
        if told is not None:
            implied = camera.nominal_wcs(detector, ra=info.ra, dec=info.dec, rotation_deg=info.rotation_deg)
            yield _comparison(camera, detector, told, implied).about(detector.name)


def _comparison(camera: Camera, detector: Detector, told: Wcs, implied: Wcs) -> Finding:
    scale = told.pixel_scale_arcsec / implied.pixel_scale_arcsec - 1.0
    apart = _separation_arcmin(told, implied, detector)
    turn = (rotation_of(told) - rotation_of(implied) + 180.0) % 360.0 - 180.0
    is_mirrored = camera.is_parity_known and told.parity != implied.parity
    is_good = (
        abs(scale) <= camera.pixel_scale_tolerance
        and apart <= camera.pointing_tolerance_arcmin
        and abs(turn) <= camera.rotation_tolerance_deg
        and not is_mirrored
    )
    text = (
        f"header WCS against description: scale {100 * scale:+.2f} %, centre {apart:.2f} arcmin off, "
        f"rotation {turn:+.2f} deg{', mirrored' if is_mirrored else ''}"
    )
    return Finding("good" if is_good else "bad" if camera.header.is_wcs_trusted else "note", text)


def rotation_of(wcs: Wcs) -> float:
    """Return the rotation of a WCS in the sense of `Wcs.tangent`, degrees."""
    return float(np.degrees(np.arctan2(wcs.cd[0, 1], wcs.cd[1, 1])))


def _separation_arcmin(first: Wcs, second: Wcs, detector: Detector) -> float:
    """Return how far apart two WCS put the centre of a detector."""
    ny, nx = detector.shape
    unit = []
    for wcs in (first, second):
        ra, dec = (np.radians(angle) for angle in wcs.pixel_to_sky(x=(nx - 1) / 2, y=(ny - 1) / 2))
        unit.append(np.array([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)]))
    return float(np.degrees(2.0 * np.arcsin(min(1.0, float(np.linalg.norm(unit[0] - unit[1])) / 2.0)))) * 60.0
