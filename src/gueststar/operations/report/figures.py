"""Pictures of the nightly report, as PNG bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gueststar.model.camera import Camera
from gueststar.model.metrics import METRICS_BY_NAME
from gueststar.operations.report.account import Fate, NightAccount
from gueststar.operations.report.night_report import science_units, value_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gueststar.operations.report.latency import Latency
    from gueststar.operations.report.trends import Trends

INK, MUTED, ACCENT, WARN, BAD = "#1c2430", "#8a94a3", "#2a6f97", "#d9902f", "#b3423a"
BAND_COLOURS = {"u": "#6a4c93", "g": "#2e8b57", "r": "#c0392b", "i": "#8d5524", "z": "#444444"}


def blank(width: float, height: float, n: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure with ``n`` axes side by side, in the house style; sizes in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    axes = figure.subplots(1, n, squeeze=False)[0].tolist()
    for ax in axes:
        ax.tick_params(labelsize=7, colors=INK)
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
    return figure, axes


def png(figure: Figure) -> bytes:
    """Return a figure as PNG bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def trend(account: NightAccount, camera: Camera, name: str) -> bytes:
    """Draw one metric of every detector image against time, with its thresholds."""
    metric = METRICS_BY_NAME[name]
    figure, (ax,) = blank(4.6, 2.1)
    units = science_units(account)
    start = min((u.exposure.info.mjd_start for u in units), default=0.0)
    bands = sorted({str(u.exposure.info.band) for u in units})
    for number, band in enumerate(bands):
        mine = [u for u in units if str(u.exposure.info.band) == band]
        hours = [(u.exposure.info.mjd_start - start) * 24.0 for u in mine]
        colour = BAND_COLOURS.get(band, f"C{number}")
        ax.plot(hours, [value_of(u, name) for u in mine], "o", ms=3, color=colour, label=band, alpha=0.8)
    values = np.array([value_of(u, name) for u in units])
    values = values[np.isfinite(values)]
    if limits := metric.thresholds(camera):
        for limit, colour in zip(limits, (WARN, BAD), strict=True):
            ax.axhline(limit, color=colour, lw=0.8, ls="--")
    if values.size:
        low, high = float(values.min()), float(np.percentile(values, 98))
        margin = 0.15 * max(high - low, 1e-3 * abs(high), 1e-6)
        ax.set_ylim(low - margin, high + 2 * margin)
    ax.set_title(f"{name}" + (f" [{metric.unit}]" if metric.unit else ""), fontsize=8, color=INK, loc="left")
    ax.set_xlabel("hours since the first exposure", fontsize=7, color=MUTED)
    if len(bands) > 1:
        ax.legend(fontsize=6, frameon=False, ncols=len(bands), loc="upper right")
    return png(figure)


def focal_plane(account: NightAccount, camera: Camera, names: Sequence[str]) -> bytes:
    """Draw the median of metrics over the night on each detector, at its place in the focal plane."""
    from matplotlib.patches import Rectangle

    figure, axes = blank(2.7 * len(names), 2.7, len(names))
    scale = camera.pixel_scale_arcsec / 60.0
    for ax, name in zip(axes, names, strict=True):
        medians = _median_by_detector(account, name)
        finite = [v for v in medians.values() if math.isfinite(v)]
        low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
        span = max(high - low, 1e-9)
        for detector in camera.detectors:
            ny, nx = detector.shape
            if round(detector.focal_plane.rotation_deg / 90.0) % 2:
                ny, nx = nx, ny
            x, y = detector.focal_plane.x_arcsec / 60.0, detector.focal_plane.y_arcsec / 60.0
            value = medians.get(detector.id, math.nan)
            colour: Any = "#eeeeee" if not math.isfinite(value) else _shade((value - low) / span)
            corner = (x - nx * scale / 2, y - ny * scale / 2)
            ax.add_patch(Rectangle(corner, nx * scale, ny * scale, facecolor=colour, edgecolor="white"))
            if len(camera.detectors) <= 16:
                text = f"{detector.name}\n{value:.3g}" if math.isfinite(value) else detector.name
                ax.text(x, y, text, ha="center", va="center", fontsize=6, color=INK)
        ax.set_title(name, fontsize=8, color=INK, loc="left")
        ax.autoscale_view()
        ax.set_aspect("equal")
        ax.set_xlabel("arcmin (west →)", fontsize=7, color=MUTED)
    return png(figure)


