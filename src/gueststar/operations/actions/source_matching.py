"""Matching all sources of all epochs into light curves, month by month (item 12 of the day)."""

from __future__ import annotations

from gueststar.operations.actions.arguments import Arguments, arguments_of
from gueststar.operations.actions.contract import ActionContext, ActionResult
from gueststar.store.ledger import JobState


def source_matching(context: ActionContext) -> ActionResult:
    """Say that this version has no such pipeline, what stands in for it, and how much there would be to match."""
    arguments_of(context, Arguments, action="source_matching")
    counts = context.repo.ledger.job_counts()
    n_catalogs = counts.get(("science", JobState.DONE), 0)
    text = (
        "files of matched sources are not made: that pipeline is not part of this version. "
        f"{n_catalogs} catalogs wait for it; light curves are made when asked for: gueststar lightcurve"
    )
    return ActionResult("unavailable", text, {"n_catalogs": n_catalogs})
