"""A packet of ours in the form of Rubin's alerts (schema 10.0), made of what the packet in the log tells.

Fluxes are nJy, times MJD TAI, angles degrees. As nothing else is looked at, this form can tell no more than the
packet may: rights were settled when that was made. What the packet does not hold is null.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np

from gueststar.core import ids, times
from gueststar.core.errors import DataError
from gueststar.formats.avro import rubin_field_names
from gueststar.formats.cutouts import decode_cutout, fits_of, plain_cutout
from gueststar.formats.ztf_fields import MISSING, MISSING_FLUX
from gueststar.model.photocal import NJY_ZERO_POINT

BANDS = {1: "g", 2: "r", 3: "i"}
"""Filter number of the packet -> Rubin's name; others have none."""

_JD_OFFSET = 2400000.5
_IMAGE = re.compile(r"_(\d+)_(\d+)-[0-9a-f]+\.")
"""Where the name of one of our difference images tells visit and detector."""
_PER_MAG = math.log(10.0) / 2.5
_SIX_BANDS = "ugrizy"


class _Exposure(NamedTuple):
    """What is known of the exposure of one item."""

    visit: int
    detector: int
    midpoint: float
    """MJD TAI."""
    end: float
    """MJD TAI."""


def rubin_packet(packet: Mapping[str, Any]) -> dict[str, Any]:
    """Return a packet (decoded) as a record of Rubin's alert schema; raises DataError for one of another form."""
    try:
        return _rubin_packet(packet)
    except (KeyError, TypeError, ValueError, OverflowError) as problem:
        raise DataError(f"alert {packet.get('candid')} cannot be told in Rubin's form: {problem!r}") from problem


def _rubin_packet(packet: Mapping[str, Any]) -> dict[str, Any]:
    candidate, object_id = packet["candidate"], object_number(packet["objectId"])
    history, forced = packet["prv_candidates"] or [], packet["fp_hists"] or []
    exposures = _exposures(candidate, history, forced)
    detections = [item for item in history if item["candid"] is not None]
    earlier = [_dia_source(item, exposures[item["pid"]], object_id) for item in detections]
    trigger = _dia_source(candidate, exposures[candidate["pid"]], object_id)
    fluxes = [_forced_source(item, exposures[item["pid"]], object_id, candidate) for item in forced]
    return _record(
        "alert", diaSourceId=packet["candid"], diaSource=trigger, prvDiaSources=earlier or None,
        prvDiaForcedSources=fluxes or None, diaObject=_dia_object([*earlier, trigger], fluxes, object_id),
        **_cutouts(packet, is_positive=candidate["isdiffpos"] in ("t", "1")),
    )  # fmt: skip


def object_number(name: str) -> int:
    """Return ``diaObjectId`` of an object: the number that the letters of its name write, from 1.

    The letters are the same in all streams, whatever the year before them. A foreign name has a hash.
    """
    try:
        return ids.object_name_parts(name).number + 1
    except DataError:
        return ids.content_id(name)


def _exposures(candidate: Mapping[str, Any], *histories: Iterable[Mapping[str, Any]]) -> dict[int, _Exposure]:
    """Return the exposures of all items by ``pid``: what one item of an image does not tell, another may."""
    items = [candidate, *(item for history in histories for item in history)]
    seconds = {item["pid"]: item["exptime"] for item in items if item.get("exptime", MISSING) not in (None, MISSING)}
    named = {item["pid"]: found for item in items if (found := _IMAGE.search(item.get("pdiffimfilename") or ""))}
    exposures = {}
    for item in items:
        pid, start = item["pid"], _mjd_tai(item["jd"])
        days = seconds.get(pid, candidate["exptime"]) / 86400.0
        known = named.get(pid)
        visit = int(known.group(1)) if known else ids.exposure_id(start)
        detector = int(known.group(2)) if known else item["rcid"] or 0
        exposures[pid] = _Exposure(visit, detector, start + days / 2.0, start + days)
    return exposures


def _dia_source(item: Mapping[str, Any], exposure: _Exposure, object_id: int) -> dict[str, Any]:
    """Return a detection, of the candidate or of the history."""
    sign = 1.0 if item["isdiffpos"] in ("t", "1") else -1.0
    flux, flux_err = _flux(item["magpsf"], item["sigmapsf"], sign)
    ap_flux, ap_flux_err = _flux(item["magap"], item["sigmagap"], sign)
    star = _known(item["classtar"])
    return _record(
        "diaSource", diaSourceId=item["candid"], visit=exposure.visit, detector=exposure.detector,
        diaObjectId=object_id, midpointMjdTai=exposure.midpoint, ra=item["ra"], dec=item["dec"],
        x=item["xpos"] - 1.0, y=item["ypos"] - 1.0, centroid_flag=False, apFlux=ap_flux, apFluxErr=ap_flux_err,
        apFlux_flag=ap_flux is None, isNegative=sign < 0, snr=_known(item["scorr"]), psfFlux=flux, psfFluxErr=flux_err,
        psfFlux_flag=flux is None, extendedness=None if star is None else 1.0 - star, reliability=_known(item["rb"]),
        band=BANDS.get(item["fid"]), timeProcessedMjdTai=exposure.end, pixelFlags_bad=(item["nbad"] or 0) > 0,
    )  # fmt: skip


