"""What time it is: the machine's clock, or another that a rehearsal runs by.

Times of day come from a clock; how long something took is measured with ``time.monotonic``, which no step of the
machine's clock disturbs.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Anything that tells the time."""

    def now(self) -> float:
        """Return Unix time, seconds."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Return Unix time, seconds."""
        return time.time()


class RehearsalClock:
    """A clock that began at another time and runs at a rate: nights are rehearsed, or lived again, in fast time."""

    def __init__(self, *, start: float, rate: float = 1.0) -> None:
        self.start, self.rate = start, rate
        self._began = time.monotonic()

    def now(self) -> float:
        """Return Unix time, seconds."""
        return self.start + self.rate * (time.monotonic() - self._began)
