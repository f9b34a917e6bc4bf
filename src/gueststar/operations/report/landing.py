"""Files that lie in landing places and are not taken in: they belong to the account before the ledger knows them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gueststar.formats.raw_names import is_raw_name
from gueststar.store.arrivals import seen_paths
from gueststar.store.repo import SurveyRepo

_LONGEST_NIGHT = timedelta(hours=48)
"""Files that came later than this after the night's noon belong to later nights, unless this is the last one."""


@dataclass(frozen=True)
class Landing:
    """What one landing place holds that the ledger has never seen."""

    place: str
    n: int
    oldest: float = 0.0
    """Unix time of the oldest of them."""
    examples: tuple[str, ...] = ()
    trouble: str = ""
    """Why the place could not be looked into; empty where it could."""

    def line(self) -> str:
        """Return it in words."""
        if self.trouble:
            return f"landing place {self.place} cannot be looked into: {self.trouble}"
        since = datetime.fromtimestamp(self.oldest, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")
        named = ", ".join(self.examples)
        return f"{self.n} files lie in {self.place} and are not taken in (the oldest since {since}): {named}"


def noon_before(night: int, *, longitude_deg: float) -> float:
    """Return the Unix time at which a survey night begins: local mean noon."""
    date = datetime(night // 10000, night // 100 % 100, night % 100, 12, tzinfo=UTC)
    return (date - timedelta(hours=longitude_deg / 15.0)).timestamp()


def landing_of(repo: SurveyRepo, night: int, *, is_last: bool) -> tuple[Landing, ...]:
    """Return what lies in the landing places of raw files since a night began and was never received.

    ``is_last``: no later night is known, so that everything since belongs to this one.
    """
    begin = noon_before(night, longitude_deg=repo.camera.site.longitude_deg)
    end = None if is_last else begin + _LONGEST_NIGHT.total_seconds()
    places = [place.path for place in repo.settings.operation.landing if place.holds == "raw"]
    found = [_look_into(repo, path, begin, end) for path in places]
    return tuple(landing for landing in found if landing.n or landing.trouble)


def files_not_taken(repo: SurveyRepo, name: str) -> list[tuple[str, float]]:
    """Return (path, Unix time of its last change) of files of this name, or path, in landing places, never received."""
    found: dict[str, float] = {}
    for place in repo.settings.operation.landing:
        try:
            everything = _files_in(place.path, is_wanted=lambda _: True)
            lying = {path: time for path, time in everything if path.endswith(name)}
        except OSError:
            continue
        found |= {path: lying[path] for path in lying.keys() - seen_paths(repo.ledger, lying.keys())}
    return sorted(found.items())


def _look_into(repo: SurveyRepo, place: Path, begin: float, end: float | None) -> Landing:
    try:
        lying = {path: time for path, time in _files_in(place) if time >= begin and (end is None or time < end)}
    except OSError as problem:
        return Landing(str(place), 0, trouble=problem.strerror or str(problem))
    new = lying.keys() - seen_paths(repo.ledger, lying.keys())
    if not new:
        return Landing(str(place), 0)
    examples = tuple(Path(path).name for path in sorted(new)[:3])
    return Landing(str(place), len(new), min(lying[path] for path in new), examples)


def _files_in(place: Path, *, is_wanted: Callable[[Path], bool] = is_raw_name) -> Iterator[tuple[str, float]]:
    """Yield files in a folder and its folders with the time of their last change; OSError if it is not there."""
    folders = [str(place.absolute())]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif is_wanted(Path(entry.name)):
                    try:
                        yield entry.path, entry.stat().st_mtime
                    except FileNotFoundError:  # taken in, or renamed, a moment ago
                        continue
