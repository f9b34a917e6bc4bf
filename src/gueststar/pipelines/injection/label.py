"""Tell which detections are artificial sources: labelled examples for the reliability model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.model.catalog import Catalog
from gueststar.pipelines.injection.place import ArtificialSources

Floats = NDArray[np.float64]


def label_detections(
    found: Catalog, injected: ArtificialSources, *, known: tuple[Floats, Floats], radius: float
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the rows of `DIA_SOURCE` detections that can be labelled, and whether each is an injected source.

    A detection within ``radius`` (pixels) of an injected source of its sign is real. Those near a ``known`` (x, y)
    thing that changes by itself, and those near an injected source but of the wrong sign, belong to neither side.
    """
    places = np.stack([found["x"], found["y"]], axis=1).astype(np.float64)
    sign = np.where(found["is_positive"], 1.0, -1.0)
    is_real, is_unclear = np.zeros(found.n_rows, bool), np.zeros(found.n_rows, bool)
    if injected.x.size:
        tree = cKDTree(np.stack([injected.x, injected.y], axis=1))
        for row, near in enumerate(tree.query_ball_point(places, radius)):
            is_real[row] = any(sign[row] * injected.flux[k] > 0 for k in near)
            is_unclear[row] = bool(near) and not is_real[row]
    if known[0].size:
        distance, _ = cKDTree(np.stack(known, axis=1)).query(places)
        is_unclear |= ~is_real & (distance < 3.0 * radius)
    rows = np.flatnonzero(~is_unclear)
    return rows, is_real[rows]
