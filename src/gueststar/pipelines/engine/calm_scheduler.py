"""A Dask scheduler that does not ask idle workers twice a second how they are, nor itself four times."""

from __future__ import annotations

from typing import Any

from distributed import Scheduler

HEARTBEAT_S = 5.0
"""A worker tells this often that it is there and what memory it has. That it died is known at once by its connection,
that it hangs by its unit's time; Dask itself has up to ten workers tell it twice a second."""
_LOOK_EVERY_MS = 10_000.0
"""Whether the cluster may end because it is idle or has no workers is looked at this often; ours never may."""


class CalmScheduler(Scheduler):
    """Dask's scheduler with a slower heartbeat and fewer looks at itself, which Dask has no settings for."""

    def __init__(self, *arguments: Any, **facts: Any) -> None:
        super().__init__(*arguments, **facts)
        for name in ("idle-timeout", "no-workers-timeout"):
            self.periodic_callbacks[name].callback_time = _LOOK_EVERY_MS

    def heartbeat_worker(self, **facts: Any) -> dict[str, Any]:
        """Note how a worker is, and answer when it is to tell again."""
        answer: dict[str, Any] = super().heartbeat_worker(**facts)
        if "heartbeat-interval" in answer:
            answer["heartbeat-interval"] = max(HEARTBEAT_S, answer["heartbeat-interval"])
        return answer
