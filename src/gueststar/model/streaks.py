"""Pictures of the streaks of one difference image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gueststar.core.errors import DataError


@dataclass(frozen=True, eq=False)
class StreakCutouts:
    """Pictures of streaks, turned so that each lies along the rows, from its first end on the left to its second."""

    streak_id: NDArray[np.int64]
    """``[n]``."""
    stamps: tuple[NDArray[np.float32], ...]
    """For each streak difference and science electrons, ``[2, across, along]``; NaN where there is no pixel."""
    pixels_per_column: NDArray[np.float32]
    """``[n]`` image pixels along the streak in one column of its stamp: long streaks are binned."""

    def __post_init__(self) -> None:
        if not self.streak_id.size == len(self.stamps) == self.pixels_per_column.size:
            raise DataError(f"{len(self.stamps)} stamps are given for {self.streak_id.size} streaks")

    def of(self, streak_id: int) -> NDArray[np.float32]:
        """Return ``[2, across, along]`` of one streak; DataError if it has none."""
        found = np.flatnonzero(self.streak_id == streak_id)
        if found.size == 0:
            raise DataError(f"there are no cut-outs of streak {streak_id}")
        return self.stamps[int(found[0])]
