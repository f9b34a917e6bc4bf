"""The operations database goes down in the middle of a night."""

from __future__ import annotations

import time

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
        with stage.operating(root) as operator, stage.link(root) as link:
            stage.wait_for(root, operator, 1)
            server.stop()
            told.did("stopped the database")
            operator.wait_until(lambda: (s := operator.state()) and s.mode == "waiting", "the operator waits")
            n_before = link.n_delivered
            time.sleep(AWAY_S)
            state = operator.state()
            why = state.why if state else ""
            told.expect("the operator waits, and says for what", is_met="database" in why, seen=why)
            arrived = [path for path in stage.landing(root).iterdir() if not path.name.startswith(".")]
            told.expect(
                "raw files go on landing", is_met=link.n_delivered > n_before and len(arrived) == link.n_delivered,
                seen=f"{link.n_delivered - n_before} more, {len(arrived)} lie there",
            )  # fmt: skip
            server.start()
            told.did("started the database")
            took = operator.wait_until(lambda: (s := operator.state()) and s.mode == "running", "it goes on")
            told.did(f"the operator went on {took:.1f} s later")
            told.did(f"waited {stage.wait_for_all(root, operator):.1f} s for the rest of the night")
            operator.stop()
        stage.judge(root, told)
