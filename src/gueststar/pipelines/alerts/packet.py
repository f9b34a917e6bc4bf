"""Make alert packets (ZTF schema 4.02) of a visit's detections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.core.bits import SourceFlag
from gueststar.core.errors import DataError
from gueststar.core.ids import candid_parts
from gueststar.core.times import julian_year
from gueststar.formats.avro import OWN_FIELDS, ZTF_VERSION, field_names
from gueststar.formats.cutouts import CUTOUT_SIDE, difference_name, encode_cutout, reference_name, science_name
from gueststar.model.catalog import Catalog
from gueststar.model.cutouts import PLANES, CandidateCutouts
from gueststar.model.rights import Program
from gueststar.model.visit import VisitRecord
from gueststar.pipelines.alerts.candidate import ReferenceFacts, candidate_fields
from gueststar.pipelines.alerts.earlier import EarlierImagesConfig, Standing
from gueststar.pipelines.alerts.history import HistoryConfig, Places, TellHistory
from gueststar.pipelines.alerts.neighbours import catalog_fields, solar_system_fields
from gueststar.pipelines.alerts.visible import VisibleHistory
from gueststar.pipelines.alerts.wire_fields import rows_from

_DIFFERENCE = PLANES.index("difference")


@dataclass(frozen=True)
class AlertConfig:
    """Which detections become alerts, and what the packets say of their origin."""

    min_reliability: float = 0.3
    """Detections of lower score (or of none) are stored but not alerted."""
    never_alert: SourceFlag = SourceFlag.SATELLITE | SourceFlag.COSMIC_RAY
    """Flags with which a detection is stored but not alerted. Defects (BAD_PIXEL) are not among them: where they
    hide too much there is no detection, the reliability knows of them, and packets count them (``nbad``)."""
    publisher: str = "gueststar"
    """Origin of the packets."""
    name_prefix: str = "GST"
    """Three capital letters before the year in names of objects."""
    history: HistoryConfig = field(default_factory=HistoryConfig)
    """What packets tell of the past."""
    earlier: EarlierImagesConfig = field(default_factory=EarlierImagesConfig)
    """How far earlier images say whether a detection is real."""


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """What is known around a visit's detections besides their history."""

    reference: ReferenceFacts
    reference_places: Places
    """(ra, dec) of each detection's nearest reference source, NaN where there is none."""
    refcat: Catalog | None = None
    """`REFCAT` rows out to 90 arcsec around the image."""
    solar_system: Catalog | None = None
    """`SOLAR_SYSTEM_MATCH` rows."""
    is_target_of_opportunity: bool = False


@dataclass(frozen=True, eq=False)
class AlertBatch:
    """The packets of one visit and detector."""

    packets: list[dict[str, Any]]
    not_alerted: dict[str, int]
    """How many detections made no alert, by reason."""


