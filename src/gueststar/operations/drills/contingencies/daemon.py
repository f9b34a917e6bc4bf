"""The operator itself dies, or its clock is stepped."""

from __future__ import annotations

from gueststar.operations.drills.stage import Stage
from gueststar.operations.drills.verdict import Protocol


def daemon_killed(stage: Stage, told: Protocol) -> None:
    """The operator is killed twice in the middle of its work, and started again each time."""
    root = stage.survey("daemon-killed")
    with stage.operating(root) as operator, stage.link(root):
        for n in (1, 3):
            stage.wait_for(root, operator, n)
            operator.kill()
            told.did(f"killed the operator ({operator.pid}) after {n} images")
            operator.start()
        told.did(f"waited {stage.wait_for_all(root, operator):.1f} s for the rest of the night")
        operator.stop()
    stage.judge(root, told)


def clock_step(stage: Stage, told: Protocol) -> None:
    """The machine comes up again with a clock that is an hour slow: exposures lie in its future."""
    root = stage.survey("clock-step")
    with stage.operating(root) as operator, stage.link(root):
        stage.wait_for(root, operator, 2)
        operator.stop()
        assert operator.clock_starts is not None
        operator.clock_starts -= 3600.0
        operator.start()
        told.did("started it again with a clock an hour slow")
        told.did(f"waited {stage.wait_for_all(root, operator):.1f} s for the rest of the night")
        operator.stop()
    stage.judge(root, told)
