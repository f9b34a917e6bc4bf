"""Tell which known object each new detection belongs to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.association.match import MatchConfig, match_positions
from gueststar.core.bits import SourceFlag
from gueststar.model.catalog import Catalog


@dataclass(frozen=True)
class AssociationConfig:
    """How detections become objects."""

    match: MatchConfig = field(default_factory=MatchConfig)
    """How far apart the positions of one object may lie."""
    min_reliability_to_found: float = 0.1
    """A detection of lower score joins a known object but founds none (an unscored one founds)."""
    never_found: SourceFlag = SourceFlag.SATELLITE | SourceFlag.COSMIC_RAY
    """Flags with which a detection founds no object."""


@dataclass(frozen=True, eq=False)
class Association:
    """Detections with their objects."""

    dia_sources: Catalog
    """`DIA_SOURCE` rows, ``dia_object_id`` filled (0: of no object)."""
    new_object_ids: NDArray[np.int64]
    """Objects that were founded."""
    n_matched: int
    """Detections that belong to objects known before."""


class AssociateSources:
    """Match detections of one image to the objects known there; those left over found new objects.

    What one stream's detections are joined to depends on that stream's detections only: an object that
    other programs alone have seen takes in a detection just where it would have founded an object.
    """

    def __init__(self, config: AssociationConfig = AssociationConfig()) -> None:
        self.config = config

    def run(
        self,
        dia_sources: Catalog,
        tiers: Sequence[Catalog],
        *,
        new_object_ids: Callable[[NDArray[np.int64]], NDArray[np.int64]],
    ) -> Association:
        """Return the detections with ``dia_object_id``; ``new_object_ids`` names objects after their founders.

        ``tiers`` are the known objects as `tiers_of_view` puts them for the stream of the detections.
        """
        known, *hidden = tiers
        object_ids = np.zeros(dia_sources.n_rows, dtype=np.int64)
        self._join(object_ids, dia_sources, np.arange(dia_sources.n_rows), known)
        may_found = self._may_found(dia_sources)
        for objects in hidden:
            self._join(object_ids, dia_sources, np.flatnonzero((object_ids == 0) & may_found), objects)
        n_matched = int(np.count_nonzero(object_ids))
        founders = np.flatnonzero((object_ids == 0) & may_found)
        founded = new_object_ids(dia_sources["dia_source_id"][founders])
        object_ids[founders] = founded
        return Association(dia_sources.replace(dia_object_id=object_ids), founded, n_matched)

    def _join(self, object_ids: NDArray[np.int64], sources: Catalog, rows: NDArray[np.intp], objects: Catalog) -> None:
        """Write the objects that some rows of the detections belong to into ``object_ids``."""
        if len(rows) == 0 or objects.n_rows == 0:
            return
        mine = sources.select(rows)
        matches = match_positions(
            mine["ra"], mine["dec"], _error(mine), objects["ra"], objects["dec"], _error(objects),
            config=self.config.match,
        )  # fmt: skip
        object_ids[rows[matches.index_1]] = objects["dia_object_id"][matches.index_2]

    def _may_found(self, dia_sources: Catalog) -> NDArray[np.bool_]:
        is_poor = dia_sources["reliability"] < self.config.min_reliability_to_found  # NaN is not
        is_flagged = (dia_sources["flags"] & int(self.config.never_found)) != 0
        return np.asarray(~is_poor & ~is_flagged)


def _error(catalog: Catalog) -> NDArray[np.float64]:
    """Return the larger of the two position errors, arcsec."""
    return np.fmax(catalog["ra_err"], catalog["dec_err"]).astype(np.float64)
