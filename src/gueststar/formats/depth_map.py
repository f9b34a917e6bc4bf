"""Maps of limiting magnitudes as a few kilobytes: one byte a mesh."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from gueststar.core.errors import DataError
from gueststar.model.depth import DepthMap

_HEAD = struct.Struct(">4sHHIIdd")
_MAGIC = b"GSD1"
STEP_MAG = 0.02
"""Limits are kept to half of this."""


def encode_depth(depth: DepthMap) -> bytes:
    """Return a map to the nearest 0.02 mag; limits more than 5.06 mag brighter than the faintest are told as that."""
    limit = depth.limit.astype(np.float64)
    is_known = np.isfinite(limit)
    faintest = float(limit[is_known].max()) if is_known.any() else 0.0
    steps = np.clip(np.rint((faintest - np.where(is_known, limit, faintest)) / STEP_MAG), 0, 254) + 1
    levels = np.where(is_known, steps, 0).astype(np.uint8)
    my, mx = levels.shape
    ny, nx = depth.shape
    return _HEAD.pack(_MAGIC, my, mx, ny, nx, faintest, depth.n_sigma) + zlib.compress(levels.tobytes(), 1)


def decode_depth(data: bytes) -> DepthMap:
    """Return the map that `encode_depth` made; raises DataError if ``data`` is not one."""
    try:
        magic, my, mx, ny, nx, faintest, n_sigma = _HEAD.unpack_from(data)
        levels = np.frombuffer(zlib.decompress(data[_HEAD.size :]), dtype=np.uint8).reshape(my, mx)
    except (struct.error, zlib.error, ValueError) as error:
        raise DataError(f"{len(data)} bytes are not a map of limits: {error}") from None
    if magic != _MAGIC:
        raise DataError(f"{len(data)} bytes are not a map of limits: they begin with {magic!r}")
    limit = np.where(levels > 0, faintest - STEP_MAG * (levels.astype(np.float32) - 1), np.nan)
    return DepthMap(limit.astype(np.float32), (ny, nx), n_sigma)
