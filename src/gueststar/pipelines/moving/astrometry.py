"""Tracklets as astrometric observations: one place at mid-exposure for each detection, trails with their own errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gueststar.algorithms.association.sky_index import sky_positions
from gueststar.algorithms.moving.trails import TrailedSources
from gueststar.formats.ades import NOTE_AMBIGUOUS, NOTE_TRAILED, AdesObservation
from gueststar.model.catalog import Catalog
from gueststar.model.photocal import NJY_ZERO_POINT
from gueststar.pipelines.moving.trailed import trailed_sources

Row = Mapping[str, Any]

_BASE36 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class AstrometryConfig:
    """Which tracklets are told, and with which errors."""

    max_false_probability: float = 0.05
    """Tracklets that are likelier false are left out."""
    error_floor_arcsec: float = 0.05
    """Of the astrometric solution; added in quadrature to errors of places."""
    is_lone_trail_told: bool = False
    """Whether one trail alone is told: as both its ends at the times they were passed, in one of the two senses."""


class TellAstrometry:
    """Turn a night's tracklets into observations that the Minor Planet Center takes."""

    def __init__(self, config: AstrometryConfig = AstrometryConfig()) -> None:
        self.config = config

    def run(
        self, tracklets: Sequence[Row], dia_sources: Catalog, streaks: Sequence[Row], *, bands: Mapping[int, str]
    ) -> list[AdesObservation]:
        """Return the observations, tracklet by tracklet, each by time; ``bands`` names filter numbers."""
        rows = {int(key): k for k, key in enumerate(dia_sources["dia_source_id"])}
        by_id = {int(row["streak_id"]): row for row in streaks}
        told: list[AdesObservation] = []
        for tracklet in tracklets:
            if tracklet["false_probability"] > self.config.max_false_probability:
                continue
            name = short_name(int(tracklet["tracklet_id"]))
            trails = [by_id[i] for i in tracklet.get("streak_ids", ()) if i in by_id]
            if not tracklet.get("is_sense_known", True):
                told += self._ends(name, trails[0], bands) if self.config.is_lone_trail_told and trails else []
                continue
            points = [rows[i] for i in tracklet["dia_source_ids"] if i in rows]
            mine = [self._point(name, dia_sources, k, bands) for k in points]
            mine += [self._middle(name, trail, bands) for trail in trails]
            told += sorted(mine, key=lambda one: one.mjd_tai)
        return told

    def _point(self, name: str, sources: Catalog, k: int, bands: Mapping[int, str]) -> AdesObservation:
        one = {column: sources[column][k].item() for column in sources}
        flux, floor = one["psf_flux"], self.config.error_floor_arcsec
        return AdesObservation(
            name, one["mjd_tai"], one["ra"], one["dec"], float(np.hypot(one["dec_err"], floor)),
            float(np.hypot(one["ra_err"], floor)),
            mag=NJY_ZERO_POINT - 2.5 * np.log10(flux) if flux > 0 else np.nan,
            mag_err=2.5 / np.log(10.0) * one["psf_flux_err"] / flux if flux > 0 else np.nan,
            band=bands.get(int(one["band_id"]), ""),
        )  # fmt: skip

    def _middle(self, name: str, trail: Row, bands: Mapping[int, str]) -> AdesObservation:
        """Return where a trailed body was in the middle of the exposure; its ends' errors are independent."""
        source = trailed_sources([trail])
        ra, dec = sky_positions(source.middles[0])
        return self._trailed(name, trail, source, bands, float(source.mjd[0]), (float(ra), float(dec)), np.sqrt(0.5))

    def _ends(self, name: str, trail: Row, bands: Mapping[int, str]) -> list[AdesObservation]:
        """Return both ends of a trail at the times they were passed, as if the first was passed first."""
        source = trailed_sources([trail])
        ends = ((trail["mjd_begin"], trail["ra_1"], trail["dec_1"]), (trail["mjd_end"], trail["ra_2"], trail["dec_2"]))
        return [
            self._trailed(name, trail, source, bands, mjd, (ra, dec), 1.0, notes=NOTE_AMBIGUOUS + NOTE_TRAILED)
            for mjd, ra, dec in ends
        ]

    def _trailed(
        self, name: str, trail: Row, source: TrailedSources, bands: Mapping[int, str], mjd: float,
        place: tuple[float, float], share: float, *, notes: str = NOTE_TRAILED,
    ) -> AdesObservation:  # fmt: skip
        floor, angle = self.config.error_floor_arcsec, float(trail["position_angle_deg"])
        remarks = f"trailed {trail['length']:.1f} arcsec, position angle {angle:.1f} or {angle + 180:.1f}"
        exposure_s = float(round((trail["mjd_end"] - trail["mjd_begin"]) * 86400.0, 3))
        return AdesObservation(
            name, mjd, *place, float(np.hypot(source.along_err[0] * share, floor)),
            float(np.hypot(source.across_err[0] * share, floor)), angle, mag=float(source.mag[0]),
            mag_err=float(source.mag_err[0]), band=bands.get(int(source.band[0]), ""), exposure_s=exposure_s,
            notes=notes, remarks=remarks,
        )  # fmt: skip


def short_name(tracklet_id: int) -> str:
    """Return eight letters and digits that stand for a tracklet."""
    number, name = tracklet_id % 36**8, ""
    for _ in range(8):
        number, digit = divmod(number, 36)
        name = _BASE36[digit] + name
    return name
