"""Room in the archive, how long it lasts, and the paths of the coming night (item 6 of the day)."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

from pydantic import Field

from gueststar.core.errors import TransientError
from gueststar.operations.actions.archive_products import away, tell_away
from gueststar.operations.actions.arguments import Arguments, arguments_of
from gueststar.operations.actions.contract import ActionContext, ActionResult, Condition
from gueststar.operations.actions.running_night import coming_night
from gueststar.store.archive.archive import Archive
from gueststar.store.archive.copying import told_as_away
from gueststar.store.archive.places import night_folder
from gueststar.store.disks import GB

_PROBE = b"gueststar\n" * 400


class ArchiveDiskArguments(Arguments):
    """What is looked at."""

    nights: int = Field(default=14, ge=1)
    """The rate at which it fills is that of this many last nights."""
    warn_nights: float = Field(default=14.0, ge=0)
    """Fewer nights left than this are something to be told of."""


def check_archive_disk(context: ActionContext) -> ActionResult:
    """Tell the archive's room and how long it lasts, and make the folder of the coming night, trying to write."""
    arguments = arguments_of(context, ArchiveDiskArguments, action="check_archive_disk")
    disks = context.repo.settings.operation.disks
    if disks.archive is None:
        return ActionResult("nothing", "no archive is set (operation: disks: archive in survey.yaml)")
    try:
        archive = Archive(context.repo)
        night = coming_night(context.repo, context.now)
        folder = archive.root / night_folder(night)
        if not context.is_dry:
            try_writing(folder)
        nights = {name: item.n_bytes for name, item in archive.summary().items() if name.isdigit()}
    except TransientError as problem:
        tell_away(context, problem)
        raise
    last = [nights[name] for name in sorted(nights)[-arguments.nights :]]
    rate = sum(last) / len(last) if last else 0.0
    space = archive.space
    left = max(0.0, space.free - disks.archive_low_gb * GB) / rate if rate else None
    told = f"{space.free_gb:.1f} GB free of {space.total / GB:.1f}, mark {disks.archive_low_gb:g} GB"
    told += f"; {rate / GB:.3f} GB a night over {len(last)} nights: {left:.0f} nights left" if left is not None else ""
    data = {
        "free_gb": round(space.free_gb, 3), "total_gb": round(space.total / GB, 3), "mark_gb": disks.archive_low_gb,
        "n_nights": len(nights), "gb_per_night": round(rate / GB, 6), "coming_night": night,
        "nights_left": None if left is None else round(left, 1), "folder": str(folder),
    }  # fmt: skip
    conditions = (
        away(context),
        Condition("archive_low", str(disks.archive), space.free_gb < disks.archive_low_gb, told),
        Condition("archive_low", "nights left", left is not None and left < arguments.warn_nights, told),
    )
    return ActionResult("nothing" if context.is_dry else "done", told, data, conditions)


def try_writing(folder: Path) -> float:
    """Make a folder, write a file there, read it back and remove it; return the time that its disk gave the file.

    Raises TransientError where the disk does not do as it is told.
    """
    probe = folder / f".probe-{uuid4().hex[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with probe.open("wb") as file:
                file.write(_PROBE)
                file.flush()
                os.fsync(file.fileno())
            if probe.read_bytes() != _PROBE:
                raise TransientError(f"the disk of {folder} does not give back what was written to it")
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)
    except OSError as problem:
        raise told_as_away(problem, folder) from problem
