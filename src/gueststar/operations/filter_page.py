"""The page of a dry run: what a filter would have sent, with cut-outs, self-contained."""

from __future__ import annotations

import base64
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gueststar.core.errors import DataError
from gueststar.formats.atomic import appearing_whole
from gueststar.formats.avro import decode_alert
from gueststar.formats.cutout_picture import triplet_png
from gueststar.formats.cutouts import CUTOUT_SIDE, decode_cutout
from gueststar.model.readers import PacketNights
from gueststar.operations.filter_trial import FilterTrial
from gueststar.store.alerts.log import AlertLog

_CUTOUTS = ("cutoutScience", "cutoutTemplate", "cutoutDifference")
_ZOOM = 2


def write_filter_page(path: Path, trial: FilterTrial, log: AlertLog, *, nights: PacketNights, n_alerts: int) -> int:
    """Write the page with at most ``n_alerts`` alerts, evenly spread in time; return how many it shows.

    Only packets that ``nights`` allows are opened.
    """
    import jinja2

    n = trial.alerts.num_rows
    rows = np.unique(np.linspace(0, n - 1, min(n, n_alerts)).astype(np.int64))
    shown = [_shown(row, log, nights) for row in trial.alerts.take(pa.array(rows)).to_pylist()]
    text = (files("gueststar.operations") / "templates" / "filter.html").read_text()
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(text)
    with appearing_whole(path) as temporary:
        temporary.write_text(template.render(trial=trial, request=trial.request, shown=shown))
    return len(shown)


def _shown(row: dict[str, Any], log: AlertLog, nights: PacketNights) -> dict[str, Any]:
    """Return an alert as the page shows it: its values, and its cut-outs where it has them."""
    entry = log.find(row["candid"], programs=nights)
    picture = ""
    if entry is not None:
        try:
            picture = _picture(decode_alert(log.read(entry)))
        except DataError:
            picture = ""
    told = {name: _written(value) for name, value in row.items() if name not in ("candid", "objectId")}
    return {"candid": row["candid"], "name": row["objectId"], "picture": picture, "told": told}


def _picture(packet: dict[str, Any]) -> str:
    """Return science, reference and difference as the source of an image; what is not there is dark red."""
    stamps = np.full((3, CUTOUT_SIDE, CUTOUT_SIDE), np.nan, dtype=np.float32)
    for plane, name in enumerate(_CUTOUTS):
        if (cutout := packet.get(name)) is not None:
            pixels = decode_cutout(cutout["stampData"])[:CUTOUT_SIDE, :CUTOUT_SIDE]
            stamps[plane, : pixels.shape[0], : pixels.shape[1]] = pixels
    if not np.isfinite(stamps).any():
        return ""
    return "data:image/png;base64," + base64.b64encode(triplet_png(stamps, zoom=_ZOOM)).decode()


def _written(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5f}" if abs(value) >= 1e6 else f"{value:.8g}"
    return "not known" if value is None else str(value)
