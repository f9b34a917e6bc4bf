"""Orbits of known Solar-System bodies from files that were dropped in (item 1 of the day): no network is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from gueststar.core import times
from gueststar.core.errors import DataError
from gueststar.formats.orbit_table import read_orbits
from gueststar.operations.actions.arguments import Arguments, arguments_of
from gueststar.operations.actions.contract import ActionContext, ActionResult, ActionState, Condition
from gueststar.store.orbits import OrbitStore
from gueststar.store.product_paths import digest_of
from gueststar.store.repo import SurveyRepo

EVENT = "ephemerides"
"""What the diary calls a file of orbits that was looked at."""

_UNFINISHED = (".part", ".tmp", ".sha256", ".md5")
_DAY_S = 86400.0


class EphemerisArguments(Arguments):
    """Where orbits come from, and when they are old."""

    folder: Path | None = None
    """Folder of files of orbits, besides the landing places that hold ephemerides."""
    old_after_days: float = Field(default=45.0, gt=0)
    """Orbits that were taken in longer ago than this are old."""
    settled_s: float = Field(default=60.0, ge=0)
    """A file that was written less long ago than this may still grow: it is left for the next time."""


class _Dropped(NamedTuple):
    path: Path
    sha256: str
    modified: float


def update_ephemerides(context: ActionContext) -> ActionResult:
    """Take in the files of orbits that are new, oldest first, so that the newest orbit of a body wins.

    A file that cannot be used is refused once, with its reason in the diary; the orbits that were there stay.
    """
    arguments = arguments_of(context, EphemerisArguments, action="update_ephemerides")
    repo = context.repo
    known = _known(repo)
    new = [item for item in _dropped(context, arguments) if item.sha256 not in known]
    if context.is_dry:
        return ActionResult(
            "nothing", f"would take in {len(new)} files of orbits", {"files": [str(i.path) for i in new]}
        )
    taken, refused = list[dict[str, Any]](), list[dict[str, Any]]()
    for item in new:
        row = _take(repo, item)
        (refused if "reason" in row else taken).append(row)
    age = _age_days(repo, context.now)
    data = {"taken": taken, "refused": refused, **age}
    return ActionResult(_state(taken, refused), _text(taken, refused, age), data, (_condition(age, arguments),))


def _folders(repo: SurveyRepo, arguments: EphemerisArguments) -> list[Path]:
    places = [place.path for place in repo.settings.operation.landing if place.holds == "ephemerides"]
    return places + ([arguments.folder] if arguments.folder is not None else [])


def _dropped(context: ActionContext, arguments: EphemerisArguments) -> list[_Dropped]:
    """Return the complete files of all places, oldest first."""
    found = []
    for folder in _folders(context.repo, arguments):
        for path in _files(folder):
            modified = path.stat().st_mtime
            if not context.now - arguments.settled_s < modified <= context.now:
                found.append(_Dropped(path, digest_of(path), modified))
    return sorted(found, key=lambda item: (item.modified, item.path))


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_file() and not path.name.startswith(".") and path.suffix.lower() not in _UNFINISHED:
            yield path


def _known(repo: SurveyRepo) -> set[str]:
    """Return the digests of files that were looked at, unless the orbits are gone since."""
    events = repo.ledger.events(what=EVENT)
    is_there = OrbitStore(repo.root).path.exists()
    return {event.data["sha256"] for event in events if is_there or "reason" in event.data}


def _take(repo: SurveyRepo, item: _Dropped) -> dict[str, Any]:
    """Import one file and write down what became of it."""
    row: dict[str, Any] = {"file": str(item.path), "sha256": item.sha256}
    try:
        found = read_orbits(item.path)
        n_bodies = OrbitStore(repo.root).take(found.catalog, metadata={item.path.name: found.catalog.n_rows})
    except DataError as problem:
        row["reason"] = " ".join(str(problem).split())
        repo.ledger.event(EVENT, item.path.name, f"refused: {row['reason']}", **row)
        return row
    row |= {"n_orbits": found.catalog.n_rows, "n_left_out": found.n_left_out, "n_bodies": n_bodies}
    repo.ledger.event(EVENT, item.path.name, f"{found.catalog.n_rows} orbits taken in; {n_bodies} bodies known", **row)
    return row


def _age_days(repo: SurveyRepo, now: float) -> dict[str, Any]:
    """Return when orbits were last taken in, and how far their epochs lie back; None where there are none."""
    store = OrbitStore(repo.root)
    if not store.path.exists():
        return {"n_bodies": 0, "taken_days_ago": None, "newest_epoch_days_ago": None}
    epochs = store.predicted()["epoch_mjd"]
    newest = float(epochs.max()) if epochs.size else None
    return {
        "n_bodies": int(epochs.size),
        "taken_days_ago": round((now - store.path.stat().st_mtime) / _DAY_S, 3),
        "newest_epoch_days_ago": None if newest is None else round(times.mjd_tai_of_unix(now) - newest, 3),
    }


def _state(taken: list[Any], refused: list[Any]) -> ActionState:
    return "done" if taken else "failed" if refused else "nothing"


def _text(taken: list[dict[str, Any]], refused: list[dict[str, Any]], age: dict[str, Any]) -> str:
    told = [f"{Path(row['file']).name}: {row['n_orbits']} orbits" for row in taken]
    told += [f"{Path(row['file']).name} refused: {row['reason']}" for row in refused]
    if age["taken_days_ago"] is None:
        known = "no orbits are known"
    else:
        known = f"{age['n_bodies']} bodies known, taken in {age['taken_days_ago']:.1f} days ago"
    return "; ".join([*(told or ["no new files of orbits"]), known])


def _condition(age: dict[str, Any], arguments: EphemerisArguments) -> Condition:
    days = age["taken_days_ago"]
    is_old = days is not None and days > arguments.old_after_days
    text = (
        "no orbits were ever taken in" if days is None else f"orbits were taken in {days:.0f} days ago"
    ) + "; drop a new MPCORB.DAT, or SBDB table, into a landing place that holds ephemerides"
    return Condition("ephemerides_old", "orbits", is_old, text, "warning")
