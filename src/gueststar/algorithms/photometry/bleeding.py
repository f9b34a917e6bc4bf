"""Charge beyond what a pixel holds runs along its column."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Image = NDArray[np.float32]


def bleed_in_place(electrons: Image, well: Image, *, readout_axis: str) -> None:
    """Let charge above the full well flow along the readout axis, half to each side, until it finds room.

    Both are ``[y, x]`` electrons; what flows over the detector's end is lost.
    """
    if readout_axis == "y":
        _bleed_columns(electrons, well)
    else:
        turned = np.ascontiguousarray(electrons.T)
        _bleed_columns(turned, np.ascontiguousarray(well.T))
        electrons[:] = turned.T


@njit(cache=True)
def _bleed_columns(electrons, well):  # type: ignore[no-untyped-def]
    ny, nx = electrons.shape
    spill = np.zeros(ny)
    for i in range(nx):
        found = False
        for j in range(ny):
            excess = electrons[j, i] - well[j, i]
            spill[j] = 0.0
            if excess > 0.0:
                spill[j] = 0.5 * excess
                electrons[j, i] = well[j, i]
                found = True
        if not found:
            continue
        for direction in (1, -1):
            carried = 0.0
            j = 0 if direction == 1 else ny - 1
            while 0 <= j < ny:
                room = well[j, i] - electrons[j, i]
                if carried > 0.0 and room > 0.0:
                    moved = min(carried, room)
                    electrons[j, i] += moved
                    carried -= moved
                carried += spill[j]
                j += direction
