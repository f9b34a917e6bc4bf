"""What the network sees of alert packets, ours or ZTF's: their cut-outs, at the width of the PSF that they tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.vetting.calibration import calibrated
from gueststar.algorithms.vetting.score import ReliabilityModel
from gueststar.algorithms.vetting.stamps import StampViews, stamp_views
from gueststar.core.errors import ConfigError, DataError
from gueststar.formats.cutouts import CUTOUT_SIDE, decode_cutout

_CUTOUTS = ("cutoutScience", "cutoutTemplate", "cutoutDifference")
_FIRST_PIXEL = 1.0


def score_packets(model: ReliabilityModel, packets: Sequence[dict[str, Any]]) -> NDArray[np.float64]:
    """Return the network's probability of being real of each packet's trigger, from its cut-outs alone.

    Raises ConfigError if the model has no network, DataError for a packet that lacks a cut-out.
    """
    if model.network is None:
        raise ConfigError(f"reliability model {model.version} has no network")
    if not packets:
        return np.zeros(0)
    views = [packet_views(packet) for packet in packets]
    together = StampViews(*map(np.concatenate, zip(*views, strict=True)))
    return calibrated(model.network.calibration, model.network.network.log_odds(together))


def packet_views(packet: dict[str, Any]) -> StampViews:
    """Return the views of one packet's trigger.

    The difference of a negative detection is reference minus science in a packet; ``seeratio * fwhm`` is the FWHM of
    the difference's PSF (pixels). Stamps cut by the edge of the image are taken as they are, around their place.
    """
    candidate = packet["candidate"]
    is_positive = candidate["isdiffpos"] in ("t", "1", True)
    stamps = np.stack([_stamp(packet, name) for name in _CUTOUTS])
    if not is_positive:
        stamps[2] *= -1.0
    offset = [float(value) - np.rint(float(value)) if value is not None else 0.0 for value in _place(candidate)]
    width, ratio = candidate.get("fwhm"), candidate.get("seeratio")
    fwhm = float(width) * float(ratio) if width and ratio and width > 0 and ratio > 0 else float("nan")
    return stamp_views(
        stamps[None], dx=np.array(offset[:1]), dy=np.array(offset[1:]), fwhm=fwhm, is_positive=np.array([is_positive])
    )


def _place(candidate: dict[str, Any]) -> list[float | None]:
    """Return x and y of the trigger, pixels from 0."""
    return [None if (value := candidate.get(name)) is None else value - _FIRST_PIXEL for name in ("xpos", "ypos")]


def _stamp(packet: dict[str, Any], name: str) -> NDArray[np.float32]:
    """Return a cut-out of the full side; one that the edge of the image cut is completed by NaN."""
    if packet.get(name) is None:
        raise DataError(f"packet {packet.get('candid')} has no {name}")
    pixels = decode_cutout(packet[name]["stampData"])
    if pixels.shape == (CUTOUT_SIDE, CUTOUT_SIDE):
        return pixels
    whole = np.full((CUTOUT_SIDE, CUTOUT_SIDE), np.nan, dtype=np.float32)
    ny, nx = (min(n, CUTOUT_SIDE) for n in pixels.shape)
    y0, x0 = (_first(packet["candidate"], axis, n) for axis, n in (("ypos", ny), ("xpos", nx)))
    whole[y0 : y0 + ny, x0 : x0 + nx] = pixels[:ny, :nx]
    return whole


def _first(candidate: dict[str, Any], axis: str, n: int) -> int:
    """Return where a cut stamp begins: those at the low edge lack their first pixels."""
    position = candidate.get(axis)
    is_low = position is not None and position < CUTOUT_SIDE
    return CUTOUT_SIDE - n if is_low else 0
