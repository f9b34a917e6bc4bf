"""The past of each detection as its stream may show it: detections, upper limits, forced fluxes, counts.

Everything is found by place, not by membership in an object: which detection was associated with which
object depends on the images of all programs, and must not show in a packet that may not tell of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.association.footprint import is_inside, places_within
from gueststar.algorithms.association.match import MatchConfig, near_pairs
from gueststar.core import times
from gueststar.formats.avro import field_names
from gueststar.model.catalog import Catalog
from gueststar.model.depth import DepthMap
from gueststar.model.visit import VisitRecord, corner_arrays
from gueststar.pipelines.alerts.forced_history import (
    References,
    finished,
    forced_records,
    reference_rows,
    told_forced,
)
from gueststar.pipelines.alerts.visible import Image, VisibleHistory, image_at, images_of
from gueststar.pipelines.alerts.wire_fields import Fields, detection_fields, exposure_fields, numbers, rows_from

Places = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class HistoryConfig:
    """What counts as the past of a detection."""

    window_days: float = 30.0
    """How far back detections, upper limits and forced fluxes are told."""
    match: MatchConfig = field(default_factory=MatchConfig)
    """How far apart a detection and an earlier one at the same place may lie."""


@dataclass(frozen=True)
class Past:
    """What one packet tells of the past."""

    prv_candidates: list[dict[str, Any]]
    fp_hists: list[dict[str, Any]]
    counts: dict[str, Any]
    """ndethist, ncovhist, jdstarthist and jdendhist."""


class TellHistory:
    """Tell the past of the detections of one visit, as far as the visit's stream may show it."""

    def __init__(self, config: HistoryConfig = HistoryConfig()) -> None:
        self.config = config

    def run(
        self,
        triggers: Catalog,
        record: VisitRecord,
        seen: VisibleHistory,
        *,
        reference_places: Places,
        known_since: Mapping[int, int],
    ) -> list[Past]:
        """Return the past of each trigger (`DIA_SOURCE` rows of ``record``).

        ``reference_places`` are (ra, dec) of the triggers' nearest reference sources; ``known_since`` is the
        commit from which on the stream knows each object.
        """
        config = self.config
        covered = covering(seen.visits, triggers)
        detected = detected_at(triggers, seen.detections, config.match)
        counts = _counts(record, seen.all_detections, detected_at(triggers, seen.all_detections, config.match), covered)
        told = _told_detections(seen)
        limits = _told_limits(seen, triggers)
        forced = _ForcedPast(seen, triggers, reference_places, known_since)
        past = []
        for row in range(triggers.n_rows):
            items = [told[i] for i in detected[row]]
            images = {image_at(seen.detections, i) for i in detected[row]}
            items += [
                limit.record | {"diffmaglim": limit.mag[row]}
                for limit in limits
                if covered[limit.visit, row] and limit.image not in images and limit.mag[row] is not None
            ]
            items.sort(key=_by_time)
            past.append(Past(items, forced.of(row, detected[row]), counts[row]))
        return past


class _ForcedPast:
    """Forced fluxes of each trigger's object, from the commit on at which the stream first knew it."""

    def __init__(
        self, seen: VisibleHistory, triggers: Catalog, reference_places: Places, known_since: Mapping[int, int]
    ) -> None:
        self._seen, self._triggers, self._known_since = seen, triggers, known_since
        self._records = forced_records(seen)
        self._own = reference_rows(triggers, *reference_places)
        detections = seen.detections
        self._known = reference_rows(detections, detections["reference_ra"], detections["reference_dec"])

    def of(self, row: int, detected: list[int]) -> list[dict[str, Any]]:
        """Return the `fp_hist` records of one trigger, by time."""
        mine = told_forced(self._seen, int(self._triggers["dia_object_id"][row]), self._known_since)
        if not mine:
            return []
        references = self._references(row, detected)
        return sorted((finished(self._records[i], references) for i in mine), key=_by_time)

    def _references(self, row: int, detected: list[int]) -> References:
        """Return the nearest reference source by filter: the trigger's own, else the latest detection's."""
        bands = self._seen.detections["band_id"]
        references = {int(bands[i]): self._known[i] for i in sorted(detected, key=self._time_of)}
        return references | {int(self._triggers["band_id"][row]): self._own[row]}

    def _time_of(self, detection: int) -> float:
        return float(self._seen.detections["mjd_start"][detection])


def _by_time(item: dict[str, Any]) -> tuple[float, int]:
    return item["jd"], item["pid"]


