"""Link a night's streaks: pieces of satellites' paths, and fast asteroids that were seen again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gueststar.algorithms.streaks.kind import KindConfig
from gueststar.algorithms.streaks.trace import Segment
from gueststar.algorithms.streaks.tracks import SkyStreak, StreakTrack, TrackConfig, link_streaks
from gueststar.model.catalog import Catalog

LISTED = (
    "streak_id", "visit", "detector", "mjd_begin", "mjd_end", "ra_1", "dec_1", "ra_2", "dec_2", "is_end_1_seen",
    "is_end_2_seen", "along_1_err", "along_2_err", "across_1_err", "across_2_err", "length", "length_err",
    "length_fwhm", "position_angle_deg", "position_angle_err", "rate", "mag", "snr", "reliability", "kind", "reason",
    "is_masked_trail", "band_id", "x_1", "y_1", "x_2", "y_2",
)  # fmt: skip
"""Columns of `STREAK` that a night's account keeps of likely streaks."""


@dataclass(frozen=True)
class StreakTracksConfig:
    """How streaks are linked."""

    track: TrackConfig = field(default_factory=TrackConfig)
    """When two streaks are one path, or one body."""
    kind: KindConfig = field(default_factory=KindConfig)
    """What an asteroid may look like."""


def listed(streaks: Catalog, *, min_reliability: float) -> list[dict[str, Any]]:
    """Return the likely positive streaks as plain values."""
    likely = np.flatnonzero((streaks["reliability"] >= min_reliability) & streaks["is_positive"])
    return [{name: _plain(streaks[name][k].item()) for name in LISTED} for k in likely]


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value


class LinkStreaks:
    """Find streaks of one night that belong together."""

    def __init__(self, config: StreakTracksConfig = StreakTracksConfig()) -> None:
        self.config = config

    def run(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the tracks among the rows that `listed` made of a night's streaks.

        A track that was seen again at a rate an asteroid may have is an ``asteroid``, with the time of both ends of its
        first streak; one that goes on across detectors faster than that is a ``satellite``; one that stays on its
        pixels is a ``detector`` effect.
        """
        by_id = {int(row["streak_id"]): row for row in rows}
        streaks = [_sky_streak(row) for row in rows]
        return [self._described(track, by_id) for track in link_streaks(streaks, config=self.config.track)]

    def _described(self, track: StreakTrack, by_id: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
        first = by_id[track.streak_ids[0]]
        is_slow = track.rate <= self.config.kind.max_asteroid_rate
        is_fixed = track.link == "same pixels"
        kind = (
            "detector"
            if is_fixed
            else "satellite"
            if not is_slow
            else "asteroid"
            if track.link == "seen again"
            else "unclear"
        )
        ends = [
            {"mjd_tai": first[time], "ra": first[f"ra_{end}"], "dec": first[f"dec_{end}"]}
            for time, end in zip(("mjd_begin", "mjd_end"), (1, 2) if track.is_forward else (2, 1), strict=True)
        ]
        return {
            "streak_ids": list(track.streak_ids), "link": track.link, "kind": kind, "rate": track.rate,
            "ends": ends if track.is_forward is not None else [],
        }  # fmt: skip


def _sky_streak(row: Mapping[str, Any]) -> SkyStreak:
    return SkyStreak(
        int(row["streak_id"]), int(row["visit"]), float(row["mjd_begin"]), float(row["mjd_end"]),
        (float(row["ra_1"]), float(row["ra_2"])), (float(row["dec_1"]), float(row["dec_2"])),
        float(np.radians(row["position_angle_err"] or 0.0)),
        max(float(row["across_1_err"] or 0.0), float(row["across_2_err"] or 0.0)),
        bool(row["is_end_1_seen"] and row["is_end_2_seen"]), int(row["detector"]), _on_pixels(row),
    )  # fmt: skip


def _on_pixels(row: Mapping[str, Any]) -> Segment | None:
    ends = [row.get(name) for name in ("x_1", "y_1", "x_2", "y_2")]
    return None if any(end is None for end in ends) else Segment(*(float(end or 0.0) for end in ends))
