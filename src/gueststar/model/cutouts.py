"""Small images around candidates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gueststar.core.errors import DataError

PLANES = ("science", "reference", "difference")
"""What the second axis of the stamps holds, in order."""


@dataclass(frozen=True, eq=False)
class CandidateCutouts:
    """Science, warped reference and difference stamps of candidates, electrons; NaN where there is no image."""

    dia_source_id: NDArray[np.int64]
    """``[n]``."""
    stamps: NDArray[np.float32]
    """``[n, 3, side, side]``, the second axis as in `PLANES`."""

    def __post_init__(self) -> None:
        if self.stamps.ndim != 4 or self.stamps.shape[:2] != (self.dia_source_id.shape[0], len(PLANES)):
            raise DataError(f"stamps are {self.stamps.shape} for {self.dia_source_id.shape[0]} candidates")

    def of(self, dia_source_id: int) -> NDArray[np.float32]:
        """Return ``[3, side, side]`` of one candidate; DataError if it has none."""
        found = np.flatnonzero(self.dia_source_id == dia_source_id)
        if found.size == 0:
            raise DataError(f"there are no cut-outs of candidate {dia_source_id}")
        return np.asarray(self.stamps[found[0]])
