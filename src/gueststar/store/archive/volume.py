"""The archive's disk: which one it is, and whether it is there.

An archive carries a mark with a number of its own, and the repository remembers the number. So an empty mount point is
not taken for an empty archive, and another survey's archive not for ours.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from gueststar.core.errors import ConfigError, TransientError
from gueststar.formats.atomic import appearing_whole
from gueststar.store.repo import SurveyRepo

MARK = "gueststar-archive.json"
"""File at the top of an archive."""

REMEMBERED = "operator/archive.json"
"""File of the repository that names its archive."""

_NOTHING = {"lost+found", ".snapshot", ".Trash-0"}
_LAYOUT = 1


def archive_folder(repo: SurveyRepo) -> Path:
    """Return the folder of the archive; ConfigError where none is set or where it cannot be one."""
    folder = repo.settings.operation.disks.archive
    if folder is None:
        raise ConfigError(f"{repo.root} has no archive: name its folder in survey.yaml, operation: disks: archive")
    ours, theirs = repo.root.resolve(), folder.resolve()
    if ours == theirs or ours in theirs.parents or theirs in ours.parents:
        raise ConfigError(f"the archive {folder} and the repository {repo.root} lie one within the other")
    return folder


def open_volume(repo: SurveyRepo) -> Path:
    """Return the folder of the archive when it is there and ours; an empty folder becomes it the first time.

    Raises TransientError where it is away, ConfigError where it is another's or holds other things.
    """
    folder, remembered = archive_folder(repo), _remembered(repo)
    try:
        mark = _mark(folder)
        if mark is not None:
            _check_ours(repo, folder, mark, remembered)
            if remembered is None:
                _remember(repo, mark["id"])
            return folder
        if remembered is not None:
            raise TransientError(
                f"the archive {folder} is away: {MARK} is not there. Mount its disk; "
                f"for a new, empty disk: gueststar archive begin {repo.root}"
            )
        return begin_volume(repo)
    except OSError as problem:
        raise TransientError(f"the archive {folder} is away: {problem.strerror or problem}") from problem


def why_not_mounted(root: Path, folder: Path) -> str:
    """Return why a folder is not the archive that the repository at ``root`` knows; empty if it is, or knows none."""
    if (root / REMEMBERED).exists() and not (folder / MARK).exists():
        return f"has no {MARK}: its disk is not mounted there"
    return ""


def begin_volume(repo: SurveyRepo) -> Path:
    """Make an empty folder the archive (also in the place of one that is lost); ConfigError if it is not empty."""
    folder = archive_folder(repo)
    if _mark(folder) is not None:
        raise ConfigError(f"{folder} is an archive already")
    if not folder.exists() and not folder.parent.is_dir():
        raise TransientError(f"the archive {folder} is away: there is no {folder.parent}")
    folder.mkdir(exist_ok=True)
    if other := sorted(path.name for path in folder.iterdir() if path.name not in _NOTHING):
        raise ConfigError(f"{folder} is not empty ({other[0]}): name an empty folder as the archive")
    number = uuid4().hex
    facts = {"id": number, "survey": repo.settings.name, "camera": repo.camera.name, "layout": _LAYOUT}
    with appearing_whole(folder / MARK) as temporary:
        temporary.write_text(json.dumps(facts, indent=1) + "\n")
    _remember(repo, number)
    return folder


@contextmanager
def only_archiver(repo: SurveyRepo) -> Iterator[None]:
    """Hold the archive while files come and go; TransientError if another process or thread does.

    The lock is the system's: it ends with the process, however that ends.
    """
    (repo.root / "operator").mkdir(exist_ok=True)
    with (repo.root / "operator" / "archive.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TransientError(f"files of {repo.root} are being archived or cleaned up: wait for the end") from None
        yield


def _mark(folder: Path) -> dict[str, str] | None:
    try:
        found: dict[str, str] = json.loads((folder / MARK).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as problem:
        raise ConfigError(f"{folder / MARK} cannot be understood: {problem}") from None
    return found


def _check_ours(repo: SurveyRepo, folder: Path, mark: dict[str, str], remembered: str | None) -> None:
    if remembered is not None and mark.get("id") != remembered:
        raise ConfigError(f"{folder} is another archive than the one of {repo.root} (see {repo.root / REMEMBERED})")
    if remembered is None and (mark.get("survey"), mark.get("camera")) != (repo.settings.name, repo.camera.name):
        raise ConfigError(f"{folder} is the archive of survey {mark.get('survey')}, camera {mark.get('camera')}")


def _remembered(repo: SurveyRepo) -> str | None:
    path = repo.root / REMEMBERED
    return str(json.loads(path.read_text())["id"]) if path.exists() else None


def _remember(repo: SurveyRepo, number: str) -> None:
    with appearing_whole(repo.root / REMEMBERED) as temporary:
        temporary.write_text(json.dumps({"id": number}))
