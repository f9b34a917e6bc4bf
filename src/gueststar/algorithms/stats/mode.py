"""Where a sample is densest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats64 = NDArray[np.float64]


def half_sample_mode(values: Floats64) -> float:
    """Return the mode of a sample by halving it to its densest half (Bickel & Frühwirth 2006)."""
    sample = np.sort(values)
    while sample.size > 3:
        half = (sample.size + 1) // 2
        widths = sample[half - 1 :] - sample[: sample.size - half + 1]
        first = int(np.argmin(widths))
        sample = sample[first : first + half]
    return float(np.mean(sample)) if sample.size else float("nan")
