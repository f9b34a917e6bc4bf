"""A second copy of raw files and products on the archive's disk (item 6 of the day)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

from pydantic import Field

from gueststar.core.errors import TransientError
from gueststar.operations.actions.arguments import Arguments, arguments_of
from gueststar.operations.actions.contract import ActionContext, ActionResult, ActionState, Condition
from gueststar.operations.actions.time_budget import over_after
from gueststar.operations.watch.alarms import raise_alarm
from gueststar.store.archive.archive import Archive, CheckReport, UpdateReport
from gueststar.store.archive.copying import NoRoom
from gueststar.store.archive.volume import only_archiver

_MOST_TOLD = 50


class ArchiveArguments(Arguments):
    """How long it may take."""

    seconds: float | None = Field(default=None, gt=0)
    """It stops after this long and goes on the next time; None: it ends when all is archived."""


class VerifyArguments(ArchiveArguments):
    """How much is read back."""

    files: int | None = Field(default=1000, ge=1)
    """Copies, of the nights that waited longest; None: all."""
    mend: bool = True
    """Damaged copies are made anew from the repository where it still has the file."""


def archive_products(context: ActionContext) -> ActionResult:
    """Copy what the archive does not hold yet, each copy read back and compared; again it goes on where it stopped."""
    arguments = arguments_of(context, ArchiveArguments, action="archive_products")
    disks = context.repo.settings.operation.disks
    if disks.archive is None:
        return ActionResult("nothing", "no archive is set (operation: disks: archive in survey.yaml)")
    with _alone(context):
        return _archive(context, arguments, disks.reserve_gb)


def _alone(context: ActionContext) -> AbstractContextManager[None]:
    """Hold the archive; nothing need be held for a dry run."""
    return nullcontext() if context.is_dry else only_archiver(context.repo)


def _archive(context: ActionContext, arguments: ArchiveArguments, reserve_gb: float) -> ActionResult:
    try:
        archive = Archive(context.repo, clock=lambda: context.now)
        if context.is_dry:
            missing = archive.not_archived()
            return ActionResult("nothing", f"would archive {len(missing)} files", {"files": missing[:_MOST_TOLD]})
        report = archive.update(reserve_gb=reserve_gb, stop=over_after(arguments.seconds))
    except TransientError as problem:
        tell_away(context, problem)
        raise
    return _archived(context, report)


def verify_archive(context: ActionContext) -> ActionResult:
    """Read copies back from the archive's disk, and tell those that are not what they were."""
    arguments = arguments_of(context, VerifyArguments, action="verify_archive")
    if context.repo.settings.operation.disks.archive is None:
        return ActionResult("nothing", "no archive is set (operation: disks: archive in survey.yaml)")
    with _alone(context):
        return _verify(context, arguments)


def _verify(context: ActionContext, arguments: VerifyArguments) -> ActionResult:
    try:
        archive = Archive(context.repo, clock=lambda: context.now)
        if context.is_dry:
            n = sum(item.n_files for item in archive.summary().values())
            return ActionResult("nothing", f"would read back {min(n, arguments.files or n)} of {n} files")
        report = archive.check(
            n_files=arguments.files, do_mend=arguments.mend, seed=int(context.now), stop=over_after(arguments.seconds)
        )
    except TransientError as problem:
        tell_away(context, problem)
        raise
    return _verified(context, report)


def tell_away(context: ActionContext, problem: TransientError) -> None:
    """Raise the alarm that the archive is away or full, before its rule tries again: that may be hours."""
    folder = str(context.repo.settings.operation.disks.archive)
    kind: Literal["archive_low", "archive_away"] = "archive_low" if isinstance(problem, NoRoom) else "archive_away"
    if not context.is_dry:
        raise_alarm(context.repo, kind, folder, str(problem), "critical", now=context.now)


def away(context: ActionContext, problem: str = "") -> Condition:
    """Return whether the archive is away, for its alarm."""
    folder = str(context.repo.settings.operation.disks.archive)
    return Condition("archive_away", folder, bool(problem), problem or f"the archive {folder} is there", "critical")


def _archived(context: ActionContext, report: UpdateReport) -> ActionResult:
    data = {
        "n_copied": report.n_copied, "n_bytes": report.n_bytes, "n_known": report.n_known, "left": report.left,
        "n_damaged": len(report.damaged), "damaged": report.damaged[:_MOST_TOLD],
    }  # fmt: skip
    told = [f"{report.n_copied} files archived, {report.n_bytes / 1e9:.3f} GB"]
    told += [f"{len(report.damaged)} DAMAGED in the repository: {report.damaged[0]}"] if report.damaged else []
    told += [f"stopped: {report.left}"] if report.left else []
    damaged = Condition(
        "product_damaged", str(context.repo.root), bool(report.damaged),
        report.damaged[0] if report.damaged else "no product is damaged", "critical",
    )  # fmt: skip
    state: ActionState = "failed" if report.damaged else "done" if report.n_copied else "nothing"
    return ActionResult(state, "; ".join(told), data, (away(context), damaged))


def _verified(context: ActionContext, report: CheckReport) -> ActionResult:
    lost = len(report.rotten) - len(report.mended)
    data = {
        "n_files": report.n_files, "n_bytes": report.n_bytes, "n_rotten": len(report.rotten),
        "rotten": report.rotten[:_MOST_TOLD], "n_mended": len(report.mended),
    }  # fmt: skip
    text = f"{report.n_files} copies read back, {report.n_bytes / 1e9:.3f} GB: "
    if report.rotten:
        text += f"{len(report.rotten)} DAMAGED ({report.rotten[0]}), {len(report.mended)} of them mended"
    else:
        text += "all as they were"
    # Mended damage is told as well: a disk that forgets once forgets again.
    rot = Condition("archive_damaged", str(context.repo.settings.operation.disks.archive), bool(report.rotten), text,
                    "critical" if lost else "warning")  # fmt: skip
    state: ActionState = "failed" if lost else "done" if report.n_files else "nothing"
    return ActionResult(state, text, data, (away(context), rot))
