"""Whether a night holds enough to look for what moves (item 2 of the day); the linking itself is `movers`."""

from __future__ import annotations

from collections import defaultdict

from pydantic import Field

from gueststar.operations.actions.arguments import Arguments, arguments_of
from gueststar.operations.actions.contract import ActionContext, ActionResult
from gueststar.store.ledger import ExposureRow, JobState


class EnoughToLink(Arguments):
    """When a night is worth linking."""

    images: int = Field(default=3, ge=1)
    """Detector images whose candidates are associated."""
    visits: int = Field(default=3, ge=2)
    """Exposures of one field that a tracklet needs..."""
    hours: float = Field(default=8.0, gt=0)
    """... within this long."""


def moving_objects(context: ActionContext) -> ActionResult:
    """Return ``done`` where the night holds fields that were visited often enough, else ``nothing`` with the reason.

    Where there is nothing to link, what follows in the same rule (the linking) is without purpose.
    """
    wanted = arguments_of(context, EnoughToLink, action="moving_objects")
    ledger, night = context.repo.ledger, context.night
    done = {job.exposure_id for job in ledger.jobs(kind="association", day_obs=night, state=JobState.DONE)}
    n_images = ledger.job_counts(day_obs=night).get(("association", JobState.DONE), 0)
    exposures = [row for row in ledger.exposures(day_obs=night, observation_type="science") if row.id in done]
    fields = _visits_by_field(exposures, wanted.hours)
    repeated = {field: n for field, n in fields.items() if n >= wanted.visits}
    data = {"n_images": n_images, "n_exposures": len(exposures), "n_fields": len(fields), "n_repeated": len(repeated)}
    if n_images < wanted.images:
        text = f"night {night}: {n_images} images are associated, {wanted.images} needed"
        return ActionResult("nothing", text, data, is_last=True)
    if not repeated:
        most = max(fields.values(), default=0)
        text = f"night {night}: no field has {wanted.visits} visits within {wanted.hours:g} h (at most {most})"
        return ActionResult("nothing", text, data, is_last=True)
    text = (
        f"night {night}: {len(repeated)} of {len(fields)} fields have {wanted.visits} visits or more, {n_images} images"
    )
    return ActionResult("done", text, data)


def _visits_by_field(exposures: list[ExposureRow], hours: float) -> dict[int, int]:
    """Return field -> the most visits of it within some hours."""
    times: dict[int, list[float]] = defaultdict(list)
    for row in exposures:
        if row.info.field is not None:
            times[row.info.field].append(row.info.mjd_start)
    span = hours / 24.0
    return {
        field: max(sum(start <= other <= start + span for other in starts) for start in starts)
        for field, starts in times.items()
    }
