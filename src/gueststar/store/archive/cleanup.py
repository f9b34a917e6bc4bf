"""Room on the repository's disk: what may go goes, by a plan that is written before the first file goes.

Three kinds of files go. *Leftovers* of interrupted work and *caches*, of which nothing depends; and *archived* files,
in whose place a link to the archived copy stays, each with the proof that the copy holds the same bytes. A file
without proof stays. The plan lies in ``operator/cleanups``; one that was broken off is taken up again, with new proofs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gueststar.core.errors import DataError
from gueststar.formats.atomic import appearing_whole
from gueststar.store.archive.archive import Archive
from gueststar.store.archive.places import archived_folders, files_of
from gueststar.store.archive.proofs import Proof, is_put_out, prove, put_out
from gueststar.store.products import PRODUCTS
from gueststar.store.repo import SurveyRepo

PLANS = "operator/cleanups"
"""Folder of the repository that holds the plans."""

LEFTOVERS = ("staging", "scratch")
"""Folders of a repository for work in hand: what lies there for long belongs to nobody."""

CACHES = ("cache",)
"""Folders of a repository whose files only save work, and are made anew from the record."""


@dataclass(frozen=True)
class Loose:
    """A file that nothing depends on."""

    file: str
    """Relative to the repository."""
    size: int
    why: str


@dataclass(frozen=True)
class Kept:
    """A file that stays although it was asked for."""

    file: str
    why: str


@dataclass
class CleanupPlan:
    """What goes, with the proof of each, and what stays, with the reason."""

    made: float
    """Unix time."""
    why: str
    loose: list[Loose] = field(default_factory=list)
    archived: list[Proof] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    state: str = "planned"
    """planned, then done."""
    n_bytes_freed: int = 0

    @property
    def n_bytes(self) -> int:
        """Bytes that go by it."""
        return sum(item.size for item in self.loose) + sum(proof.size for proof in self.archived)


def plan_cleanup(
    repo: SurveyRepo, archive: Archive | None, *, wanted_bytes: int, now: float, why: str, files: Iterator[str],
    loose_older_than_s: float, with_caches: bool, stop: Callable[[], bool] = lambda: False,
) -> CleanupPlan:  # fmt: skip
    """Return what may go to free ``wanted_bytes``: leftovers, then caches, then archived ``files`` in their order."""
    plan = CleanupPlan(now, why)
    plan.loose += _loose(repo.root, LEFTOVERS, "left over by interrupted work", before=now - loose_older_than_s)
    if with_caches and plan.n_bytes < wanted_bytes:
        plan.loose += _loose(repo.root, CACHES, "made anew from the record", before=now)
    for file in files if archive is not None else ():
        if plan.n_bytes >= wanted_bytes or stop():
            break
        assert archive is not None
        proof = prove(archive, file, now=now)
        if isinstance(proof, Proof):
            plan.archived.append(proof)
        else:
            plan.kept.append(Kept(file, proof))
    return plan


def files_to_go(repo: SurveyRepo, *, before_night: int, with_raw: bool) -> Iterator[str]:
    """Yield the files of nights before one that may go once they are archived, those of the oldest night first.

    References and calibration products stay: every night needs them. So do raw files unless they are asked for.
    """
    for folder in archived_folders(repo.root):
        name = folder.path.relative_to(repo.root).as_posix()
        is_old = folder.batch.isdigit() and int(folder.batch) < before_night
        if is_old and _may_go(name, with_raw=with_raw):
            yield from (f"{name}/{item.name}" for item in files_of(folder.path) if not item.is_symlink())


def _may_go(folder: str, *, with_raw: bool) -> bool:
    words = folder.split("/")
    if words[0] == "entered" or words[:2] == ["products", "raw"]:
        return with_raw
    product = PRODUCTS.get(words[1]) if words[0] == "products" else None
    return product is not None and not product.is_calibration and "field" not in product.keys


def write_plan(root: Path, plan: CleanupPlan) -> Path:
    """Write a plan under its date and return the file."""
    day = datetime.fromtimestamp(plan.made, UTC).strftime("%Y%m%d")
    taken = len(list((root / PLANS).glob(f"{day}*.json")))
    path = root / PLANS / (f"{day}.json" if not taken else f"{day}-{taken + 1}.json")
    _write(path, plan)
    return path


def read_plan(path: Path) -> CleanupPlan:
    """Return a plan; DataError if the file is none."""
    try:
        told: dict[str, Any] = json.loads(path.read_text())
        told["loose"] = [Loose(**item) for item in told["loose"]]
        told["kept"] = [Kept(**item) for item in told["kept"]]
        told["archived"] = [_proof(item) for item in told["archived"]]
        return CleanupPlan(**told)
    except (ValueError, KeyError, TypeError) as problem:
        raise DataError(f"{path} is no plan of a clean-up: {problem}") from problem


def unfinished_plans(root: Path) -> list[Path]:
    """Return the plans that were broken off, oldest first."""
    return [path for path in sorted((root / PLANS).glob("*.json")) if read_plan(path).state == "planned"]


def carry_out(
    repo: SurveyRepo, plan: CleanupPlan, path: Path, *, archive: Archive | None = None, now: float | None = None
) -> CleanupPlan:
    """Do what a plan says, and write down what came of it.

    For a plan that was broken off, give the ``archive`` and ``now``: old proofs are worth nothing, each file is proved
    anew. What is not as it was stays, and the plan says so.
    """
    for loose in plan.loose:
        plan.n_bytes_freed += _remove(repo.root, loose, before=plan.made)
    for proof in plan.archived:
        if is_put_out(repo.root, proof):
            continue
        fresh = proof if now is None else _again(archive, proof.file, now)
        try:
            if isinstance(fresh, str):
                raise DataError(fresh)
            put_out(repo.root, fresh)
            plan.n_bytes_freed += fresh.size
        except DataError as problem:
            plan.kept.append(Kept(proof.file, str(problem)))
    plan.state = "done"
    _write(path, plan)
    return plan


def _again(archive: Archive | None, file: str, now: float) -> Proof | str:
    return "the archive is away" if archive is None else prove(archive, file, now=now)


def _loose(root: Path, folders: tuple[str, ...], why: str, *, before: float) -> list[Loose]:
    """Return the files below folders that were not touched since a time; links are not followed."""
    found = []
    for folder in folders:
        for path in sorted((root / folder).rglob("*")) if not (root / folder).is_symlink() else ():
            facts = path.lstat()
            if path.is_file() and not path.is_symlink() and facts.st_mtime < before:
                found.append(Loose(path.relative_to(root).as_posix(), facts.st_size, why))
    return found


def _remove(root: Path, loose: Loose, *, before: float) -> int:
    """Remove a loose file unless it was touched since its plan; return the bytes that this freed."""
    path = root / loose.file
    try:
        facts = path.lstat()
        if path.is_symlink() or facts.st_mtime >= before:
            return 0
        path.unlink()
    except FileNotFoundError:
        return 0
    return loose.size


def _write(path: Path, plan: CleanupPlan) -> None:
    with appearing_whole(path) as temporary:
        temporary.write_text(json.dumps(asdict(plan), indent=1))


def _proof(told: dict[str, Any]) -> Proof:
    from gueststar.store.archive.copying import Identity

    identities = {name: Identity(*told[name]) for name in ("file_identity", "copy_identity")}
    return Proof(**{**told, **identities})
