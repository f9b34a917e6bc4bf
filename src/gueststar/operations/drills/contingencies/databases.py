"""The operations database goes down in the middle of a night."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace

from gueststar.operations.drills.link import Delivery
from gueststar.operations.drills.servers import running_postgres
from gueststar.operations.drills.stage import Stage
from gueststar.operations.drills.verdict import Protocol
from gueststar.operations.drills.world import make_evening

AWAY_S = 6.0


def database_down(stage: Stage, told: Protocol) -> None:
    """The database server is stopped while exposures come in, and started again some time later."""
    with running_postgres() as server:
        root = make_evening(stage.world, stage.folder / "database-down", database=server.url)
        stage.prepared(root)
        before, while_away = _halves(stage)
        with ExitStack() as stack:
            operator = stack.enter_context(stage.operating(root))
            stack.enter_context(stage.link(root, before))
            stage.wait_for(root, operator, 1)
            server.stop()
            told.did("stopped the database")
            operator.wait_until(lambda: (s := operator.state()) and s.mode == "waiting", "the operator waits")
            link = stack.enter_context(stage.link(root, while_away))
            time.sleep(AWAY_S)
            state = operator.state()
            why = state.why if state else ""
            told.expect("the operator waits, and says for what", is_met="database" in why, seen=why)
            n_delivered = link.n_delivered  # before looking: what comes in between lies there too
            n_there = sum((stage.landing(root) / delivery.name).exists() for delivery in while_away)
            told.expect(
                "raw files go on landing", is_met=0 < n_delivered <= n_there,
                seen=f"{n_delivered} more, {n_there} of them lie there",
            )  # fmt: skip
            server.start()
            told.did("started the database")
            took = operator.wait_until(lambda: (s := operator.state()) and s.mode == "running", "it goes on")
            told.did(f"the operator went on {took:.1f} s later")
            told.did(f"waited {stage.wait_for_all(root, operator):.1f} s for the rest of the night")
            operator.stop()
        stage.judge(root, told)


def _halves(stage: Stage) -> tuple[list[Delivery], list[Delivery]]:
    """Return what comes before the database goes away, and what comes, at the same pace, while it is."""
    deliveries = stage.timetable()
    first, second = deliveries[: len(deliveries) // 2], deliveries[len(deliveries) // 2 :]
    return first, [replace(item, at_s=item.at_s - second[0].at_s) for item in second]
