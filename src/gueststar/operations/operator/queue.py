"""What waits for a worker, and what is begun next: tonight's first, the backlog beside it, the rest when both rest."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from gueststar.operations.rules.contract import Priority

Stage = Literal["science", "difference", "other"]


@dataclass(frozen=True, order=True)
class Unit:
    """One unit of work that waits, sorted as it is to be begun."""

    priority: int
    due: float
    """When it is to be done by its rule, Unix time: the earliest first."""
    exposure: int
    detector: int
    stage: Stage = "science"
    job: int = 0
    """Of work that no exposure tells (``other``)."""
    series: str = ""
    """What such work belongs to."""

    def words(self) -> str:
        """Return what it is, for who watches."""
        if self.stage == "other":
            return f"{self.series}, detector {self.detector}"
        return f"{self.stage} of exposure {self.exposure} detector {self.detector}"


class WorkQueue:
    """Units by priority and time; one in ``backlog_share`` is of a lower priority while higher ones wait."""

    def __init__(self, *, backlog_share: int) -> None:
        self.backlog_share = backlog_share
        self._heaps: dict[int, list[Unit]] = {}
        self._waiting: set[Unit] = set()
        self._later: list[tuple[float, Unit]] = []
        self._n_tonight = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._later)

    def put(self, unit: Unit, *, not_before: float = 0.0) -> None:
        """Add a unit; one that is there already is not added again. ``not_before`` is monotonic."""
        if not_before:
            heapq.heappush(self._later, (not_before, unit))
        elif unit not in self._waiting:
            self._waiting.add(unit)
            heapq.heappush(self._heaps.setdefault(unit.priority, []), unit)

    def take(self, *, now: float, lowest: int | None = None) -> Unit | None:
        """Return what is to be begun next and forget it; None where nothing is due.

        ``now`` is monotonic. ``lowest``: priorities that come after this one are left waiting.
        """
        self._wake(now)
        levels = [level for level in sorted(self._heaps) if self._heaps[level] and (lowest is None or level <= lowest)]
        if not levels:
            return None
        level = levels[0]
        if level == Priority.TONIGHT and len(levels) > 1 and levels[1] <= Priority.BACKLOG:
            self._n_tonight += 1
            if self._n_tonight >= self.backlog_share:
                self._n_tonight, level = 0, levels[1]
        unit = heapq.heappop(self._heaps[level])
        self._waiting.discard(unit)
        return unit

    def counts(self) -> dict[str, int]:
        """Return priority (as a word) -> units waiting."""
        levels = Counter(unit.priority for unit in self._waiting) + Counter(unit.priority for _, unit in self._later)
        return {_word(level): number for level, number in sorted(levels.items())}

    def next_due(self) -> float | None:
        """Return when (monotonic) the next unit is due that is put off; None: none is."""
        return self._later[0][0] if self._later else None

    def _wake(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            self.put(heapq.heappop(self._later)[1])


def _word(level: int) -> str:
    return Priority(level).name.lower() if level in Priority._value2member_map_ else str(level)