def _shade(fraction: float) -> tuple[float, float, float]:
    low, high = np.array([0.86, 0.92, 0.96]), np.array([0.30, 0.58, 0.74])
    mixed = low + (high - low) * fraction
    return float(mixed[0]), float(mixed[1]), float(mixed[2])


def _median_by_detector(account: NightAccount, name: str) -> dict[int, float]:
    values: dict[int, list[float]] = {}
    for unit in science_units(account):
        value = value_of(unit, name)
        if math.isfinite(value):
            values.setdefault(unit.detector, []).append(value)
    return {detector: float(np.median(found)) for detector, found in values.items()}


def completeness(truth: dict[str, Any]) -> bytes:
    """Draw the share of true transients that were detected, and alerted, against their magnitude."""
    figure, (ax,) = blank(4.6, 2.4)
    table = truth["completeness"]
    middle = [0.5 * (row["mag_low"] + row["mag_high"]) for row in table]
    for key, colour, label in (("detected", ACCENT, "detected"), ("alerted", WARN, "alerted")):
        share = [row[key] / row["n"] if row["n"] else math.nan for row in table]
        error = [
            math.sqrt(max(s * (1 - s), 0.25 / row["n"]) / row["n"]) if row["n"] else 0.0
            for s, row in zip(share, table, strict=True)
        ]
        above = [min(e, 1.0 - s) if math.isfinite(s) else 0.0 for s, e in zip(share, error, strict=True)]
        ax.errorbar(middle, share, [error, above], fmt="o-", ms=3, lw=1, color=colour, label=label)
    for row, x in zip(table, middle, strict=True):
        if row["n"]:
            ax.text(x, 1.06, f"{row['n']:.0f}", fontsize=6, color=MUTED, ha="center")
    # Limits of its own: left to the data, a night with few filled bins would put the others' labels outside.
    ax.set_xlim(min(row["mag_low"] for row in table), max(row["mag_high"] for row in table))
    ax.set_ylim(0, 1.15)
    ax.set_title("transients found, of those in the field", fontsize=8, color=INK, loc="left")
    ax.set_xlabel("magnitude of the true difference flux (AB)", fontsize=7, color=MUTED)
    ax.legend(fontsize=6, frameon=False, loc="lower left")
    return png(figure)


def injections(pooled: dict[str, Any]) -> bytes:
    """Draw the share of artificial stars that was found, on the image and on the difference, one axes a filter."""
    filters = pooled["filters"]
    figure, axes = blank(4.6 * len(filters), 2.4, len(filters))
    for ax, (glass, found) in zip(axes, filters.items(), strict=True):
        rows = found["bins"]
        middle = [0.5 * (row["mag_low"] + row["mag_high"]) for row in rows]
        for key, total, colour, label in (
            ("n_source", "n", ACCENT, "in the catalog"),
            ("n_candidate", "n_differenced", WARN, "on the difference"),
            ("n_alert", "n_differenced", BAD, "likely alerts"),
        ):
            if not any(row[key] for row in rows):
                continue
            share = [row[key] / row[total] if row[total] else math.nan for row in rows]
            ax.plot(middle, share, "o-", ms=3, lw=1, color=colour, label=label, alpha=0.8)
        if found["limiting_mag"] is not None:
            ax.axvline(found["limiting_mag"], color=MUTED, lw=0.8, ls="--", label="computed 5-sigma limit")
        ax.axhline(0.5, color=MUTED, lw=0.4)
        ax.set_xlim(rows[0]["mag_low"], rows[-1]["mag_high"])
        ax.set_ylim(0, 1.05)
        ax.set_title(f"{glass}: artificial stars found, {found['n_images']} images", fontsize=8, color=INK, loc="left")
        ax.set_xlabel("magnitude (AB)", fontsize=7, color=MUTED)
        ax.legend(fontsize=6, frameon=False, loc="lower left")
    return png(figure)


