"""Cut-outs of the candidates that may become alerts."""

from __future__ import annotations

import numpy as np

from gueststar.core.bits import MaskPlane
from gueststar.formats.cutouts import CUTOUT_SIDE, cut_stamp
from gueststar.model.catalog import Catalog
from gueststar.model.cutouts import PLANES, CandidateCutouts
from gueststar.model.image import MaskedImage


def cut_candidates(
    candidates: Catalog, science: MaskedImage | None, reference: MaskedImage | None, difference: MaskedImage | None
) -> CandidateCutouts:
    """Return the three stamps of every candidate; pixels without data, and images that are not there, are NaN."""
    images = (science, reference, difference)
    missing = [None if image is None else (image.mask & int(MaskPlane.NO_DATA)) != 0 for image in images]
    stamps = np.full((candidates.n_rows, len(PLANES), CUTOUT_SIDE, CUTOUT_SIDE), np.nan, dtype=np.float32)
    for row in range(candidates.n_rows):
        x, y = float(candidates["x"][row]), float(candidates["y"][row])
        for plane, image in enumerate(images):
            if image is None:
                continue
            stamps[row, plane] = cut_stamp(image.image, x=x, y=y, is_missing=missing[plane])
    return CandidateCutouts(candidates["dia_source_id"], stamps)
