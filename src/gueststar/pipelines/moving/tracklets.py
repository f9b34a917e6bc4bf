"""Link a night's isolated detections into tracklets of moving objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.moving.tracklets import Link, LinkConfig, MovingSources, link_sources
from gueststar.core.bits import SourceFlag
from gueststar.core.ids import content_id
from gueststar.model.catalog import Catalog
from gueststar.model.columns import TRACKLET
from gueststar.model.photocal import NJY_ZERO_POINT


@dataclass(frozen=True)
class TrackletConfig:
    """Which detections are linked, and how."""

    min_reliability: float = 0.3
    """Detections of lower score are left out (unscored ones are not)."""
    isolation_arcsec: float = 2.0
    """A detection with a reference source this near is left out: it is more likely a variable."""
    never_link: SourceFlag = SourceFlag.SATELLITE | SourceFlag.COSMIC_RAY | SourceFlag.BAD_PIXEL | SourceFlag.DIPOLE
    """Flags with which a detection is left out."""
    link: LinkConfig = field(default_factory=LinkConfig)


@dataclass(frozen=True, eq=False)
class Tracklets:
    """Moving objects of one night."""

    tracklets: Catalog
    """`TRACKLET` rows."""
    members: tuple[tuple[int, ...], ...]
    """dia_source_id of each tracklet's detections, by time."""
    metrics: dict[str, Any]
    """How many detections were linked from how many exposures, and in how many of them density bounded the search."""


class LinkTracklets:
    """Find things that move among a night's detections."""

    def __init__(self, config: TrackletConfig = TrackletConfig()) -> None:
        self.config = config

    def run(self, dia_sources: Catalog, *, earlier_objects: NDArray[np.int64] | None = None) -> Tracklets:
        """Return the tracklets among `DIA_SOURCE` rows of one night.

        ``earlier_objects`` are dia_object_ids that were seen on nights before: they do not move.
        """
        chosen = dia_sources.select(self.is_candidate(dia_sources, earlier_objects))
        found = link_sources(_moving_sources(chosen), config=self.config.link)
        links = found.links
        ids = chosen["dia_source_id"]
        members = tuple(tuple(int(ids[row]) for row in link.rows) for link in links)
        rows = [_row(chosen, link, number) for link, number in zip(links, members, strict=True)]
        table = {column.name: [row[column.name] for row in rows] for column in TRACKLET.columns}
        is_bounded = found.n_bounded > 0
        metrics = {
            "n_candidates": chosen.n_rows,
            "n_exposures": found.n_exposures,
            "n_bounded_exposures": found.n_bounded,
            "least_reach_arcsec": found.least_reach_arcsec if is_bounded else None,
        }
        return Tracklets(TRACKLET.catalog(table), members, metrics)

    def is_candidate(self, dia_sources: Catalog, earlier_objects: NDArray[np.int64] | None = None) -> NDArray[np.bool_]:
        """Return which detections may belong to something that moves."""
        is_isolated = ~(dia_sources["reference_distance"] < self.config.isolation_arcsec)
        is_clean = (dia_sources["flags"] & int(self.config.never_link)) == 0
        is_likely = ~(dia_sources["reliability"] < self.config.min_reliability)
        is_candidate = dia_sources["is_positive"].astype(bool) & is_isolated & is_clean & is_likely
        if earlier_objects is not None:
            is_candidate &= ~np.isin(dia_sources["dia_object_id"], earlier_objects)
        return np.asarray(is_candidate)


def _moving_sources(sources: Catalog) -> MovingSources:
    flux = np.where(sources["psf_flux"] > 0, sources["psf_flux"], np.nan)
    return MovingSources(
        sources["mjd_tai"], sources["ra"], sources["dec"],
        sources["ra_err"].astype(np.float64), sources["dec_err"].astype(np.float64),
        NJY_ZERO_POINT - 2.5 * np.log10(flux), 2.5 / np.log(10.0) * sources["psf_flux_err"] / flux,
        sources["band_id"].astype(np.int64),
    )  # fmt: skip


def _row(sources: Catalog, link: Link, members: tuple[int, ...]) -> dict[str, float]:
    rows, motion = list(link.rows), link.motion
    moving = _moving_sources(sources.select(np.array(rows)))
    return {
        "tracklet_id": content_id("tracklet", *sorted(members)),
        "n_detections": len(rows),
        "mjd_tai": motion.mjd,
        "ra": motion.ra,
        "dec": motion.dec,
        "rate_arcsec_per_min": motion.rate,
        "rate_err": motion.rate_err,
        "position_angle_deg": motion.position_angle,
        "position_angle_err": motion.position_angle_err,
        "span_min": float(np.ptp(moving.mjd)) * 1440.0,
        "mag": float(np.nanmedian(moving.mag)),
        "mag_scatter": float(np.nanstd(moving.mag)),
        "chi2": motion.chi2 / motion.n_dof,
        "false_probability": link.false_probability,
    }