class BuildAlerts:
    """Make the packets of a visit's associated and vetted detections."""

    def __init__(self, config: AlertConfig = AlertConfig()) -> None:
        self.config = config
        self._tell_history = TellHistory(config.history)

    def run(
        self,
        dia_sources: Catalog,
        record: VisitRecord,
        *,
        names: Mapping[int, str],
        cutouts: CandidateCutouts,
        seen: VisibleHistory,
        neighbourhood: Neighbourhood,
        known_since: Mapping[int, int],
        standing: Standing | None = None,
    ) -> AlertBatch:
        """Return packets, by candid; ``names`` are those of the objects in the visit's stream.

        ``cutouts`` are 63 pixels wide and hold every detection that is alerted. ``seen`` is what the stream may show
        of the past at the moment of leaving; ``known_since`` is the commit from which on it knows each object;
        ``standing`` is that of the detections that `select` returns.
        """
        chosen, reasons = self.select(dia_sources, record)
        triggers = dia_sources.select(chosen)
        if triggers.n_rows == 0:
            return AlertBatch([], reasons)
        _check_numbering(triggers, record)
        places = (neighbourhood.reference_places[0][chosen], neighbourhood.reference_places[1][chosen])
        stamps = [cutouts.of(int(candid)) for candid in triggers["dia_source_id"]]
        candidates = self._candidates(triggers, record, stamps, neighbourhood, places)
        past = self._tell_history.run(triggers, record, seen, reference_places=places, known_since=known_since)
        order = field_names("candidate")
        packets = []
        for row, (fields, told) in enumerate(zip(candidates, past, strict=True)):
            candidate = fields | told.counts
            packet = {
                "schemavsn": ZTF_VERSION,
                "publisher": self.config.publisher,
                "objectId": names[int(triggers["dia_object_id"][row])],
                "candid": candidate["candid"],
                "candidate": {name: candidate[name] for name in order},
                "prv_candidates": told.prv_candidates or None,
                "fp_hists": told.fp_hists or None,
            }
            packets.append(packet | _encoded(stamps[row], candidate) | _standing_fields(standing, row))
        return AlertBatch(packets, reasons)

    def select(self, dia_sources: Catalog, record: VisitRecord) -> tuple[NDArray[np.intp], dict[str, int]]:
        """Return the rows that become alerts, by candid, and how many do not by reason."""
        reasons: Counter[str] = Counter()
        is_left = np.ones(dia_sources.n_rows, dtype=bool)
        reliability = dia_sources["reliability"]
        for reason, fails in (
            ("engineering program", np.full(dia_sources.n_rows, Program(record.program) is Program.ENGINEERING)),
            ("not scored", ~np.isfinite(reliability)),
            ("low reliability", reliability < self.config.min_reliability),
            ("flagged", (dia_sources["flags"] & int(self.config.never_alert)) != 0),
            ("of no object", dia_sources["dia_object_id"] == 0),
        ):
            reasons[reason] += int(np.count_nonzero(is_left & fails))
            is_left &= ~fails
        chosen = np.flatnonzero(is_left)
        by_candid = np.argsort(dia_sources["dia_source_id"][chosen], kind="stable")
        return chosen[by_candid], {reason: count for reason, count in reasons.items() if count}

    def _candidates(
        self,
        triggers: Catalog,
        record: VisitRecord,
        stamps: list[NDArray[np.float32]],
        around: Neighbourhood,
        places: Places,
    ) -> list[dict[str, Any]]:
        """Return the candidate records without the counts of history."""
        middle = CUTOUT_SIDE // 2
        own = candidate_fields(
            triggers, record, reference=around.reference, reference_places=places,
            central_pixels=np.array([stamp[_DIFFERENCE, middle, middle] for stamp in stamps], dtype=np.float64),
            is_target_of_opportunity=around.is_target_of_opportunity,
        )  # fmt: skip
        return rows_from(
            own
            | catalog_fields(triggers, around.refcat, epoch_year=julian_year(record.mjd_tai))
            | solar_system_fields(triggers, around.solar_system)
        )


def _check_numbering(triggers: Catalog, record: VisitRecord) -> None:
    pid = record.pid
    for candid in triggers["dia_source_id"].tolist():
        if candid_parts(candid).pid != pid:
            raise DataError(f"candid {candid} is not numbered on pid {pid}, the start of its exposure")


def _standing_fields(standing: Standing | None, row: int) -> dict[str, Any]:
    """Return the fields of our own at the end of a packet; null where earlier images were not asked."""
    if standing is None:
        return dict.fromkeys(OWN_FIELDS)
    return {"rbhist": float(standing.reliability[row]), "nrbhist": int(standing.n_images[row])}


def _encoded(stamps: NDArray[np.float32], candidate: dict[str, Any]) -> dict[str, dict[str, Any] | None]:
    """Return the three cut-outs; of a negative detection the difference is reference minus science.

    An image that is not there (not one pixel is known, as with differences made elsewhere) is None.
    """
    if stamps.shape[1:] != (CUTOUT_SIDE, CUTOUT_SIDE):
        raise DataError(f"cut-outs of {candidate['candid']} are {stamps.shape[1:]}, need {CUTOUT_SIDE} x {CUTOUT_SIDE}")
    candid, pid, is_positive = candidate["candid"], candidate["pid"], candidate["isdiffpos"] == "t"
    science, reference, difference = stamps
    named = {
        "cutoutScience": (science_name(candid, pid), science),
        "cutoutTemplate": (reference_name(candid), reference),
        "cutoutDifference": (
            difference_name(candid, pid, is_positive=is_positive), difference if is_positive else -difference
        ),
    }  # fmt: skip
    return {
        key: {"fileName": name, "stampData": encode_cutout(stamp)} if np.isfinite(stamp).any() else None
        for key, (name, stamp) in named.items()
    }
