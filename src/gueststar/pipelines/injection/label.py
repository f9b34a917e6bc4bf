"""Tell which detections are artificial sources: labelled examples for the reliability model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.core.bits import SourceFlag
from gueststar.model.catalog import Catalog
from gueststar.model.labels import DetectionKind
from gueststar.pipelines.injection.place import ArtificialSources

Bools = NDArray[np.bool_]
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


def kinds_by_facts(found: Catalog, is_real: Bools, *, fwhm: float, scale: float) -> NDArray[np.int16]:
    """Return the class of labelled `DIA_SOURCE` detections as far as what was measured of them tells it.

    Real are artificial point sources, beside a source of the reference (within two FWHM, pixels times ``scale`` arcsec)
    or not. Artefacts go by their flags, by the bright star within ten FWHM, by a source of the reference within two.
    """
    near = found["reference_distance"] < 2.0 * fwhm * scale  # NaN, none within reach, is not near
    real = np.where(near, int(DetectionKind.TRANSIENT_IN_HOST), int(DetectionKind.TRANSIENT))
    flags, n = found["flags"], found.n_rows

    def has(flag: SourceFlag) -> Bools:
        return np.asarray((flags & int(flag)) != 0)

    conditions = {
        DetectionKind.COSMIC_RAY: has(SourceFlag.COSMIC_RAY) | (found["pixel_excess_snr"] > 5.0),
        DetectionKind.TRAIL: has(SourceFlag.SATELLITE),
        DetectionKind.BAD_PIXEL: has(SourceFlag.BAD_PIXEL),
        DetectionKind.EDGE: has(SourceFlag.EDGE) | (found["edge_distance"] < 1.5 * fwhm),
        DetectionKind.BRIGHT_STAR: has(SourceFlag.SATURATED | SourceFlag.NEAR_BRIGHT_STAR)
        | (found["bright_distance"] < 10.0 * fwhm * scale),
        DetectionKind.DIPOLE: near,
    }
    artefact = np.select(
        list(conditions.values()), [int(kind) for kind in conditions], default=int(DetectionKind.NOISE)
    )
    return np.asarray(np.where(is_real, real, artefact) if n else np.zeros(0), dtype=np.int16)