def injection_classes(pooled: dict[str, Any]) -> bytes:
    """Draw what was found on differences against magnitude, by surface brightness and by distance to bright stars."""
    from matplotlib import colormaps

    groups = [
        (glass, by, rows) for glass, classes in pooled["classes"].items() for by, rows in classes.items()
        if any(item["n_differenced"] for row in rows for item in row["bins"])
    ]  # fmt: skip
    figure, axes = blank(4.6 * len(groups), 2.4, len(groups))
    titles = {"surface": "by what they lie on", "distance": "by distance to bright stars"}
    for ax, (glass, by, rows) in zip(axes, groups, strict=True):
        for k, row in enumerate(rows):
            counted = [item for item in row["bins"] if item["n_differenced"]]
            middle = [0.5 * (item["mag_low"] + item["mag_high"]) for item in counted]
            share = [item["n_candidate"] / item["n_differenced"] for item in counted]
            colour = colormaps["viridis"](k / max(len(rows) - 1, 1))
            ax.plot(middle, share, "o-", ms=3, lw=1, color=colour, label=row["label"], alpha=0.8)
        ax.axhline(0.5, color=MUTED, lw=0.4)
        ax.set_ylim(0, 1.05)
        ax.set_title(f"{glass}: artificial stars found, {titles[by]}", fontsize=8, color=INK, loc="left")
        ax.set_xlabel("magnitude (AB)", fontsize=7, color=MUTED)
        ax.legend(fontsize=5, frameon=False, loc="lower left")
    return png(figure)


FATE_COLOURS = {
    Fate.PROCESSED: "#7fb69a", Fate.FAILED: BAD, Fate.HELD: WARN, Fate.PENDING: MUTED, Fate.UNEXPLAINED: "#000000",
}  # fmt: skip


def fates(account: NightAccount) -> bytes:
    """Draw one square per detector image in the order of time, coloured by fate."""
    from matplotlib.colors import ListedColormap

    kinds = list(FATE_COLOURS)
    exposures = sorted({unit.exposure.id for unit in account.units})
    detectors = sorted({unit.detector for unit in account.units})
    column = {exposure: n for n, exposure in enumerate(exposures)}
    row = {detector: n for n, detector in enumerate(detectors)}
    squares = np.full((max(len(detectors), 1), max(len(exposures), 1)), np.nan)
    for unit in account.units:
        squares[row[unit.detector], column[unit.exposure.id]] = kinds.index(unit.fate)
    figure, (ax,) = blank(9.4, 1.2 + min(0.14 * len(detectors), 4.0))
    ax.pcolormesh(
        squares, cmap=ListedColormap(list(FATE_COLOURS.values())), vmin=-0.5, vmax=len(kinds) - 0.5,
        edgecolors="white", linewidth=0.4 if len(exposures) < 200 else 0.0,
    )  # fmt: skip
    ax.set_yticks([])
    ax.set_xlabel("exposure (in the order of time); rows are detectors", fontsize=7, color=MUTED)
    return png(figure)


