"""Exposures and fields as records of the dataset registry."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from astropy.time import Time, TimeDelta
from lsst.daf.butler import Timespan
from lsst.sphgeom import ConvexPolygon, LonLat, UnitVector3d

from gueststar.model.camera import Camera
from gueststar.model.exposure import ExposureInfo
from gueststar.store.butler_instrument import NO_FILTER, VISIT_SYSTEM
from gueststar.store.butler_setup import SKYMAP


def insert_exposure(butler: Any, camera: Camera, info: ExposureInfo, detector_ids: Iterable[int]) -> None:
    """Write an exposure (and the visit, if it saw the sky) with footprints of these detectors; again is the same.

    Footprints are nominal: where the header says the telescope pointed.
    """
    number, instrument = info.exposure_id, camera.name
    facts = {
        "instrument": instrument, "id": number, "physical_filter": info.physical_filter or NO_FILTER,
        "day_obs": info.day_obs, "target_name": info.object_name[:64] or None,
        "science_program": info.program.name.lower(), "observation_reason": info.observation_type,
        "exposure_time": info.exposure_s, "seq_num": number, "timespan": _timespan_of(info),
    }  # fmt: skip
    registry = butler.registry
    with butler.transaction():
        night = {"instrument": instrument, "id": info.day_obs, "timespan": _night(camera, info.day_obs)}
        registry.insertDimensionData("day_obs", night, skip_existing=True)
        registry.insertDimensionData("group", {"instrument": instrument, "name": str(number)}, skip_existing=True)
        registry.insertDimensionData("exposure", {**facts, **_exposure_facts(info)}, skip_existing=True)
        if info.observation_type == "science" and info.ra is not None and info.dec is not None:
            _insert_visit(registry, camera, info, {**facts, "name": str(number)}, list(detector_ids))


def insert_field(butler: Any, camera: Camera, field_id: int, *, ra: float, dec: float) -> None:
    """Write a field as a tract, with its detectors as patches; again is the same."""
    footprints = _footprints(camera, ra=ra, dec=dec)
    tract = {"skymap": SKYMAP, "id": field_id, "region": _hull(footprints.values())}
    patches = [
        {"skymap": SKYMAP, "tract": field_id, "id": number, "cell_x": number, "cell_y": 0, "region": _hull([corners])}
        for number, corners in footprints.items()
    ]
    with butler.transaction():
        butler.registry.insertDimensionData("tract", tract, skip_existing=True)
        butler.registry.insertDimensionData("patch", *patches, skip_existing=True)


def timespan(begin_mjd_tai: float, end_mjd_tai: float) -> Any:
    """Return a middleware time span from two MJD (TAI)."""
    return Timespan(*(Time(mjd, format="mjd", scale="tai") for mjd in (begin_mjd_tai, end_mjd_tai)))


def _insert_visit(
    registry: Any, camera: Camera, info: ExposureInfo, facts: dict[str, Any], detector_ids: list[int]
) -> None:
    footprints = _footprints(camera, ra=info.ra or 0.0, dec=info.dec or 0.0, rotation_deg=info.rotation_deg)
    key = {"instrument": camera.name, "visit": info.exposure_id}
    registry.insertDimensionData("visit", {**facts, "region": _hull(footprints.values())}, skip_existing=True)
    registry.insertDimensionData("visit_definition", {**key, "exposure": info.exposure_id}, skip_existing=True)
    member = {**key, "visit_system": VISIT_SYSTEM}
    registry.insertDimensionData("visit_system_membership", member, skip_existing=True)
    regions = [{**key, "detector": number, "region": _hull([footprints[number]])} for number in detector_ids]
    registry.insertDimensionData("visit_detector_region", *regions, skip_existing=True)


def _exposure_facts(info: ExposureInfo) -> dict[str, Any]:
    is_on_sky = info.observation_type == "science"
    return {
        "obs_id": str(info.exposure_id), "group": str(info.exposure_id), "dark_time": info.exposure_s,
        "observation_type": info.observation_type, "seq_start": info.exposure_id, "seq_end": info.exposure_id,
        "tracking_ra": info.ra, "tracking_dec": info.dec, "sky_angle": info.rotation_deg if is_on_sky else None,
        "has_simulated": False, "can_see_sky": is_on_sky,
    }  # fmt: skip


def _timespan_of(info: ExposureInfo) -> Any:
    begin = Time(info.mjd_start, format="mjd", scale="tai")
    return Timespan(begin, begin + TimeDelta(max(info.exposure_s, 0.001), format="sec"))


def _night(camera: Camera, day_obs: int) -> Any:
    noon = Time(datetime.strptime(str(day_obs), "%Y%m%d"), scale="utc") + TimeDelta(
        0.5 - camera.site.longitude_deg / 360.0, format="jd"
    )
    return Timespan(noon.tai, (noon + TimeDelta(1.0, format="jd")).tai)


def _footprints(camera: Camera, *, ra: float, dec: float, rotation_deg: float = 0.0) -> dict[int, list[Any]]:
    footprints = {}
    for detector in camera.detectors:
        wcs = camera.nominal_wcs(detector, ra=ra, dec=dec, rotation_deg=rotation_deg)
        corners = zip(*wcs.corners(detector.shape), strict=True)
        footprints[detector.id] = [UnitVector3d(LonLat.fromDegrees(float(a), float(d))) for a, d in corners]
    return footprints


def _hull(polygons: Iterable[list[Any]]) -> Any:
    return ConvexPolygon([corner for polygon in polygons for corner in polygon])