def detected_at(triggers: Catalog, detections: Catalog, config: MatchConfig) -> list[list[int]]:
    """Return for each trigger the rows of earlier detections at its place, the nearest one of each image."""
    first, second, separation = near_pairs(*_places(triggers), *_places(detections), config=config)
    found: list[dict[Image, int]] = [{} for _ in range(triggers.n_rows)]
    for pair in np.argsort(separation, kind="stable").tolist():
        row = int(second[pair])
        found[first[pair]].setdefault(image_at(detections, row), row)
    return [list(rows.values()) for rows in found]


def _counts(
    record: VisitRecord, earlier: Catalog, detected: list[list[int]], covered: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """Return the counts of each trigger, itself included; detections on its own field and channel only."""
    jd_now, jd = record.jd_start, times.jd_utc_of(earlier["mjd_start"])
    is_same = (earlier["rcid"] == record.rcid) & (earlier["field"] == record.field)
    counts = []
    for rows, n_covered in zip(detected, covered.sum(axis=0).tolist(), strict=True):
        same = [i for i in rows if is_same[i]]
        first = float(jd[same].min()) if same else jd_now
        counts.append({"ndethist": 1 + len(same), "ncovhist": 1 + n_covered, "jdstarthist": first, "jdendhist": jd_now})
    return counts


def _places(catalog: Catalog) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return (ra, dec, the larger position error) of detections."""
    return catalog["ra"], catalog["dec"], np.fmax(catalog["ra_err"], catalog["dec_err"]).astype(np.float64)


def covering(visits: Catalog, triggers: Catalog) -> NDArray[np.bool_]:
    """Return ``[n_visits, n_triggers]``: whose images cover which place."""
    if visits.n_rows == 0:
        return np.zeros((0, triggers.n_rows), dtype=bool)
    return is_inside(*corner_arrays(visits), triggers["ra"], triggers["dec"])


def _told_detections(seen: VisibleHistory) -> list[dict[str, Any]]:
    """Return the `prv_candidate` records of the visible detections."""
    detections = seen.detections
    if detections.n_rows == 0:
        return []
    row_of = {image: row for row, image in enumerate(images_of(seen.visits))}
    visits = seen.visits.select(np.array([row_of[image] for image in images_of(detections)]))
    fields = exposure_fields(visits) | detection_fields(detections, visits)
    fields |= {"ranr": numbers(detections["reference_ra"]), "decnr": numbers(detections["reference_dec"])}
    unknown: Fields = {name: [None] * detections.n_rows for name in ("ssdistnr", "ssmagnr", "ssnamenr")}
    return rows_from(fields | unknown)


class _Limit(NamedTuple):
    """What one image within the window says where nothing was detected."""

    visit: int
    """Row of the visit."""
    image: Image
    record: dict[str, Any]
    """`prv_candidate` record without its limit."""
    mag: list[float | None]
    """The limit at each trigger; None where the image tells nothing."""


def _told_limits(seen: VisibleHistory, triggers: Catalog) -> list[_Limit]:
    """Return the upper limits within the window."""
    rows = np.flatnonzero(seen.is_recent)
    if len(rows) == 0:
        return []
    visits = seen.visits.select(rows)
    blank = dict.fromkeys(_prv_fields())
    records = rows_from(exposure_fields(visits))
    limits = _limits_at(visits, triggers, seen.depths)
    told = [[value if np.isfinite(value) else None for value in limit] for limit in limits.tolist()]
    images = images_of(visits)
    return [
        _Limit(row, image, blank | record, mag)
        for row, image, record, mag in zip(rows.tolist(), images, records, told, strict=True)
    ]


def _limits_at(
    visits: Catalog, triggers: Catalog, depths: Mapping[Image, DepthMap]
) -> NDArray[np.float64]:  # fmt: skip
    """Return ``[n_visits, n_triggers]``: the limit at each place; NaN where the image was masked there.

    Images of which no map is known (a user's own catalogs) have one limit for all places.
    """
    limits = np.repeat(visits["limiting_mag"][:, None], triggers.n_rows, axis=1)
    mapped = [(row, depths[image]) for row, image in enumerate(images_of(visits)) if image in depths]
    if not mapped:
        return limits
    corners = corner_arrays(visits.select(np.array([row for row, _ in mapped])))
    across, up = places_within(*corners, triggers["ra"], triggers["dec"])
    for k, (row, depth) in enumerate(mapped):
        ny, nx = depth.shape
        limits[row] = depth.nearest(x=across[k] * nx - 0.5, y=up[k] * ny - 0.5)
    return limits


@cache
def _prv_fields() -> tuple[str, ...]:
    return field_names("prv_candidate")
