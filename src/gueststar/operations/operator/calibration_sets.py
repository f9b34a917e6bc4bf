"""When the calibration frames of a night are a complete set, of which products are to be made."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class _Set:
    last: float
    """When the last frame came, monotonic."""
    wanted: float | None = None
    """Since when a science exposure waits for it, monotonic."""
    is_asked: bool = False


class CalibrationSets:
    """Sets by night: complete when quiet, when asked for, or when science has waited long enough for them."""

    def __init__(self, *, quiet_s: float, patience_s: float) -> None:
        self.quiet_s, self.patience_s = quiet_s, patience_s
        self._open: dict[int, _Set] = {}
        self._making: set[int] = set()

    def __len__(self) -> int:
        return len(self._open) + len(self._making)

    def __contains__(self, night: object) -> bool:
        return night in self._open or night in self._making

    def add(self, night: int, *, now: float) -> None:
        """Note that a frame of a night came."""
        self._open.setdefault(night, _Set(now)).last = now

    def want(self, night: int, *, now: float) -> bool:
        """Return whether science of a night has to wait for its set; note that it does."""
        if (found := self._open.get(night)) is not None:
            found.wanted = found.wanted or now
        return found is not None or night in self._making

    def ask(self, night: int) -> None:
        """Declare the set of a night complete: the night begins."""
        if night in self._open:
            self._open[night].is_asked = True

    def complete(self, *, now: float, is_more_coming: bool) -> list[int]:
        """Return the nights whose sets are complete now; they count as being made until `made`.

        ``is_more_coming``: files have arrived that nobody has looked into, perhaps further frames.
        """
        nights = [
            night for night, found in self._open.items()
            if found.is_asked
            or (not is_more_coming and now - found.last >= self.quiet_s)
            or (found.wanted is not None and now - found.wanted >= max(self.patience_s, self.quiet_s))
        ]  # fmt: skip
        nights = [night for night in sorted(nights) if night not in self._making]
        for night in nights:
            del self._open[night]
            self._making.add(night)
        return nights

    def made(self, night: int) -> None:
        """Note that the products of a night are made, as far as they can be."""
        self._making.discard(night)

    def next_due(self) -> float | None:
        """Return when (monotonic) the next set may be complete; None where none is open."""
        return min((found.last + self.quiet_s for found in self._open.values()), default=None)
