"""A history reduced to what the stream of one visit may show, item by item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gueststar.model.catalog import Catalog
from gueststar.model.depth import DepthMap
from gueststar.model.detections import History
from gueststar.model.rights import Program, RightsPolicy
from gueststar.model.visit import VisitRecord

Image = tuple[int, int]
"""(visit, detector)."""


@dataclass(frozen=True, eq=False)
class VisibleHistory:
    """The part of a `History` that one stream may show at one moment, all of it before its visit."""

    detections: Catalog
    """`HISTORY_SOURCE` rows within the window."""
    all_detections: Catalog
    """`NARROW_SOURCE` rows since the survey began."""
    visits: Catalog
    """`VISIT` rows since the survey began."""
    is_recent: NDArray[np.bool_]
    """Which visits lie within the window."""
    forced: Catalog
    """`HISTORY_FORCED` rows within the window."""
    depths: Mapping[Image, DepthMap]
    """Limiting magnitudes of the images within the window, where they are known."""

    @classmethod
    def of(
        cls, history: History, record: VisitRecord, *, policy: RightsPolicy, at_mjd_tai: float, window_days: float
    ) -> VisibleHistory:
        """Apply the data policy to every item; nothing that fails it goes any further than here."""
        stream, start = Program(record.program), record.mjd_start

        def visible(catalog: Catalog) -> Catalog:
            is_shown = may_show(catalog, stream=stream, policy=policy, at_mjd_tai=at_mjd_tai)
            return catalog.select(is_shown & (catalog["mjd_start"] < start))

        visits = visible(history.visits)
        is_recent = visits["mjd_start"] > start - window_days
        shown = set(images_of(visits.select(is_recent)))
        detections = visible(history.detections)
        return cls(
            detections.select(_are_on(detections, shown)),
            visible(history.all_detections),
            visits,
            np.asarray(is_recent, dtype=bool),
            history.forced.select(_are_on(history.forced, shown)),
            {image: depth for image, depth in history.depths.items() if image in shown},
        )


def may_show(catalog: Catalog, *, stream: Program, policy: RightsPolicy, at_mjd_tai: float) -> NDArray[np.bool_]:
    """Return which rows (with ``program`` and ``day_obs``) may leave in a stream at a moment."""
    if catalog.n_rows == 0:
        return np.zeros(0, dtype=bool)
    keys = np.stack([catalog["program"].astype(np.int64), catalog["day_obs"].astype(np.int64)])
    kinds, kind = np.unique(keys, axis=1, return_inverse=True)
    allowed = [
        policy.may_appear(Program(program), in_stream=stream, item_day_obs=night, at_mjd_tai=at_mjd_tai)
        for program, night in kinds.T.tolist()
    ]
    return np.asarray(allowed, dtype=bool)[kind.ravel()]


def image_at(catalog: Catalog, row: int) -> Image:
    """Return (visit, detector) of one row."""
    return int(catalog["visit"][row]), int(catalog["detector"][row])


def images_of(catalog: Catalog) -> list[Image]:
    """Return (visit, detector) of each row."""
    return list(zip(catalog["visit"].tolist(), catalog["detector"].tolist(), strict=True))


def _are_on(catalog: Catalog, images: set[Image]) -> NDArray[np.bool_]:
    return np.array([image in images for image in images_of(catalog)], dtype=bool)
