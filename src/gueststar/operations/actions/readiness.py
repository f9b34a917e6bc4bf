"""The checklist before the night (item 10 of the day): what is red is something to be told of."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import Field

from gueststar.operations.actions.arguments import Arguments, arguments_of
from gueststar.operations.actions.contract import ActionContext, ActionResult, Condition
from gueststar.operations.actions.running_night import coming_night
from gueststar.operations.readiness import ReadinessLimits, counted, readiness_lines


class ReadinessArguments(Arguments):
    """From when on something is old."""

    calibration_days: float = Field(default=30.0, gt=0)
    """Masters."""
    orbit_days: float = Field(default=45.0, gt=0)
    """Orbits of known bodies."""


def readiness(context: ActionContext) -> ActionResult:
    """Go through the checklist for the coming night; ``failed`` where a line is bad."""
    given = arguments_of(context, ReadinessArguments, action="readiness")
    night = coming_night(context.repo, context.now)
    limits = ReadinessLimits(given.calibration_days, given.orbit_days)
    lines = readiness_lines(context.repo, night, now=context.now, limits=limits)
    numbers = counted(lines)
    bad = [f"{line.name}: {line.text}" for line in lines if line.verdict == "bad"]
    text = f"night {night}: " + ", ".join(f"{n} {verdict}" for verdict, n in numbers.items() if n)
    text += "; " + "; ".join(bad) if bad else ""
    conditions = tuple(Condition("not_ready", line.name, line.verdict == "bad", line.text) for line in lines)
    data = {"night": night, "verdicts": numbers, "lines": [asdict(line) for line in lines]}
    return ActionResult("failed" if bad else "done", text, data, conditions)
