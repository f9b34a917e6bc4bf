"""Work that ends after a while and goes on the next time."""

from __future__ import annotations

import time
from collections.abc import Callable


def over_after(seconds: float | None) -> Callable[[], bool]:
    """Return a call that says whether the seconds since now are over; None: never."""
    if seconds is None:
        return lambda: False
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def files_now(now: float) -> float:
    """Return the time to measure the age of files by: a rehearsal's clock never makes files older than they are."""
    return min(now, time.time())
