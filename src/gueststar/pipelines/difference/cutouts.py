"""Cut-outs of candidates, and what the network sees of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gueststar.algorithms.vetting.features import psf_width
from gueststar.algorithms.vetting.stamps import StampViews, stamp_views
from gueststar.core.bits import MaskPlane
from gueststar.formats.cutouts import CUTOUT_SIDE, cut_stamps_in_place
from gueststar.model.catalog import Catalog
from gueststar.model.cutouts import PLANES, CandidateCutouts
from gueststar.model.image import MaskedImage

_PART = 256


def cut_candidates(
    candidates: Catalog, science: MaskedImage | None, reference: MaskedImage | None, difference: MaskedImage | None
) -> CandidateCutouts:
    """Return the three stamps of every candidate; pixels without data, and images that are not there, are NaN."""
    images = (science, reference, difference)
    stamps = np.full((candidates.n_rows, len(PLANES), CUTOUT_SIDE, CUTOUT_SIDE), np.nan, dtype=np.float32)
    x, y = (np.ascontiguousarray(candidates[name], dtype=np.float64) for name in "xy")
    for plane, image in enumerate(images):
        if image is not None:
            cut_stamps_in_place(image.image, image.mask, int(MaskPlane.NO_DATA), x, y, stamps[:, plane])
    return CandidateCutouts(candidates["dia_source_id"], stamps)


class Triplet(NamedTuple):
    """The images that candidates are cut from, on the same pixels."""

    science: MaskedImage
    reference: MaskedImage
    difference: MaskedImage


def views_of(candidates: Catalog, triplet: Triplet) -> StampViews:
    """Return the views of the candidates of one image; a crowded one's are cut in parts, to bound memory."""
    fwhm = psf_width(candidates)
    starts = range(0, max(candidates.n_rows, 1), _PART)
    parts = [
        _views(part, cut_candidates(part, *triplet), fwhm)
        for part in (candidates.select(np.arange(k, min(k + _PART, candidates.n_rows))) for k in starts)
    ]
    return StampViews(*map(np.concatenate, zip(*parts, strict=True)))


def views_of_cutouts(candidates: Catalog, cutouts: CandidateCutouts, *, fwhm: float = np.nan) -> StampViews:
    """Return the views of candidates of one image, whose cut-outs come in the same order.

    ``fwhm`` of the difference's PSF (pixels) is told by the candidates where it is not given.
    """
    return _views(candidates, cutouts, fwhm if np.isfinite(fwhm) else psf_width(candidates))


def _views(candidates: Catalog, cutouts: CandidateCutouts, fwhm: float) -> StampViews:
    return stamp_views(
        cutouts.stamps,
        dx=candidates["x"] - np.rint(candidates["x"]),
        dy=candidates["y"] - np.rint(candidates["y"]),
        fwhm=fwhm,
        is_positive=candidates["is_positive"].astype(bool),
    )