def _forced_source(
    item: Mapping[str, Any], exposure: _Exposure, object_id: int, candidate: Mapping[str, Any]
) -> dict[str, Any]:
    scale = 10.0 ** (0.4 * (NJY_ZERO_POINT - item["magzpsci"])) if item["magzpsci"] > 0 else None
    flux, error = item["forcediffimflux"], item["forcediffimfluxunc"]
    is_known = scale is not None and MISSING_FLUX not in (flux, error)
    return _record(
        "diaForcedSource", diaForcedSourceId=ids.content_id(object_id, item["pid"]), diaObjectId=object_id,
        ra=candidate["ra"], dec=candidate["dec"], visit=exposure.visit, detector=exposure.detector,
        psfFlux=flux * scale if is_known else None, psfFluxErr=error * scale if is_known else None,
        midpointMjdTai=exposure.midpoint, band=BANDS.get(item["fid"]), timeProcessedMjdTai=exposure.end,
    )  # fmt: skip


def _dia_object(
    detections: Sequence[Mapping[str, Any]], forced: Sequence[Mapping[str, Any]], object_id: int
) -> dict[str, Any]:
    """Return what detections (the alert's own last) and forced fluxes tell together."""
    ra = np.radians([item["ra"] for item in detections])
    mean_ra = math.degrees(math.atan2(np.sin(ra).mean(), np.cos(ra).mean())) % 360.0
    moments = [item["midpointMjdTai"] for item in detections]
    told: dict[str, Any] = {f"{band}_psfFluxNdata": 0 for band in _SIX_BANDS}
    for band in BANDS.values():
        told |= _band_means(band, [d for d in detections if d["band"] == band and d["psfFluxErr"]])
        seen = [f for f in forced if f["band"] == band and f["psfFluxErr"]]
        if seen:
            told[f"{band}_fpFluxMean"], told[f"{band}_fpFluxMeanErr"] = _weighted_mean(seen)
    return _record(
        "diaObject", diaObjectId=object_id, validityStartMjdTai=detections[-1]["timeProcessedMjdTai"], ra=mean_ra,
        dec=float(np.mean([item["dec"] for item in detections])), firstDiaSourceMjdTai=min(moments),
        lastDiaSourceMjdTai=max(moments), nDiaSources=len(detections), **told,
    )  # fmt: skip


def _band_means(band: str, detections: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if not detections:
        return {}
    by_time = sorted(detections, key=lambda item: item["midpointMjdTai"])
    flux, error = (np.array([item[name] for item in by_time]) for name in ("psfFlux", "psfFluxErr"))
    days = np.diff([item["midpointMjdTai"] for item in by_time])
    mean, mean_error = _weighted_mean(by_time)
    told: dict[str, Any] = {
        "Mean": mean, "MeanErr": mean_error, "Ndata": len(by_time), "Min": float(flux.min()), "Max": float(flux.max()),
        "ErrMean": float(error.mean()),
    }  # fmt: skip
    if len(by_time) > 1:
        told["Sigma"] = float(flux.std(ddof=1))
    if (days > 0).any():
        told["MaxSlope"] = float((np.diff(flux)[days > 0] / days[days > 0]).max())
    return {f"{band}_psfFlux{name}": value for name, value in told.items()}


def _weighted_mean(items: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Return the mean flux by inverse variance, and its error."""
    weight = np.array([item["psfFluxErr"] for item in items]) ** -2.0
    flux = np.array([item["psfFlux"] for item in items])
    return float((weight * flux).sum() / weight.sum()), float(weight.sum() ** -0.5)


def _cutouts(packet: Mapping[str, Any], *, is_positive: bool) -> dict[str, bytes | None]:
    """Return the cut-outs as FITS; the difference is science minus reference whatever its sign."""
    names = ("cutoutScience", "cutoutTemplate", "cutoutDifference")
    stamps = {name: None if packet[name] is None else plain_cutout(packet[name]["stampData"]) for name in names}
    if not is_positive and stamps["cutoutDifference"] is not None:
        stamps["cutoutDifference"] = fits_of(-decode_cutout(stamps["cutoutDifference"]))
    return stamps


def _flux(mag: float, mag_err: float, sign: float) -> tuple[float | None, float | None]:
    """Return flux and error, nJy; None where the magnitude is not known."""
    if mag == MISSING or mag_err == MISSING:
        return None, None
    flux = 10.0 ** (0.4 * (NJY_ZERO_POINT - mag))
    return sign * flux, flux * mag_err * _PER_MAG


def _known(value: float | None) -> float | None:
    return None if value == MISSING else value


@lru_cache(maxsize=4096)
def _mjd_tai(jd_utc: float) -> float:
    return times.mjd_tai_from_mjd_utc(jd_utc - _JD_OFFSET)


def _record(name: str, **values: Any) -> dict[str, Any]:
    """Return a record with null in the fields that are not told."""
    return _blank(name) | values


@cache
def _blank(name: str) -> dict[str, Any]:
    return dict.fromkeys(rubin_field_names(name))
