"""What the detection store hands out before a visit is associated, and takes in afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gueststar.model.catalog import Catalog, Column, Schema
from gueststar.model.columns import DIA_OBJECT, DIA_SOURCE, FORCED_SOURCE
from gueststar.model.depth import DepthMap
from gueststar.model.visit import VISIT, VisitRecord

OBJECT_PART = Schema(
    "object_part",
    (
        Column("dia_object_id", "i8", "", "the object"),
        Column("program", "i4", "", "access category of the exposures that this part sums up"),
        Column("n_dia_sources", "i4", "", "detections"),
        Column("first_sequence", "i8", "", "number of the commit that held the first of them"),
        Column("named_year", "i4", "yr", "calendar year (UTC) of the exposure of that commit"),
        Column("first_mjd_tai", "f8", "day", "first detection"),
        Column("last_mjd_tai", "f8", "day", "last detection"),
        Column("weight", "f8", "arcsec-2", "sum of inverse position variances"),
        Column("sum_x", "f8", "arcsec-2", "weighted sum of unit vectors, x"),
        Column("sum_y", "f8", "arcsec-2", "weighted sum of unit vectors, y"),
        Column("sum_z", "f8", "arcsec-2", "weighted sum of unit vectors, z"),
        Column("inverse_variance_ra", "f8", "arcsec-2", "sum of inverse variances along RA"),
        Column("inverse_variance_dec", "f8", "arcsec-2", "sum of inverse variances along Dec"),
    ),
)
"""What the exposures of one program add to an object: summed up apart, so that a stream is told only its own."""

COMMITTED_VISIT = Schema("committed_visit", (*VISIT.columns, Column("sequence", "i8", "", "number of the commit")))
"""Images with their place in the order of commits."""

KNOWN_OBJECT = Schema(
    "known_object", (*DIA_OBJECT.columns, Column("name_number", "i8", "", "number in the name of the object"))
)
"""Objects with what names them."""

NARROW_SOURCE = Schema(
    "narrow_source",
    (
        Column("dia_source_id", "i8", "", "identifier"),
        Column("visit", "i8", "", "visit id"),
        Column("detector", "i4", "", "detector id"),
        Column("ra", "f8", "deg", "right ascension"),
        Column("dec", "f8", "deg", "declination"),
        Column("ra_err", "f4", "arcsec", "its error on the sky"),
        Column("dec_err", "f4", "arcsec", "its error"),
        Column("program", "i4", "", "access category of the exposure"),
        Column("day_obs", "i4", "", "survey night"),
        Column("field", "i4", "", "survey field"),
        Column("rcid", "i4", "", "readout channel"),
        Column("mjd_start", "f8", "day", "start of the exposure, MJD TAI"),
    ),
)
"""Detections of all times, as far as counting them needs."""

HISTORY_SOURCE = Schema(
    "history_source",
    (
        *DIA_SOURCE.columns,
        Column("mjd_start", "f8", "day", "start of the exposure, MJD TAI"),
        Column("day_obs", "i4", "", "survey night"),
        Column("reference_ra", "f8", "deg", "nearest reference source; NaN if none"),
        Column("reference_dec", "f8", "deg", "nearest reference source; NaN if none"),
    ),
)
"""Detections with what a packet's history tells of them."""

HISTORY_FORCED = Schema(
    "history_forced", (*FORCED_SOURCE.columns, Column("sequence", "i8", "", "number of the commit it came with"))
)
"""Forced fluxes with the moment from which on they were there."""


@dataclass(frozen=True, eq=False)
class WorkingSet:
    """The objects that a visit may see again, as they were after commit number ``sequence``."""

    sequence: int
    objects: Catalog
    """`DIA_OBJECT` rows (position and counts of all detections)."""
    parts: Catalog
    """`OBJECT_PART` rows of these objects."""
    name_numbers: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Number in the name of each object."""
    visits: Catalog = field(default_factory=VISIT.empty)
    """`VISIT` rows of committed images that overlap the image and a margin, itself left out."""


@dataclass(frozen=True, eq=False)
class Founding:
    """Objects that a stream first saw on one image, and the images on which they may be looked for."""

    image: Catalog
    """One `COMMITTED_VISIT` row."""
    known: WorkingSet
    """The objects, as all programs know them by now."""
    candidates: Catalog
    """`COMMITTED_VISIT` rows of images over the same place that were committed without knowing them."""


@dataclass(frozen=True, eq=False)
class History:
    """What lies behind the detections of one visit, before rights are applied to it."""

    detections: Catalog
    """`HISTORY_SOURCE` rows near the detections, within the window."""
    all_detections: Catalog
    """`NARROW_SOURCE` rows near the detections, since the survey began."""
    visits: Catalog
    """`VISIT` rows that may have covered the detections, since the survey began."""
    forced: Catalog
    """`HISTORY_FORCED` rows of the detections' objects, within the window."""
    depths: Mapping[tuple[int, int], DepthMap] = field(default_factory=dict)
    """Limiting magnitudes of the difference images (visit, detector) within the window, where they are known."""

    @classmethod
    def empty(cls) -> History:
        """Return a history of nothing."""
        return cls(HISTORY_SOURCE.empty(), NARROW_SOURCE.empty(), VISIT.empty(), HISTORY_FORCED.empty())


@dataclass(frozen=True)
class OutboxAlert:
    """An encoded packet on its way to the alert log."""

    candid: int
    object_name: str
    day_obs: int
    program: int
    payload: bytes = field(repr=False)


@dataclass(frozen=True, eq=False)
class VisitCommit:
    """All that one detector image of one visit adds, made permanent in one transaction."""

    record: VisitRecord
    dia_sources: Catalog
    """`DIA_SOURCE` rows with their ``dia_object_id`` (0: of no object)."""
    reference_positions: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    """(ra, dec) of the nearest reference source of each dia_source, NaN where there is none."""
    forced: Catalog | None = None
    """`FORCED_SOURCE` rows."""
    name_numbers: dict[int, int] = field(default_factory=dict)
    """Name number of each new object."""
    alerts: tuple[OutboxAlert, ...] = ()
    base_sequence: int | None = None
    """``WorkingSet.sequence`` that the association rests on; None: not checked."""
    depth: DepthMap | None = None
    """Limiting magnitudes of the difference image, place by place."""


@dataclass(frozen=True)
class CommitReceipt:
    """What a commit made permanent; the same again when it is repeated."""

    visit: int
    detector: int
    sequence: int
    """Number of the commit."""
    n_dia_sources: int
    n_new_objects: int
    n_alerts: int
    is_late: bool
    """A later exposure of this place had been committed before."""
    is_new: bool
    """False: this visit and detector had been committed before, and nothing was done."""
