"""Streaks that may be asteroids, as trails that link with other detections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.association.sky_index import unit_vectors
from gueststar.algorithms.moving.trails import TrailedSources, is_on_trail
from gueststar.model.catalog import Catalog

_POGSON = 2.5 / np.log(10.0)
_SAME_EXPOSURE_DAYS = 1.0 / 86400.0
_HALF_WIDTH_FWHM = 2.0
"""Detections this near to a trail of the same exposure are pieces of it, FWHM."""
_DEFAULT_FWHM_ARCSEC = 2.5
"""Of rows that do not tell it."""

Row = Mapping[str, Any]


def asteroid_streaks(
    streaks: Sequence[Row], tracks: Sequence[Row], *, min_reliability: float, max_rate: float
) -> list[Row]:
    """Return the rows of a night's streaks (`streak_tracks.listed`) that may be trails of asteroids, by time.

    Both ends are seen, the score is at least ``min_reliability``, the kind is asteroid and the rate, arcsec per
    second, at most ``max_rate``; what stays on its pixels or goes on in another detector is left out.
    """
    spoiled = {i for track in tracks if track["link"] in ("same pixels", "continued") for i in track["streak_ids"]}
    chosen = [
        row for row in streaks
        if row["kind"] == "asteroid" and row["is_end_1_seen"] and row["is_end_2_seen"]
        and row["reliability"] >= min_reliability and row["rate"] <= max_rate
        and row["mjd_end"] > row["mjd_begin"] and row["streak_id"] not in spoiled
    ]  # fmt: skip
    return sorted(chosen, key=lambda row: (row["mjd_begin"], row["streak_id"]))


def trailed_sources(rows: Sequence[Row]) -> TrailedSources:
    """Return rows of streaks as arrays; an error along that is not told is that of the length, shared by both ends."""
    along = [max(_known(row, "along_1_err"), _known(row, "along_2_err")) for row in rows]
    shared = [_known(row, "length_err") / np.sqrt(2.0) for row in rows]
    snr = np.array([row["snr"] for row in rows], dtype=np.float64)
    columns = {name: np.array([row[name] for row in rows], dtype=np.float64) for name in _PLACES}
    return TrailedSources(
        **columns,
        along_err=np.array([a or b or 0.5 for a, b in zip(along, shared, strict=True)], dtype=np.float64),
        across_err=np.array(
            [max(_known(row, "across_1_err"), _known(row, "across_2_err")) or 0.2 for row in rows], dtype=np.float64
        ),
        mag=np.array([np.nan if row["mag"] is None else row["mag"] for row in rows], dtype=np.float64),
        mag_err=_POGSON / np.maximum(snr, 1e-3),
        band=np.array([row.get("band_id") or 0 for row in rows], dtype=np.int64),
    )


_PLACES = ("mjd_begin", "mjd_end", "ra_1", "dec_1", "ra_2", "dec_2")


def is_piece(dia_sources: Catalog, rows: Sequence[Row]) -> NDArray[np.bool_]:
    """Return which detections lie on a streak of their own exposure: pieces of it, not things of their own."""
    found = np.zeros(dia_sources.n_rows, dtype=bool)
    places = unit_vectors(dia_sources["ra"], dia_sources["dec"])
    for row in rows:
        middle = 0.5 * (row["mjd_begin"] + row["mjd_end"])
        same = np.flatnonzero(np.abs(dia_sources["mjd_tai"] - middle) <= _SAME_EXPOSURE_DAYS)
        first, second = unit_vectors(row["ra_1"], row["dec_1"]), unit_vectors(row["ra_2"], row["dec_2"])
        fwhm = row["length"] / row["length_fwhm"] if row.get("length_fwhm") else _DEFAULT_FWHM_ARCSEC
        found[same] |= is_on_trail(places[same], first, second, width_arcsec=_HALF_WIDTH_FWHM * fwhm)
    return found


def _known(row: Row, name: str) -> float:
    return float(row.get(name) or 0.0)
