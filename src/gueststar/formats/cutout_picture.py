"""Draw a packet's cut-outs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.core.errors import DataError
from gueststar.formats.atomic import appearing_whole
from gueststar.formats.cutouts import decode_cutout

_PANELS = (("cutoutScience", "science"), ("cutoutTemplate", "reference"), ("cutoutDifference", "difference"))


def draw_cutouts(packet: dict[str, Any], path: Path) -> None:
    """Write science, reference and difference side by side as a PNG, y upwards, grey from 1 to 99 per cent.

    Raises DataError for a packet whose cut-outs are not in the form of ZTF's.
    """
    if any(key not in packet or not isinstance(packet[key], dict | None) for key, _ in _PANELS):
        raise DataError("its cut-outs are not in the form of ZTF's: they cannot be drawn")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, (key, title) in zip(figure.subplots(1, 3), _PANELS, strict=True):
        axes.set_title(title)
        axes.set_axis_off()
        if packet[key] is None:
            axes.text(0.5, 0.5, "none", ha="center", va="center", transform=axes.transAxes)
            continue
        stamp = decode_cutout(packet[key]["stampData"])
        low, high = np.nanpercentile(stamp, (1, 99)) if np.isfinite(stamp).any() else (0.0, 1.0)
        axes.imshow(stamp, origin="lower", cmap="gray", vmin=low, vmax=max(high, low + 1e-6), interpolation="nearest")
    candidate = packet["candidate"]
    figure.suptitle(
        f"{packet['objectId']}  {packet['candid']}  {candidate['magpsf']:.2f} mag  rb {candidate['rb']:.2f}"
    )
    with appearing_whole(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png")


def triplet_png(stamps: NDArray[np.float32], *, zoom: int = 5) -> bytes:
    """Return science, reference and difference ``[3, side, side]`` side by side as a PNG, y upwards.

    Grey runs from two sigma below the level to the brightest of the middle, by inverse hyperbolic sine; the difference
    is symmetric about zero. Pixels without data are dark red.
    """
    gap = np.ones((stamps.shape[1], 2, 3))
    parts: list[NDArray[Any]] = []
    for plane, stamp in enumerate(stamps):
        parts += [_shown(stamp, is_symmetric=plane == 2), gap]
    return _png(np.concatenate(parts[:-1], axis=1), zoom)


def stamp_png(stamp: NDArray[np.float32], *, is_difference: bool, zoom: int = 5) -> bytes:
    """Return one cut-out as a PNG, drawn as in `triplet_png`."""
    return _png(_shown(stamp, is_symmetric=is_difference), zoom)


def _png(picture: NDArray[Any], zoom: int) -> bytes:
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, np.repeat(np.repeat(picture[::-1], zoom, axis=0), zoom, axis=1), format="png")
    return buffer.getvalue()


def _shown(stamp: NDArray[np.float32], *, is_symmetric: bool) -> NDArray[np.float64]:
    """Return ``[ny, nx, 3]`` colours from 0 to 1."""
    grey = _grey(stamp, is_symmetric=is_symmetric)
    shown = np.repeat(np.nan_to_num(grey)[..., None], 3, axis=2)
    shown[~np.isfinite(grey)] = (0.35, 0.05, 0.05)
    return shown


def _grey(stamp: NDArray[np.float32], *, is_symmetric: bool) -> NDArray[np.float64]:
    """Return values from 0 to 1, NaN where there is no data."""
    known = stamp[np.isfinite(stamp)].astype(np.float64)
    if known.size == 0:
        return np.full(stamp.shape, np.nan)
    level = 0.0 if is_symmetric else float(np.median(known))
    sigma = max(1.4826 * float(np.median(np.abs(known - np.median(known)))), 1e-12)
    ny, nx = stamp.shape
    middle = stamp[ny // 3 : -(ny // 3), nx // 3 : -(nx // 3)]
    peak = np.nanmax(np.abs(middle - level)) / sigma if np.isfinite(middle).any() else 5.0
    high = np.arcsinh(max(float(peak), 5.0) / 3.0)
    low = -high if is_symmetric else np.arcsinh(-2.0 / 3.0)
    return np.asarray(np.clip((np.arcsinh((stamp - level) / sigma / 3.0) - low) / (high - low), 0.0, 1.0))