def latency(told: Latency) -> bytes:
    """Draw the minutes from the shutter to the alert over the night, and how they are distributed."""
    from matplotlib.ticker import LogLocator, NullLocator

    figure, (ax, histogram) = blank(9.4, 2.3, 2)
    start = min((image.shutter for image in told.images), default=0.0)
    minutes = np.array([max((image.transfer_s + image.processing_s) / 60.0, 1e-2) for image in told.images])
    hours = np.array([(image.shutter - start) / 3600.0 for image in told.images])
    is_late = np.array([image.is_backlog for image in told.images])
    known = minutes[np.isfinite(minutes)]
    limits = [2.0 * limit / 60.0 for limit in (told.goal_s, told.required_s)]  # transfer and processing each
    low, high = min([*known, *limits]), max([*known, *limits])
    bins = np.geomspace(0.8 * low, 1.25 * high, 40).tolist()
    for group, colour, label in ((~is_late, ACCENT, "tonight"), (is_late, WARN, "backlog")):
        mine = group & np.isfinite(minutes)
        if mine.any():
            ax.plot(hours[mine], minutes[mine], ".", ms=3, color=colour, alpha=0.6, label=label)
            histogram.hist(minutes[mine], bins=bins, color=colour, alpha=0.7)
    for minute, colour, word in zip(limits, (WARN, BAD), ("goal", "required"), strict=True):
        ax.axhline(minute, color=colour, lw=0.8, ls="--", label=word)
        histogram.axvline(minute, color=colour, lw=0.8, ls="--")
    ax.set_yscale("log")
    histogram.set_xscale("log")
    for axis in (ax.yaxis, histogram.xaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())
    ax.set_title("minutes from the shutter to the alert", fontsize=8, color=INK, loc="left")
    ax.set_xlabel("hours since the first exposure", fontsize=7, color=MUTED)
    histogram.set_title("detector images by minutes to the alert", fontsize=8, color=INK, loc="left")
    ax.legend(fontsize=6, frameon=False, ncols=4, loc="upper left")
    return png(figure)


def nights(trends: Trends, name: str) -> bytes:
    """Draw a metric's median over the last nights, a line a filter, with its thresholds; the bars are 16 to 84 %."""
    figure, (ax,) = blank(4.6, 2.1)
    rows = [row for row in trends.rows if row.name == name]
    for number, row in enumerate(rows):
        known = [(k, value) for k, value in enumerate(row.values) if value is not None]
        x = [k for k, _ in known]
        below = [value.median - value.low for _, value in known]
        above = [value.high - value.median for _, value in known]
        middle = [value.median for _, value in known]
        ax.errorbar(
            x,
            middle,
            [below, above],
            fmt="o-",
            ms=3,
            lw=0.8,
            elinewidth=0.6,
            color=f"C{number}",
            label=row.physical_filter,
        )
    if rows and rows[0].fair is not None and rows[0].poor is not None:
        for limit, colour in ((rows[0].fair, WARN), (rows[0].poor, BAD)):
            low, high = ax.get_ylim()
            if low - (high - low) < limit < high + (high - low):  # far away it would flatten the rest
                ax.axhline(limit, color=colour, lw=0.8, ls="--")
    ticks = sorted({round(k) for k in np.linspace(0, len(trends.nights) - 1, min(5, len(trends.nights)))})
    ax.set_xticks(ticks, [str(trends.nights[k]) for k in ticks])
    ax.set_title(name + (f" [{rows[0].unit}]" if rows and rows[0].unit else ""), fontsize=8, color=INK, loc="left")
    ax.set_xlabel("night", fontsize=7, color=MUTED)
    if len(rows) > 1:
        ax.legend(fontsize=6, frameon=False, ncols=len(rows), loc="upper right")
    return png(figure)


def thumbnail(image: NDArray[np.float32], *, sigma: float, side: int = 360) -> bytes:
    """Draw an image, block-averaged to about ``side`` pixels, from -2 to +8 sigma of its averaged noise."""
    from matplotlib.image import imsave

    factor = max(1, max(image.shape) // side)
    ny, nx = (n // factor * factor for n in image.shape)
    blocks = image[:ny, :nx].reshape(ny // factor, factor, nx // factor, factor)
    with np.errstate(invalid="ignore"):
        small = np.nanmean(np.nanmean(blocks, axis=3), axis=1)
    noise = max(sigma / factor, 1e-12)
    buffer = io.BytesIO()
    scaled = np.arcsinh(np.clip(np.nan_to_num(small) / noise, -3, 60) / 3.0)
    imsave(buffer, scaled, cmap="gray", vmin=np.arcsinh(-1.0), vmax=np.arcsinh(20.0), origin="lower", format="png")
    return buffer.getvalue()
