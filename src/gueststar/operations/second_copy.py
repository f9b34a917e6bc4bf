"""The archive as a person asks for it: how it stands, what it lacks, what is to be brought back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gueststar.core.errors import ConfigError, DataError
from gueststar.operations.actions.contract import ActionContext
from gueststar.operations.rules.sun import survey_night
from gueststar.store.archive.archive import Archive, batches_named
from gueststar.store.archive.cleanup import PLANS, read_plan, unfinished_plans
from gueststar.store.archive.places import archive_place
from gueststar.store.archive.volume import only_archiver
from gueststar.store.disks import GB
from gueststar.store.repo import SurveyRepo

_NIGHTS_SHOWN = 10


class Restored(NamedTuple):
    """What became of files that were asked for."""

    n_whole: int
    """They were there as they should be."""
    n_back: int
    lost: tuple[str, ...]
    """Files without a good copy, with the reason."""


def status_lines(repo: SurveyRepo) -> list[str]:
    """Return how the archive stands: room, nights, what it lacks, clean-ups that were broken off."""
    archive = Archive(repo)
    summary, space = archive.summary(), archive.space
    nights = [name for name in summary if name.isdigit()]
    lines = [
        f"{archive.root}: {sum(item.n_files for item in summary.values())} files, "
        f"{sum(item.n_bytes for item in summary.values()) / GB:.3f} GB, {len(nights)} nights",
        f"{space.free_gb:.1f} GB free of {space.total / GB:.1f}",
    ]
    lines += [
        f"  {name}: {summary[name].n_files} files, {summary[name].n_bytes / GB:.3f} GB"
        for name in nights[-_NIGHTS_SHOWN:]
    ]
    lines += [f"  {name}: {item.n_files} files" for name, item in summary.items() if not name.isdigit()][:_NIGHTS_SHOWN]
    missing = archive.not_archived()
    lines.append(f"{len(missing)} files wait to be archived" if missing else "nothing waits to be archived")
    for path in sorted((repo.root / PLANS).glob("*.json"))[-3:]:
        plan = read_plan(path)
        lines.append(f"clean-up {path.stem}: {plan.n_bytes_freed / GB:.3f} GB freed, {plan.why}")
    lines += [f"clean-up {path.stem} was broken off: gueststar archive clean" for path in unfinished_plans(repo.root)]
    return lines


def context_by_hand(
    repo: SurveyRepo, arguments: Mapping[str, Any], *, now: float, night: int | None = None, is_dry: bool = False
) -> ActionContext:
    """Return what an action works with that a person runs: for a night, else the last one that has exposures."""
    if night is None:
        nights = {row.info.day_obs for row in repo.ledger.exposures()}
        night = max(nights, default=survey_night(repo.camera.site, now))
    return ActionContext(repo, night, now, arguments, is_dry)


def restore(
    repo: SurveyRepo, *, files: Iterable[Path] = (), nights: Iterable[int] = (), products: Iterable[str] = (),
    is_missing_only: bool = False, tell: Callable[[str], None] = lambda _: None,
) -> Restored:  # fmt: skip
    """Bring files back from the archive: those named, or those of nights (all nights if neither is named).

    ``products`` keeps kinds; ``is_missing_only`` leaves links to the archive as they are. What has no good copy is told
    and left; ConfigError for a night that the archive does not hold.
    """
    archive = Archive(repo)
    named = [_inside(repo, path) for path in files]
    kinds = set(products)
    with only_archiver(repo):
        wanted = named or [
            file
            for batch in batches_named(archive, [str(night) for night in nights])
            for file in archive.lacking(batch, with_links=not is_missing_only)
            if not kinds or file.split("/")[1] in kinds
        ]
        done, lost = list[str](), list[str]()
        for file in wanted:
            try:
                done.append(archive.restore(file))
                tell(f"{file}: {done[-1]}")
            except DataError as problem:
                lost.append(str(problem))
    return Restored(done.count("whole"), done.count("brought back"), tuple(lost))


def _inside(repo: SurveyRepo, path: Path) -> str:
    """Return a path relative to the repository, given so or not; ConfigError for one that is never archived."""
    whole = path if path.is_absolute() else (Path.cwd() / path if (Path.cwd() / path).exists() else repo.root / path)
    file = (whole.parent.resolve() / whole.name).as_posix()
    root = repo.root.resolve().as_posix()
    relative = file.removeprefix(f"{root}/")
    if archive_place(relative) is None:
        raise ConfigError(f"{path} is no file of {repo.root} that is archived: products/KIND/NIGHT/NAME, alerts/...")
    return relative
