"""A measured figure with its error, or why there is none."""

from __future__ import annotations

import math
from typing import NamedTuple


class Estimate(NamedTuple):
    """One figure."""

    value: float | None
    """None: it could not be measured."""
    error: float | None
    """One sigma, of the value; None where it is not known."""
    n: int
    """What it rests on: stars, pairs, images."""
    why: str = ""
    """Why there is no value."""


def nothing(n: int, why: str) -> Estimate:
    """Return that a figure could not be measured, and why."""
    return Estimate(None, None, n, why)


def measured(value: float, error: float, n: int) -> Estimate:
    """Return a figure; one that is no number is none."""
    if not math.isfinite(value):
        return nothing(n, "the measurements gave no number")
    return Estimate(float(value), float(error) if math.isfinite(error) else None, int(n))
