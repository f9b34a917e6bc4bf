"""Planned work on the databases and on our own logs (items 13 and 14 of the day); refused while a night runs."""

from __future__ import annotations

import gzip
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from gueststar.core.errors import TransientError
from gueststar.formats.atomic import appearing_whole
from gueststar.operations.actions.arguments import Arguments, arguments_of
from gueststar.operations.actions.contract import ActionContext, ActionResult, Condition
from gueststar.operations.actions.running_night import why_night_runs
from gueststar.store import upkeep
from gueststar.store.archive.volume import open_volume
from gueststar.store.repo import SurveyRepo
from gueststar.store.upkeep import DatabaseCare

_ROTATED_LOGS = ("*.log.[0-9]", "*.log.[0-9][0-9]", "*.jsonl.[0-9]", "*.jsonl.[0-9][0-9]")
"""Logs that were put aside: nobody holds them open."""
_DAY_S = 86400.0


class MaintenanceArguments(Arguments):
    """What is kept, and whether a running night is minded."""

    keep_backups: int = Field(default=7, ge=1)
    """Back-ups that are kept, one a date."""
    compress_logs_after_days: float = Field(default=2.0, ge=0)
    """Logs that were put aside this long ago are compressed."""
    even_at_night: bool = False
    """Also while a night runs: for a person who knows why."""


def maintenance(context: ActionContext) -> ActionResult:
    """Check the databases, back them up, tidy them up, compress old logs.

    A damaged database is told and left as it is: neither tidied up nor written over the last sound back-up.
    """
    arguments = arguments_of(context, MaintenanceArguments, action="maintenance")
    repo = context.repo
    reason = "" if arguments.even_at_night else why_night_runs(repo, context.now)
    if reason:
        return ActionResult("nothing", f"not now: {reason}", {"refused": reason})
    folder = backup_folder(repo) / datetime.fromtimestamp(context.now, UTC).strftime("%Y%m%d")
    files = upkeep.sqlite_files(repo.root)
    if context.is_dry:
        names = [_name(repo, path) for path in files] + ([repo.settings.database] if repo.settings.database else [])
        return ActionResult("nothing", f"would check, back up into {folder} and tidy up {', '.join(names)}")
    cares = [upkeep.tidy_file(path, name=_name(repo, path)) for path in files]
    cares += upkeep.tidy_server(repo.settings.database) if repo.settings.database else []
    missing = _back_up(repo, folder, {care.name for care in cares if care.problem})
    is_sound = not any(care.problem for care in cares)  # else the last sound back-up might be an old one
    pruned = upkeep.prune_backups(folder.parent, keep=arguments.keep_backups) if is_sound else []
    logs = _compress_logs(repo.root / "logs", before=context.now - arguments.compress_logs_after_days * _DAY_S)
    return _result(cares, missing, folder, n_pruned=len(pruned), n_logs=len(logs))


def backup_folder(repo: SurveyRepo) -> Path:
    """Return where back-ups of the databases lie: in the archive if one is there, else in the repository."""
    if repo.settings.operation.disks.archive is None:
        return repo.root / upkeep.BACKUPS
    try:
        return open_volume(repo) / "databases"
    except TransientError:  # away: a copy on the same disk is better than none
        return repo.root / upkeep.BACKUPS


def _name(repo: SurveyRepo, path: Path) -> str:
    return str(path.relative_to(repo.root))


def _back_up(repo: SurveyRepo, folder: Path, damaged: set[str]) -> list[str]:
    """Copy all sound databases; return what could not be copied, and why."""
    digests, missing = dict[str, str](), list[str]()
    folder.parent.mkdir(exist_ok=True, mode=0o700)
    folder.mkdir(exist_ok=True, mode=0o700)
    for path in upkeep.sqlite_files(repo.root):
        name = _name(repo, path)
        if name not in damaged:
            copy = name.replace("/", "-")
            digests[copy] = upkeep.back_up_file(path, folder / copy)
    if repo.settings.database:
        try:
            digests["database.pgdump"] = upkeep.dump_server(repo.settings.database, folder / "database.pgdump")
        except TransientError as problem:
            missing.append(str(problem))
    upkeep.write_checksums(folder, digests)
    return missing


def _compress_logs(folder: Path, *, before: float) -> list[Path]:
    """Compress logs that were put aside and not written to since a time; return them."""
    old = sorted({p for pattern in _ROTATED_LOGS for p in folder.glob(pattern) if p.is_file() and not p.is_symlink()})
    done = []
    for path in old:
        if path.stat().st_mtime >= before:
            continue
        stamp = datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y%m%dT%H%M%S")
        with appearing_whole(path.with_name(f"{path.name}.{stamp}.gz")) as temporary:
            temporary.touch(mode=0o600)
            with path.open("rb") as source, gzip.open(temporary, "wb") as target:
                shutil.copyfileobj(source, target)
        path.unlink()
        done.append(path)
    return done


def _result(cares: list[DatabaseCare], missing: list[str], folder: Path, *, n_pruned: int, n_logs: int) -> ActionResult:
    damaged = [care for care in cares if care.problem]
    freed = sum(care.bytes_before - care.bytes_after for care in cares)
    data: dict[str, Any] = {
        "databases": [vars(care) for care in cares], "backups": str(folder), "not_backed_up": missing,
        "n_backups_removed": n_pruned, "n_logs_compressed": n_logs,
    }  # fmt: skip
    conditions = tuple(
        Condition(
            "database_damaged", care.name, bool(care.problem),
            f"{care.name} is damaged: {care.problem}; stop the operator and bring back {folder.parent}"
            if care.problem else f"{care.name} is sound", "critical",
        )
        for care in cares
    )  # fmt: skip
    told = [f"{len(cares)} databases checked", f"{freed / 1e6:.1f} MB freed", f"copies in {folder}"]
    told += [f"{care.name} is DAMAGED: {care.problem}" for care in damaged]
    told += [f"{care.name} not tidied up: {care.busy}" for care in cares if care.busy]
    told += missing
    return ActionResult("failed" if damaged else "done", "; ".join(told), data, conditions)
