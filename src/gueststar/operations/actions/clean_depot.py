"""Old refused files, reports, logs and exports (item 7 of the day): by age, and never the only copy of a raw file."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from gueststar.core.errors import TransientError
from gueststar.operations.actions.arguments import Arguments, arguments_of
from gueststar.operations.actions.contract import ActionContext, ActionResult
from gueststar.operations.actions.time_budget import files_now
from gueststar.store.archive.archive import Archive
from gueststar.store.archive.copying import digest_on_disk
from gueststar.store.archive.proofs import Proof, prove
from gueststar.store.ledger import FileStatus
from gueststar.store.repo import SurveyRepo

_DAY_S = 86400.0
_MOST_TOLD = 50


class DepotArguments(Arguments):
    """After how many days what goes; 0: never."""

    refused_days: float = Field(default=90.0, ge=0)
    """Copies of refused files, where the same bytes lie elsewhere as well."""
    report_days: float = Field(default=730.0, ge=0)
    """Reports: they are made anew when asked for."""
    log_days: float = Field(default=120.0, ge=0)
    """Logs that nobody wrote to."""
    export_days: float = Field(default=180.0, ge=0)
    """Exported candidates and alerts: they are made anew when asked for."""


def clean_depot(context: ActionContext) -> ActionResult:
    """Remove what is old; a refused file goes only where its bytes lie elsewhere as well."""
    arguments = arguments_of(context, DepotArguments, action="clean_depot")
    root, now = context.repo.root, files_now(context.now)
    old = {
        "reports": _old(root / "reports", arguments.report_days, now),
        "logs": _old(root / "logs", arguments.log_days, now),
        "exports": _old(root / "exports", arguments.export_days, now),
    }
    gone = {name: list(paths) for name, paths in old.items()}
    gone["refused"], kept = _refused(context, arguments.refused_days, now)
    n_bytes = sum(path.stat().st_size for paths in gone.values() for path in paths)
    data: dict[str, Any] = {
        "removed": {name: len(paths) for name, paths in gone.items()}, "n_bytes": n_bytes,
        "n_refused_kept": len(kept), "kept": kept[:_MOST_TOLD],
    }  # fmt: skip
    n = sum(map(len, gone.values()))
    told = ", ".join(f"{len(paths)} {name}" for name, paths in gone.items() if paths) or "nothing is old"
    if context.is_dry:
        return ActionResult("nothing", f"would remove {told}", data)
    for paths in gone.values():
        for path in paths:
            path.unlink(missing_ok=True)
    for name in gone:
        _remove_empty_folders(root / name)
    if n:
        context.repo.ledger.event("depot", "", f"removed {told}", **data)
    text = f"removed {told}, {n_bytes / 1e6:.1f} MB" if n else told
    text += f"; {len(kept)} refused files stay: they are the only copies" if kept else ""
    return ActionResult("done" if n else "nothing", text, data)


def _old(folder: Path, days: float, now: float) -> Iterator[Path]:
    """Yield files below a folder that were not written to for some days; links are neither followed nor yielded."""
    if days == 0 or folder.is_symlink() or not folder.is_dir():
        return
    for path in sorted(folder.rglob("*")):
        facts = path.lstat()
        if stat.S_ISREG(facts.st_mode) and facts.st_mtime < now - days * _DAY_S:
            yield path


def _refused(context: ActionContext, days: float, now: float) -> tuple[list[Path], list[str]]:
    """Return the old refused files (with their reasons' files) that may go, and why others stay."""
    archive = _archive(context)
    gone, kept = list[Path](), list[str]()
    for path in _old(context.repo.root / "refused", days, now):
        if path.name.endswith(".reason"):
            continue
        if _lies_elsewhere(context.repo, archive, path, now):
            reason = path.with_name(f"{path.name}.reason")
            gone += [path, *([reason] if reason.is_file() and not reason.is_symlink() else [])]
        else:
            kept.append(path.name)
    return gone, kept


def _archive(context: ActionContext) -> Archive | None:
    if context.repo.settings.operation.disks.archive is None:
        return None
    try:
        return Archive(context.repo)
    except TransientError:
        return None


def _lies_elsewhere(repo: SurveyRepo, archive: Archive | None, path: Path, now: float) -> bool:
    """Return whether another file of the same bytes is there now: its archived copy, or where it was received from."""
    if archive is not None:
        file = path.relative_to(repo.root).as_posix()
        if isinstance(prove(archive, file, now=now), Proof):
            return True
    digest = digest_on_disk(path)
    known = repo.ledger.files(sha256=digest)
    ingested = {row.exposure_id for row in known if row.status is FileStatus.INGESTED and row.exposure_id is not None}
    origins = [Path(row.path) for row in known] + [p for number in ingested for p in _raw_files(repo, number)]
    return any(_is_another(origin, path) and digest_on_disk(origin) == digest for origin in origins)


def _raw_files(repo: SurveyRepo, exposure_id: int) -> list[Path]:
    return [ref.path for ref in repo.find("raw", exposure=exposure_id)]


def _is_another(origin: Path, path: Path) -> bool:
    return origin.is_file() and not origin.samefile(path)


def _remove_empty_folders(folder: Path) -> None:
    """Remove the empty folders below one."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
            path.rmdir()
