"""The night's candidates as a file, for association with history without the database (item 8 of the day)."""

from __future__ import annotations

from gueststar.operations.actions.arguments import Arguments, arguments_of
from gueststar.operations.actions.contract import ActionContext, ActionResult
from gueststar.store.candidate_exports import export_candidates as write_export
from gueststar.store.candidate_exports import export_path
from gueststar.store.detections.store import DetectionStore


def export_candidates(context: ActionContext) -> ActionResult:
    """Write the detections of a night with their objects as Parquet, by place; again is the same."""
    arguments_of(context, Arguments, action="export_candidates")
    repo, night = context.repo, context.night
    store = DetectionStore.of_survey(repo.root, repo.settings.database)
    try:
        n = store.n_sources_of_night(night)
        if n == 0:
            return ActionResult("nothing", f"night {night} has no candidates")
        path = export_path(repo.root, night)
        if context.is_dry:
            return ActionResult("nothing", f"would write {n} candidates to {path}", {"n_candidates": n})
        made = write_export(repo.root, store, night)
    finally:
        store.close()
    data = {"path": str(made.path), "n_candidates": made.n_rows, "n_objects": made.n_objects, "is_new": made.is_new}
    text = f"{made.n_rows} candidates of {made.n_objects} objects in {made.path.relative_to(repo.root)}"
    return ActionResult("done" if made.is_new else "nothing", text if made.is_new else f"{text}, as before", data)
