"""Pictures of the survey's pages, as PNG bytes: maps of the sky in each filter, trends over nights, growth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from gueststar.operations.report.figures import ACCENT, BAND_COLOURS, INK, MUTED, WARN, blank, png
from gueststar.operations.survey_pages.night_summary import NightSummary
from gueststar.operations.survey_pages.references import ReferenceState
from gueststar.operations.survey_pages.report import FieldCoverage

MAPS: dict[str, tuple[str, Callable[[FieldCoverage], float | None]]] = {
    "exposures": ("exposures", lambda item: float(item.n)),
    "depth": ("5-sigma depth of an exposure [mag]", lambda item: item.depth),
    "last visit": ("days before the last night", lambda item: item.last_mjd),
}
"""What is mapped: label, and value of a field."""


def sky_map(coverage: Sequence[FieldCoverage], band: str, what: str, *, radius_deg: float) -> bytes:
    """Draw the fields of one band on the whole sky (Mollweide, right ascension grows to the left)."""
    label, value_of = MAPS[what]
    found = [(item, value) for item in coverage if item.band == band and (value := value_of(item)) is not None]
    values = np.array([value for _, value in found])
    if what == "last visit" and values.size:
        values = max(item.last_mjd for item in coverage) - values
    return _draw_map([item for item, _ in found], values, f"{band}: {label}", radius_deg)


def reference_map(coverage: Sequence[FieldCoverage], states: Sequence[ReferenceState], band: str, *, radius_deg: float) -> bytes:  # fmt: skip  # noqa: E501
    """Draw how deep the references of one band are expected to be."""
    depth = {state.field: state.depth for state in states if state.band == band}
    found = [(item, value) for item in coverage if item.band == band and (value := depth.get(item.field)) is not None]
    return _draw_map([item for item, _ in found], np.array([value for _, value in found]),
                     f"{band}: depth of the references [mag]", radius_deg)  # fmt: skip


def _draw_map(items: Sequence[FieldCoverage], values: np.ndarray, title: str, radius_deg: float) -> bytes:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 2.7), dpi=110, layout="constrained")
    ax = figure.add_subplot()
    _draw_sky(ax)
    norm = _norm(values, Normalize)
    patches, colours = [], []
    for item, value in zip(items, values, strict=True):
        for outline in _outlines(item.ra, item.dec, max(radius_deg, 1.2)):
            patches.append(outline)
            colours.append(colormaps["viridis"](norm(value)))
    if patches:
        corners = mollweide(np.concatenate(patches))
        parts = np.split(corners, np.cumsum([len(patch) for patch in patches])[:-1])
        ax.add_collection(PolyCollection(parts, facecolors=colours, edgecolors="none", zorder=2))
    ax.set_title(title, fontsize=8, color=INK, loc="left")
    if values.size:
        bar = figure.colorbar(ScalarMappable(norm, "viridis"), ax=ax, shrink=0.7, pad=0.02)
        bar.ax.tick_params(labelsize=6)
    return png(figure)


def _draw_sky(ax: Any) -> None:
    """Draw the edge of the sky and its grid; a map without projection of its own is drawn much faster."""
    ax.set_axis_off()
    ax.set_aspect("equal")
    ax.set_xlim(-2.9, 2.9)
    ax.set_ylim(-1.5, 1.5)
    latitude = np.radians(np.linspace(-90, 90, 61))
    for degrees in range(-180, 181, 60):
        line = mollweide(np.stack([np.full(latitude.size, np.radians(degrees)), latitude], axis=1))
        is_edge = abs(degrees) == 180
        ax.plot(
            line[:, 0], line[:, 1], color=INK if is_edge else MUTED, lw=0.8 if is_edge else 0.3, alpha=0.7, zorder=1
        )
        if not is_edge:
            hour = (-degrees) % 360 // 15
            ax.text(
                *mollweide(np.array([[np.radians(degrees), 0.0]]))[0], f"{hour}h", fontsize=5, color=MUTED, zorder=3
            )
    for degrees in range(-60, 61, 30):
        line = mollweide(np.radians([[-180.0, degrees], [180.0, degrees]]))
        ax.plot(line[:, 0], line[:, 1], color=MUTED, lw=0.3, alpha=0.7, zorder=1)
        ax.text(line[0, 0] - 0.08, line[0, 1], f"{degrees}°", fontsize=5, color=MUTED, ha="right", va="center")


def mollweide(angles: np.ndarray) -> np.ndarray:
    """Return map coordinates of ``[n, 2]`` longitudes and latitudes (radians); the map is 4 sqrt(2) wide, half as high.

    The auxiliary angle solves 2 t + sin 2 t = pi sin(latitude) by Newton's method, near the poles by its series.
    """
    longitude, latitude = angles[:, 0], angles[:, 1]
    left = np.pi / 2 - np.abs(latitude)
    theta = np.where(left < 0.2, np.pi / 2 - 0.5 * (3.0 * np.pi * left**2) ** (1.0 / 3.0), np.abs(latitude))
    target = np.pi * np.sin(np.abs(latitude))
    for _ in range(12):
        slope = 2.0 + 2.0 * np.cos(2.0 * theta)
        step = (2.0 * theta + np.sin(2.0 * theta) - target) / np.maximum(slope, 1e-9)
        theta = np.clip(theta - np.where(slope > 1e-6, step, 0.0), 0.0, np.pi / 2)
    theta = np.copysign(theta, latitude)
    x = 2.0 * np.sqrt(2.0) / np.pi * longitude * np.cos(theta)
    return np.stack([x, np.sqrt(2.0) * np.sin(theta)], axis=1)


def _norm(values: np.ndarray, kind: Any) -> Any:
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    return kind(low, high) if high > low else kind(low - 0.5, high + 0.5)


def _outlines(ra: float, dec: float, radius_deg: float) -> list[np.ndarray]:
    """Return a circle on the sky as map coordinates, in two parts where it crosses the edge of the map."""
    angle = np.linspace(0.0, 2.0 * np.pi, 24)
    d0, r = np.radians(dec), np.radians(radius_deg)
    d = np.arcsin(np.clip(np.sin(d0) * np.cos(r) + np.cos(d0) * np.sin(r) * np.cos(angle), -1.0, 1.0))
    east = np.arctan2(np.sin(angle) * np.sin(r) * np.cos(d0), np.cos(r) - np.sin(d0) * np.sin(d))
    middle = -((np.radians(ra) + np.pi) % (2.0 * np.pi) - np.pi)  # to the left, 0h in the middle
    x = middle - east
    parts = [x]
    if x.max() > np.pi:
        parts.append(x - 2.0 * np.pi)
    elif x.min() < -np.pi:
        parts.append(x + 2.0 * np.pi)
    return [np.stack([np.clip(part, -np.pi, np.pi), d], axis=1) for part in parts]


def trend(nights: Sequence[NightSummary], metric: str, label: str) -> bytes:
    """Draw the medians of a metric over nights, with the range of two thirds of the images, by band."""
    figure, (ax,) = blank(4.6, 2.1)
    bands = sorted({band for night in nights for band in night.spreads.get(metric, {})})
    for number, band in enumerate(bands):
        mine = [
            (day_of(night.night), spread) for night in nights if (spread := night.spreads.get(metric, {}).get(band))
        ]
        days = [day for day, _ in mine]
        colour = BAND_COLOURS.get(band, f"C{number}")
        ax.plot(days, [spread.median for _, spread in mine], "o-", ms=2.5, lw=0.7, color=colour, label=band)
        low, high = [spread.low for _, spread in mine], [spread.high for _, spread in mine]
        ax.fill_between(days, low, high, color=colour, alpha=0.15, lw=0)
    _finish(ax, label, is_labelled=len(bands) > 1)
    return png(figure)


def alerts(nights: Sequence[NightSummary]) -> bytes:
    """Draw the number of alerts of every night, by program."""
    return _stacked(nights, "alerts a night", lambda night: {key: float(n) for key, n in night.alerts.items()})


def exposures(nights: Sequence[NightSummary]) -> bytes:
    """Draw the number of exposures of every night, by band."""
    return _stacked(
        nights, "exposures a night",
        lambda night: {band: float(sum(found.values())) for band, found in night.exposures.items()},
    )  # fmt: skip


def growth(nights: Sequence[NightSummary]) -> bytes:
    """Draw how much is stored, added up over nights, by product."""
    figure, (ax,) = blank(4.6, 2.1)
    total = np.sum([sum(night.bytes.values()) for night in nights])
    unit, size = next(
        (name, size)
        for name, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
        if total >= size or size == 1e3
    )
    products = sorted({name for night in nights for name in night.bytes})
    largest = sorted(products, key=lambda name: -sum(night.bytes.get(name, 0) for night in nights))[:6]
    days = [day_of(night.night) for night in nights]
    parts = [np.cumsum([night.bytes.get(name, 0) / size for night in nights]) for name in largest]
    if parts and len(days) > 1:
        ax.stackplot(days, parts, labels=largest, alpha=0.8)
    elif parts:
        ax.bar(largest, [part[-1] for part in parts], color=ACCENT)
        ax.tick_params(axis="x", labelsize=5, rotation=20)
    _finish(ax, f"stored products, added up [{unit}]", is_labelled=False, is_dated=len(days) > 1)
    if len(days) > 1:
        ax.legend(fontsize=6, frameon=False, loc="upper left")
    return png(figure)


def _stacked(nights: Sequence[NightSummary], title: str, counted: Callable[[NightSummary], dict[str, float]]) -> bytes:
    figure, (ax,) = blank(4.6, 2.1)
    days = [day_of(night.night) for night in nights]
    kinds = sorted({kind for night in nights for kind in counted(night)})
    bottom = np.zeros(len(nights))
    for number, kind in enumerate(kinds):
        height = np.array([counted(night).get(kind, 0.0) for night in nights])
        colour = BAND_COLOURS.get(kind, (ACCENT, WARN, MUTED, "C3")[number % 4])
        ax.bar(days, height, bottom=bottom, width=0.9, color=colour, label=kind, alpha=0.85)
        bottom += height
    _finish(ax, title, is_labelled=len(kinds) > 1)
    return png(figure)


_SHORT_DAYS = 6.0
"""A few nights are drawn on an axis of so many days."""


def day_of(night: int) -> float:
    """Return the date of a night as the drawing counts days."""
    return float((datetime.strptime(str(night), "%Y%m%d") - datetime(1970, 1, 1)).days)


def _finish(ax: Any, title: str, *, is_labelled: bool, is_dated: bool = True) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, DayLocator

    ax.set_title(title, fontsize=8, color=INK, loc="left")
    if is_dated:
        low, high = ax.get_xlim()
        is_short = high - low < _SHORT_DAYS or not len(ax.lines) + len(ax.patches) + len(ax.collections)
        if is_short:
            middle = 0.5 * (low + high)
            ax.set_xlim(middle - 0.5 * _SHORT_DAYS, middle + 0.5 * _SHORT_DAYS)
        locator = DayLocator() if is_short else AutoDateLocator(minticks=2, maxticks=7)
        ax.xaxis.get_offset_text().set_fontsize(6)
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    if is_labelled and ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=6, frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1.0, 0.98))
