"""Room on the repository's disk (item 5 of the day): nothing goes whose bytes do not lie elsewhere."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from datetime import datetime, timedelta
from typing import Any

from pydantic import Field

from gueststar.core.errors import TransientError
from gueststar.operations.actions.archive_products import away
from gueststar.operations.actions.arguments import Arguments, arguments_of
from gueststar.operations.actions.contract import ActionContext, ActionResult, Condition
from gueststar.operations.actions.time_budget import files_now, over_after
from gueststar.store.archive.archive import Archive
from gueststar.store.archive.cleanup import (
    CleanupPlan,
    carry_out,
    files_to_go,
    plan_cleanup,
    read_plan,
    unfinished_plans,
    write_plan,
)
from gueststar.store.archive.volume import only_archiver
from gueststar.store.disks import GB, space_of

_MOST_TOLD = 50
_ROOM = 1.25
"""It is cleaned up to this many times the mark, so that the next exposure does not begin it anew."""


class SandboxArguments(Arguments):
    """What may go, and how much."""

    below_gb: float | None = Field(default=None, ge=0)
    """Free space below which room is made; None: ``disks.sandbox_low_gb`` of the settings."""
    until_gb: float | None = Field(default=None, ge=0)
    """Room is made until this much is free; None: a quarter more than the mark."""
    keep_nights: int = Field(default=14, ge=1)
    """Products of this many last nights stay at hand."""
    raw: bool = False
    """Archived raw files may go as well."""
    leftover_hours: float = Field(default=24.0, ge=1)
    """What lies in the folders for work in hand for longer belongs to nobody."""
    seconds: float | None = Field(default=None, gt=0)
    """Proofs are made for no longer than this; None: until there is room."""


def clean_sandbox(context: ActionContext) -> ActionResult:
    """Make room where the repository's disk is below its mark.

    The plan, with the proof of each file, is written to ``operator/cleanups`` and told in the diary before the first
    file goes. In the place of an archived file a link to its copy stays, so that all that reads it goes on working.
    """
    arguments = arguments_of(context, SandboxArguments, action="clean_sandbox")
    with nullcontext() if context.is_dry else only_archiver(context.repo):
        return _clean(context, arguments)


def _clean(context: ActionContext, arguments: SandboxArguments) -> ActionResult:
    archive, problem = _archive(context)
    resumed = [] if context.is_dry else _resume(context, archive)
    mark = (
        arguments.below_gb if arguments.below_gb is not None else context.repo.settings.operation.disks.sandbox_low_gb
    )
    space = space_of(context.repo.root)
    data: dict[str, Any] = {"free_gb": round(space.free_gb, 3), "mark_gb": mark, "resumed": resumed}
    conditions = (away(context, problem),) if context.repo.settings.operation.disks.archive is not None else ()
    if space.free_gb >= mark:
        text = f"{space.free_gb:.1f} GB free, mark {mark:g} GB" + (f"; took up {', '.join(resumed)}" if resumed else "")
        return ActionResult("done" if resumed else "nothing", text, data, (*conditions, _low(context, mark)))
    until = arguments.until_gb if arguments.until_gb is not None else _ROOM * mark
    wanted = max(0, int((until - space.free_gb) * GB))
    plan = _plan(context, archive, arguments, wanted, why=f"{space.free_gb:.3f} GB free, mark {mark:g} GB")
    data |= {"wanted_gb": round(wanted / GB, 3), **_figures(plan)}
    if context.is_dry:
        return ActionResult("nothing", f"would free {plan.n_bytes / GB:.3f} of {wanted / GB:.3f} GB", data)
    if plan.n_bytes:
        path = write_plan(context.repo.root, plan)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        name = path.relative_to(context.repo.root).as_posix()
        context.repo.ledger.event("cleanup", name, plan.why, sha256=digest, **_figures(plan), state="planned")
        carry_out(context.repo, plan, path)
        context.repo.ledger.event("cleanup", name, f"{plan.n_bytes_freed} bytes freed", **_figures(plan), state="done")
        data |= {"plan": name, "freed_gb": round(plan.n_bytes_freed / GB, 6)}
    return ActionResult(
        "done" if plan.n_bytes_freed else "nothing", _text(plan, wanted, problem), data,
        (*conditions, _low(context, mark)),
    )  # fmt: skip


def _archive(context: ActionContext) -> tuple[Archive | None, str]:
    """Return the archive, or why there is none now."""
    if context.repo.settings.operation.disks.archive is None:
        return None, ""
    try:
        return Archive(context.repo, clock=lambda: context.now), ""
    except TransientError as problem:
        return None, str(problem)


def _resume(context: ActionContext, archive: Archive | None) -> list[str]:
    """Carry out the plans that were broken off, each file proved anew; return their names."""
    done = []
    for path in unfinished_plans(context.repo.root):
        plan = carry_out(context.repo, read_plan(path), path, archive=archive, now=context.now)
        done.append(path.relative_to(context.repo.root).as_posix())
        context.repo.ledger.event(
            "cleanup", done[-1], "taken up after it was broken off", **_figures(plan), state="done"
        )
    return done


def _plan(
    context: ActionContext, archive: Archive | None, arguments: SandboxArguments, wanted: int, *, why: str
) -> CleanupPlan:
    files = files_to_go(
        context.repo, before_night=_nights_before(context.night, arguments.keep_nights - 1), with_raw=arguments.raw
    )
    return plan_cleanup(
        context.repo, archive, wanted_bytes=wanted, now=files_now(context.now), why=why, files=files, with_caches=True,
        loose_older_than_s=arguments.leftover_hours * 3600.0, stop=over_after(arguments.seconds),
    )  # fmt: skip


def _nights_before(night: int, n: int) -> int:
    date = datetime.strptime(str(night), "%Y%m%d") - timedelta(days=n)
    return int(date.strftime("%Y%m%d"))


def _figures(plan: CleanupPlan) -> dict[str, Any]:
    return {
        "n_loose": len(plan.loose), "n_archived": len(plan.archived), "n_kept": len(plan.kept),
        "planned_gb": round(plan.n_bytes / GB, 6), "files": [proof.file for proof in plan.archived[:_MOST_TOLD]],
        "kept": [f"{item.file}: {item.why}" for item in plan.kept[:_MOST_TOLD]],
    }  # fmt: skip


def _text(plan: CleanupPlan, wanted: int, problem: str) -> str:
    text = f"{plan.n_bytes_freed / GB:.3f} of {wanted / GB:.3f} GB freed: {len(plan.archived)} archived files"
    text += f", {len(plan.loose)} leftovers and caches"
    text += f"; {len(plan.kept)} files stay without proof" if plan.kept else ""
    return f"{text}; {problem}" if problem else text


def _low(context: ActionContext, mark: float) -> Condition:
    """Return whether the disk is below its mark now."""
    free, reserve = space_of(context.repo.root).free_gb, context.repo.settings.operation.disks.reserve_gb
    text = f"{free:.1f} GB free on the disk of {context.repo.root}, mark {mark:g} GB"
    return Condition("disk_low", "sandbox", free < mark, text, "critical" if free < reserve else "warning")
