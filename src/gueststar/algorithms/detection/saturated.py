"""Where saturated stars are: they have no peak of their own."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


class SaturatedCores(NamedTuple):
    """Centres of saturated regions."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    radius: NDArray[np.float64]
    """Radius of the largest disc that fits into the region, pixels."""
    labels: NDArray[np.int32]
    """``[y, x]``: number of the region from 1, 0 elsewhere."""


def find_saturated_cores(is_saturated: NDArray[np.bool_], *, min_pixels: int = 2) -> SaturatedCores:
    """Return the centres of connected saturated regions: the middle of their thickest part.

    Bleed trails are thin and do not pull the centre. Regions of fewer than ``min_pixels`` are left out.
    """
    every, _ = ndimage.label(is_saturated, structure=np.ones((3, 3)), output=np.int32)
    labels, found = np.zeros_like(every), []
    for number, where in enumerate(ndimage.find_objects(every), start=1):
        region = every[where] == number
        if np.count_nonzero(region) < min_pixels:
            continue
        depth = ndimage.distance_transform_edt(np.pad(region, 1))
        y, x = np.nonzero(depth >= 0.8 * depth.max())
        found.append((where[1].start + x.mean() - 1, where[0].start + y.mean() - 1, depth.max()))
        labels[where][region] = len(found)
    table = np.array(found, dtype=np.float64).reshape(-1, 3)
    return SaturatedCores(table[:, 0], table[:, 1], table[:, 2], labels)
