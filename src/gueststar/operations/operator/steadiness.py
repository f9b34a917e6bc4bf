"""Whether the clock of the machine runs steadily: it may be set while an operator works."""

from __future__ import annotations

import time
from collections.abc import Callable

from gueststar.core.clock import Clock, SystemClock

STEP_S = 5.0
"""Smaller steps are what a time service does now and then."""


class Steadiness:
    """Compares the clock of the day with one that no step disturbs."""

    def __init__(self, clock: Clock, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._monotonic = clock, monotonic
        self._is_real = isinstance(clock, SystemClock)
        self._offset = clock.now() - monotonic()

    def step_s(self) -> float:
        """Return by how much the clock was set since the last call, seconds; 0 where it was not.

        A rehearsal's clock is never set.
        """
        offset = self._clock.now() - self._monotonic()
        step, self._offset = offset - self._offset, offset
        return step if self._is_real and abs(step) > STEP_S else 0.0
