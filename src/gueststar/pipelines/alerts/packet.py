"""Make alert packets (ZTF schema 4.02) of a visit's detections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.core.bits import MaskPlane, SourceFlag
from gueststar.core.errors import DataError
from gueststar.core.ids import candid_parts
from gueststar.core.times import julian_year
from gueststar.formats.avro import SCHEMA_VERSION, field_names
from gueststar.formats.cutouts import cut_stamp, difference_name, encode_cutout, reference_name, science_name
from gueststar.model.catalog import Catalog
from gueststar.model.detections import History
from gueststar.model.image import CalibratedImage
from gueststar.model.rights import Program, RightsPolicy
from gueststar.model.visit import VisitRecord
from gueststar.pipelines.alerts.candidate import ReferenceFacts, candidate_fields
from gueststar.pipelines.alerts.history import HistoryConfig, Places, TellHistory
from gueststar.pipelines.alerts.neighbours import catalog_fields, solar_system_fields
from gueststar.pipelines.alerts.wire_fields import rows_from


@dataclass(frozen=True)
class AlertConfig:
    """Which detections become alerts, and what the packets say of their origin."""

    min_reliability: float = 0.1
    """Detections of lower score (or of none) are stored but not alerted."""
    never_alert: SourceFlag = SourceFlag.SATELLITE | SourceFlag.COSMIC_RAY | SourceFlag.BAD_PIXEL
    """Flags with which a detection is stored but not alerted."""
    publisher: str = "gueststar"
    """Origin of the packets."""
    name_prefix: str = "GST"
    """Three capital letters before the year in names of objects."""
    history: HistoryConfig = field(default_factory=HistoryConfig)
    """What packets tell of the past."""


@dataclass(frozen=True, eq=False)
class VisitImages:
    """The images that cut-outs come from, all on the pixels of the science image."""

    science: CalibratedImage
    reference: CalibratedImage
    """Warped onto the science pixels."""
    difference: CalibratedImage


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

    def __init__(self, config: AlertConfig = AlertConfig(), *, policy: RightsPolicy) -> None:
        self.config = config
        self.policy = policy
        self._tell_history = TellHistory(config.history, policy=policy)

    def run(
        self,
        dia_sources: Catalog,
        record: VisitRecord,
        *,
        names: Mapping[int, str],
        images: VisitImages,
        history: History,
        neighbourhood: Neighbourhood,
        at_mjd_tai: float,
    ) -> AlertBatch:
        """Return packets, by candid; ``names`` are those of the objects in the visit's stream.

        The history is reduced to what the stream may show at ``at_mjd_tai``, the moment of leaving.
        """
        chosen, reasons = self.select(dia_sources, record)
        triggers = dia_sources.select(chosen)
        if triggers.n_rows == 0:
            return AlertBatch([], reasons)
        _check_numbering(triggers, record)
        places = (neighbourhood.reference_places[0][chosen], neighbourhood.reference_places[1][chosen])
        candidates = self._candidates(triggers, record, images, neighbourhood, places)
        past = self._tell_history.run(
            triggers, record, history, reference_places=places,
            pixel_scale_arcsec=images.difference.wcs.pixel_scale_arcsec, at_mjd_tai=at_mjd_tai,
        )  # fmt: skip
        order = field_names("candidate")
        packets = []
        for row, (fields, told) in enumerate(zip(candidates, past, strict=True)):
            candidate = fields | told.counts
            packet = {
                "schemavsn": SCHEMA_VERSION,
                "publisher": self.config.publisher,
                "objectId": names[int(triggers["dia_object_id"][row])],
                "candid": candidate["candid"],
                "candidate": {name: candidate[name] for name in order},
                "prv_candidates": told.prv_candidates or None,
                "fp_hists": told.fp_hists or None,
            }
            packets.append(packet | _cutouts(images, triggers, row))
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
        self, triggers: Catalog, record: VisitRecord, images: VisitImages, around: Neighbourhood, places: Places
    ) -> list[dict[str, Any]]:
        """Return the candidate records without the counts of history."""
        own = candidate_fields(
            triggers, record, photocal=images.science.photocal, difference=images.difference,
            reference=around.reference, reference_places=places,
            is_target_of_opportunity=around.is_target_of_opportunity,
        )  # fmt: skip
        year = julian_year(record.mjd_tai)
        return rows_from(
            own
            | catalog_fields(triggers, around.refcat, epoch_year=year)
            | solar_system_fields(triggers, around.solar_system)
        )


def _check_numbering(triggers: Catalog, record: VisitRecord) -> None:
    for candid in triggers["dia_source_id"].tolist():
        if candid_parts(candid).pid != record.pid:
            raise DataError(f"candid {candid} is not numbered on pid {record.pid}, the start of its exposure")


def _cutouts(images: VisitImages, triggers: Catalog, row: int) -> dict[str, dict[str, Any]]:
    """Return the three cut-outs; of a negative detection the difference is reference minus science."""
    candid, is_positive = int(triggers["dia_source_id"][row]), bool(triggers["is_positive"][row])
    pid = candid_parts(candid).pid
    sign = 1 if is_positive else -1
    named = (
        ("cutoutScience", images.science, science_name(candid, pid), 1),
        ("cutoutTemplate", images.reference, reference_name(candid), 1),
        ("cutoutDifference", images.difference, difference_name(candid, pid, is_positive=is_positive), sign),
    )
    x, y = float(triggers["x"][row]), float(triggers["y"][row])
    return {
        key: {"fileName": name, "stampData": encode_cutout(factor * _stamp(image, x=x, y=y))}
        for key, image, name, factor in named
    }


def _stamp(image: CalibratedImage, *, x: float, y: float) -> NDArray[np.float32]:
    stamp = cut_stamp(image.pixels.image, x=x, y=y)
    mask = cut_stamp(image.pixels.mask, x=x, y=y)
    stamp[(np.nan_to_num(mask).astype(np.int64) & int(MaskPlane.NO_DATA)) != 0] = np.nan
    return stamp
