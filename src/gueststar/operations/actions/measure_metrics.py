"""Measure the named metrics of a night and of the survey."""

from __future__ import annotations

from typing import Literal

from gueststar import __version__
from gueststar.operations.actions.arguments import Arguments, arguments_of
from gueststar.operations.actions.contract import ActionContext, ActionResult
from gueststar.operations.metrics.measure import measure_survey
from gueststar.operations.metrics.text import standing_of
from gueststar.store.survey_rows import science_nights


class MeasureArguments(Arguments):
    """Of `measure_metrics`."""

    of: Literal["night", "survey", "both"] = "both"
    """What is measured."""


def measure_metrics(context: ActionContext) -> ActionResult:
    """Measure and write down; with ``of`` only the night's or only the survey's."""
    of = arguments_of(context, MeasureArguments, action="measure_metrics").of
    nights = science_nights(context.repo.ledger)
    wanted: list[int | None] = [context.night] if of in ("night", "both") and context.night in nights else []
    wanted += [None] if of in ("survey", "both") and nights else []
    if not wanted:
        return ActionResult("nothing", f"no science exposures of night {context.night}")
    if context.is_dry:
        return ActionResult("nothing", f"would measure {' and '.join(str(night or 'the survey') for night in wanted)}")
    values = [
        value for night in wanted
        for value in measure_survey(context.repo, night=night, version=__version__, now=context.now)
    ]  # fmt: skip
    known = [value for value in values if value.value is not None]
    below = sorted({value.name for value in known if standing_of(value) == "below"})
    text = f"{len(known)} values of {len({value.name for value in known})} metrics"
    text += f"; below the minimum: {', '.join(below)}" if below else ""
    return ActionResult("done", text, {"n": len(known), "n_not_measured": len(values) - len(known), "below": below})
