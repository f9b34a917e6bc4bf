"""A Dask scheduler that does not ask idle workers twice a second how they are."""

from __future__ import annotations

from typing import Any

from distributed import Scheduler

HEARTBEAT_S = 5.0
"""A worker tells this often that it is there and what memory it has. That it died is known at once by its connection,
that it hangs by its unit's time; Dask itself has up to ten workers tell it twice a second."""


class CalmScheduler(Scheduler):
    """Dask's scheduler with a slower heartbeat, which Dask has no setting for."""

    def heartbeat_worker(self, **facts: Any) -> dict[str, Any]:
        """Note how a worker is, and answer when it is to tell again."""
        answer: dict[str, Any] = super().heartbeat_worker(**facts)
        if "heartbeat-interval" in answer:
            answer["heartbeat-interval"] = max(HEARTBEAT_S, answer["heartbeat-interval"])
        return answer
