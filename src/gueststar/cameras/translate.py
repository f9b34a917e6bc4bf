"""From a raw file's headers to the facts of the exposure, as the camera's description says."""

from __future__ import annotations

from dataclasses import dataclass, field

from astropy.time import Time

from gueststar.cameras import header_facts as facts
from gueststar.cameras.cards import Cards
from gueststar.cameras.file_contents import detectors_in
from gueststar.cameras.header_time import start_of_exposure
from gueststar.cameras.header_wcs import detector_wcs
from gueststar.core import times
from gueststar.core.errors import DataError
from gueststar.formats.raw import RawFile
from gueststar.model.camera import Camera, Detector
from gueststar.model.exposure import ExposureInfo, ObservationType
from gueststar.model.wcs import Wcs

_FUTURE_DAYS = 1.0
"""By how much an observatory's clock may be fast."""


@dataclass(frozen=True)
class Translation:
    """What the headers of one raw file say."""

    info: ExposureInfo
    """A science exposure has no position where the header tells none and the camera's are found by their stars."""
    detector_ids: tuple[int, ...]
    """Detectors of the camera that the file holds."""
    wcs: dict[int, Wcs] = field(default_factory=dict)
    """By detector id, in the assembled detector's frame; only where the camera's header WCS is trusted."""
    warnings: tuple[str, ...] = ()
    """What was mended, computed or is doubtful; for the exposure's account."""


def translate(camera: Camera, raw: RawFile, *, now_mjd_tai: float | None = None) -> Translation:
    """Translate the headers of a raw file of ``camera``.

    ``now_mjd_tai`` is the present (default: the clock's); exposures from the future are refused. Raises
    DataError, one line that names file, card and value, for anything missing or impossible.
    """
    cards = Cards.of(raw, numbers_as_strings=camera.header.numbers_as_strings, mapping=camera.header)
    facts.check_instrument(camera, cards)
    kind = facts.observation_type(camera, cards)
    exposure_s = facts.exposure_time(camera, cards, kind)
    start, time_doubts = start_of_exposure(cards, camera.header.time, exposure_s=exposure_s)
    _check_not_in_future(cards, start, now_mjd_tai)
    glass = facts.filter_used(camera, cards) if kind in ("science", "flat") else None
    has_position = kind == "science" and camera.has_sky
    pointing, position_doubts = facts.position(camera, cards) if has_position else (None, ())
    program, program_doubts = facts.program(camera, cards)
    airmass, sky_doubts = facts.airmass(camera, cards, pointing, start + exposure_s / 2.0 / 86400.0)
    field_number, field_doubts = facts.field_number(camera, cards)
    detectors, lost = detectors_in(camera, cards, raw)
    wcs, wcs_doubts = _trusted_wcs(camera, raw, detectors, kind)
    info = ExposureInfo(
        camera=camera.name,
        observation_type=kind,
        mjd_start=start,
        exposure_s=exposure_s,
        day_obs=times.day_obs(start, longitude_deg=camera.site.longitude_deg),
        program=program,
        physical_filter=glass.physical_filter if glass else None,
        band=glass.band if glass else None,
        ra=pointing[0] if pointing else None,
        dec=pointing[1] if pointing else None,
        rotation_deg=cards.number(camera.header.rotation_deg) or 0.0,
        field=field_number,
        object_name=cards.text(camera.header.object_name) or "",
        airmass=airmass,
        principal_investigator=cards.text(camera.header.principal_investigator) or "",
        is_target_of_opportunity=facts.is_target_of_opportunity(camera, cards),
    )
    warnings = (*time_doubts, *position_doubts, *program_doubts, *sky_doubts, *field_doubts, *lost, *wcs_doubts)
    return Translation(info, tuple(detector.id for detector in detectors), wcs, warnings)


def _check_not_in_future(cards: Cards, start: float, now_mjd_tai: float | None) -> None:
    now = float(Time.now().tai.mjd) if now_mjd_tai is None else now_mjd_tai
    if start > now + _FUTURE_DAYS:
        raise DataError(f"{cards.name}: taken {times.isot_utc(start)} UTC, which is in the future")


def _trusted_wcs(
    camera: Camera, raw: RawFile, detectors: tuple[Detector, ...], kind: ObservationType
) -> tuple[dict[int, Wcs], tuple[str, ...]]:
    if not camera.header.is_wcs_trusted or kind != "science":
        return {}, ()
    found: dict[int, Wcs] = {}
    doubts = []
    for detector in detectors:
        wcs = detector_wcs(camera, raw, detector)
        if wcs is None:
            doubts.append(f"detector {detector.name} has no WCS in the header")
            continue
        found[detector.id] = wcs
        ratio = wcs.pixel_scale_arcsec / camera.pixel_scale_arcsec
        if abs(ratio - 1.0) > camera.pixel_scale_tolerance:
            doubts.append(
                f"detector {detector.name}: the header's WCS has {wcs.pixel_scale_arcsec:.4f} arcsec a pixel, "
                f"the camera's description {camera.pixel_scale_arcsec}"
            )
    return found, tuple(doubts)
