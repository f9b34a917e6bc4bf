"""Medians of float32 values: exact, in a fraction of the time that general code takes."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

_SHIFT = 21
"""Values are first counted by sign, exponent and two more bits: 2048 classes in their order."""


def median_of(values: NDArray[np.float32]) -> float:
    """Return the median of float32 values of any shape, as ``np.median`` does; NaN if there are none.

    Values that are NaN count as larger than all others (negative ones of them as smaller).
    """
    flat = np.ascontiguousarray(values, np.float32).ravel()
    return float(median_of_line(flat)) if flat.size else float("nan")


@njit(cache=True)
def median_of_line(values):  # type: ignore[no-untyped-def]
    """Return the median of a contiguous line of at least one float32 value."""
    n = values.size
    bits = values.view(np.int32)
    counts = np.zeros(2048, np.int64)
    for k in range(n):
        counts[_key(bits[k]) >> np.uint32(_SHIFT)] += 1
    upper = _ranked(bits, counts, n // 2)
    if n % 2 == 1:
        return upper
    return np.float32(0.5) * (_ranked(bits, counts, n // 2 - 1) + upper)


@njit(cache=True)
def _key(word):  # type: ignore[no-untyped-def]
    """Return a number that grows with the float32 that has the bits of ``word``."""
    return np.uint32(word) ^ (np.uint32(0x80000000) | np.uint32(word >> np.int32(31)))


@njit(cache=True)
def _ranked(bits, counts, rank):  # type: ignore[no-untyped-def]
    """Return the value that has ``rank`` smaller ones, from the class that holds it."""
    before, found = 0, 0
    while before + counts[found] <= rank:
        before += counts[found]
        found += 1
    some, n = np.empty(counts[found], np.int32), 0
    for k in range(bits.size):
        if _key(bits[k]) >> np.uint32(_SHIFT) == found:
            some[n] = bits[k]
            n += 1
    values = some.view(np.float32)
    values.sort()
    return values[rank - before]
