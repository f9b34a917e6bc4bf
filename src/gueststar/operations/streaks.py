"""A survey's streaks for a person: found again, told in lines, drawn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gueststar.core import times
from gueststar.core.errors import ConfigError
from gueststar.operations.report.figures import blank, png
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo

HEADING = (
    f"{'streak':>20} {'shutter opens, UTC':19} {'det':>4} {'kind':9} {'score':>5} {'S/N':>7} {'mag':>6} "
    f"{'length':>8} {'rate':>9} {'PA':>6}  ends seen"
)


def find_streaks(
    repo: SurveyRepo, *, night: int | None = None, kind: str | None = None, min_reliability: float = 0.6
) -> list[dict[str, Any]]:
    """Return a survey's positive streaks as plain values, by time."""
    constraints: dict[str, Any] = {} if night is None else {"day_obs": night}
    rows: list[dict[str, Any]] = []
    for stored in repo.find("streak", **constraints):
        table = repo.read(stored)
        for k in range(table.n_rows):
            row = {name: table[name][k].item() for name in table}
            if row["is_positive"] and row["reliability"] >= min_reliability and kind in (None, row["kind"]):
                rows.append({name: _plain(value) for name, value in row.items()})
    return sorted(rows, key=lambda row: (row["mjd_begin"], row["streak_id"]))


def streak_line(row: dict[str, Any]) -> str:
    """Return one streak as a line under `HEADING`."""
    ends = "both" if row["is_end_1_seen"] and row["is_end_2_seen"] else "one" if _sees_one(row) else "none"
    time = times.isot_utc(row["mjd_begin"])[:19]
    mag = f"{row['mag']:.2f}" if row["mag"] is not None else ""
    limit = " " if ends == "both" else ">"
    return (
        f"{row['streak_id']:>20} {time:19} {row['detector']:>4} {row['kind']:9} {row['reliability']:5.2f} "
        f'{row["snr"]:7.1f} {mag:>6} {row["length"]:7.1f}" {limit}{row["rate"]:6.2f}"/s '
        f"{row['position_angle_deg']:6.1f}  {ends}"
    )


def report_lines(streaks: list[dict[str, Any]], tracks: list[dict[str, Any]]) -> list[str]:
    """Return what the nightly report says of streaks; empty where there are none.

    Streaks that stay on their pixels are counted only.
    """
    if not streaks:
        return []
    fixed = {number for track in tracks if track["link"] == "same pixels" for number in track["streak_ids"]}
    streaks = [row for row in streaks if row["streak_id"] not in fixed]
    tracks = [track for track in tracks if track["link"] != "same pixels"]
    kinds = [f"{n} {kind}" for kind in ("satellite", "asteroid", "unclear") if (n := _count(streaks, kind))]
    lines = [f"{len(streaks)} streaks: {', '.join(kinds) or 'none'}"]
    if fixed:
        lines.append(f"  {len(fixed)} more lie on the same pixels of several exposures: ghosts, dust or defects")
    lines += [f"  {streak_line(row)}" for row in streaks if row["kind"] != "satellite"]
    lines += [
        f"  {track['kind']}, {track['link']}: streaks {', '.join(map(str, track['streak_ids']))}, "
        f"{track['rate']:.2f} arcsec/s"
        for track in tracks
    ]
    return lines


def picture_of(repo: SurveyRepo, row: dict[str, Any]) -> bytes:
    """Return a PNG of a streak's cut-outs; ConfigError for one that has none."""
    stored = repo.find_one("streak_cutouts", DataId(visit=row["visit"], detector=row["detector"]))
    cutouts = None if stored is None else repo.read(stored)
    if cutouts is None or row["streak_id"] not in cutouts.streak_id:
        raise ConfigError(f"there are no cut-outs of streak {row['streak_id']}: they are kept of likely ones only")
    stamps = cutouts.of(row["streak_id"])
    figure, axes = blank(9.0, 1.6, 2)
    for ax, stamp, name in zip(axes, stamps, ("difference", "science"), strict=True):
        known = stamp[np.isfinite(stamp)]
        sigma = float(1.4826 * np.median(np.abs(known - np.median(known)))) if known.size else 1.0
        ax.imshow(stamp, cmap="gray", vmin=-3 * sigma, vmax=6 * sigma, origin="lower", aspect="auto")
        ax.set_title(name, fontsize=8)
    return png(figure)


def _sees_one(row: dict[str, Any]) -> bool:
    return bool(row["is_end_1_seen"] or row["is_end_2_seen"])


def _count(streaks: list[dict[str, Any]], kind: str) -> int:
    return sum(row["kind"] == kind for row in streaks)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
