"""Draw a packet's cut-outs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gueststar.formats.atomic import appearing_whole
from gueststar.formats.cutouts import decode_cutout

_PANELS = (("cutoutScience", "science"), ("cutoutTemplate", "reference"), ("cutoutDifference", "difference"))


def draw_cutouts(packet: dict[str, Any], path: Path) -> None:
    """Write science, reference and difference side by side as a PNG, y upwards, grey from 1 to 99 per cent."""
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
