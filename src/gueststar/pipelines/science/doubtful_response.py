"""Pixels whose response to light a flat puts in doubt: found once for each flat, marked in each exposure."""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.detrend.edges import (
    EdgeConfig,
    EdgeLines,
    find_uncertain,
    find_vignetted,
    mark_where_in_place,
    measure_edge_lines,
)
from gueststar.algorithms.detrend.groups import has_any
from gueststar.core.bits import MaskPlane
from gueststar.model.calibration import CalibrationMaster
from gueststar.model.image import MaskImage

Bools = NDArray[np.bool_]


class DoubtfulResponse(NamedTuple):
    """What a flat tells of the detector's rim, of vignetting, and of pixels whose response is poorly known."""

    lines: EdgeLines
    vignetted_fraction: float
    is_vignetted: Bools | None
    """``[y, x]``; None: nowhere."""
    is_uncertain: Bools | None
    """``[y, x]``; None: nowhere."""

    def mark_in_place(self, mask: MaskImage) -> None:
        """Mark vignetted pixels as EDGE and those of uncertain response as SUSPECT; the rim is left to the caller."""
        for where, plane in ((self.is_vignetted, MaskPlane.EDGE), (self.is_uncertain, MaskPlane.SUSPECT)):
            if where is not None:
                mark_where_in_place(mask, where, np.int32(int(plane)))


_known: WeakKeyDictionary[CalibrationMaster, tuple[EdgeConfig, float, DoubtfulResponse]] = WeakKeyDictionary()


def doubtful_response(flat: CalibrationMaster, *, edges: EdgeConfig, max_error: float) -> DoubtfulResponse:
    """Return what a flat puts in doubt; ``max_error`` is the fraction to which it must be known.

    It is remembered as long as somebody holds the flat, which a worker does for the exposures to come.
    """
    known = _known.get(flat)
    if known is not None and known[:2] == (edges, max_error):
        return known[2]
    found = _measured(flat, edges, max_error)
    _known[flat] = edges, max_error, found
    return found


def _measured(flat: CalibrationMaster, edges: EdgeConfig, max_error: float) -> DoubtfulResponse:
    pixels = flat.pixels
    is_bad = has_any(pixels.mask, int(MaskPlane.BAD | MaskPlane.NO_DATA))
    is_vignetted = find_vignetted(pixels.image, is_bad, config=edges)
    is_uncertain = find_uncertain(pixels.image, pixels.variance, max_error)
    return DoubtfulResponse(
        measure_edge_lines(pixels.image, is_bad, config=edges),
        float(is_vignetted.mean()),
        is_vignetted if is_vignetted.any() else None,
        is_uncertain if is_uncertain.any() else None,
    )
