"""The archive of a repository: brought up to date, checked, and brought back from."""

from __future__ import annotations

import json
import os
import random
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from gueststar.core.errors import ConfigError, DataError, TransientError
from gueststar.formats.atomic import appearing_whole
from gueststar.store.archive.copying import copy_verified, digest_on_disk, told_as_away
from gueststar.store.archive.manifest import Entry, Manifest, batches
from gueststar.store.archive.places import Folder, archive_place, archived_folders, batch_of, digest_in_name, files_of
from gueststar.store.archive.volume import open_volume
from gueststar.store.disks import GB, DiskSpace, space_of
from gueststar.store.repo import SurveyRepo

_SCANNED = "manifests/scanned.json"
"""File of the archive: folder of the repository -> its time when all of it was archived. It saves looking again."""
_SUMMARY = "manifests/summary.json"
"""File of the archive: batch -> what it holds. It only saves reading the manifests."""
_CHECKED = "manifests/checked.json"
"""File of the archive: batch -> when some of it was last read back."""
_BROKEN = "operator/broken"
"""Folder of the repository for damaged files that a good copy took the place of."""

_FILES_AT_ONCE = 64
_SETTLED_NS = 5_000_000_000
_OWNER_ONLY = 0o700


@dataclass
class UpdateReport:
    """What an update of the archive did."""

    n_copied: int = 0
    n_bytes: int = 0
    n_known: int = 0
    """Files that were in the archive already, in folders that were looked at."""
    damaged: list[str] = field(default_factory=list)
    """Files of the repository whose content is not what their name says: they are not archived."""
    left: str = ""
    """Why it stopped before its end; empty: all is archived."""


@dataclass
class CheckReport:
    """What reading back found."""

    n_files: int = 0
    n_bytes: int = 0
    rotten: list[str] = field(default_factory=list)
    """Copies that are damaged or gone, with what is wrong."""
    mended: list[str] = field(default_factory=list)
    """Those of them that were copied anew from the repository."""


class BatchSummary(NamedTuple):
    """What a manifest lists."""

    n_files: int
    n_bytes: int


class Archive:
    """The archive that the settings of a repository name."""

    def __init__(self, repo: SurveyRepo, *, clock: Callable[[], float] = time.time) -> None:
        self.repo = repo
        self._clock = clock
        self.root = open_volume(repo)
        self._manifests: dict[str, dict[str, Entry]] = {}

    @property
    def space(self) -> DiskSpace:
        """Room on the archive's disk."""
        return space_of(self.root)

    def batches(self) -> list[str]:
        """Return what there are manifests of: nights, fields."""
        return batches(self.root)

    def entries(self, batch: str) -> dict[str, Entry]:
        """Return file of the repository -> what the archive's manifest says of it."""
        if batch not in self._manifests:
            self._manifests[batch] = Manifest(self.root, batch).entries()
        return self._manifests[batch]

    def entry_of(self, file: str) -> Entry | None:
        """Return what the manifest says of a file of the repository (relative path); None if it is not archived."""
        return self.entries(batch_of(file)).get(file) if archive_place(file) else None

    # Bringing up to date

    def update(
        self, *, reserve_gb: float = 0.0, stop: Callable[[], bool] = lambda: False, only: Iterable[str] = ()
    ) -> UpdateReport:
        """Copy what is not in the archive yet; again it goes on where it stopped.

        It stops before the disk has less room than ``reserve_gb``, and when ``stop`` says so; ``only`` names batches.
        """
        report, scanned, wanted = UpdateReport(), self._read_own(_SCANNED), set(only)
        try:
            for folder in archived_folders(self.repo.root):
                if (wanted and folder.batch not in wanted) or not self._has_news(folder, scanned):
                    continue
                seen = folder.path.stat().st_mtime_ns
                is_whole = self._update_folder(folder, report, reserve_gb=reserve_gb, stop=stop)
                if report.left:
                    break
                if is_whole and time.time_ns() - seen > _SETTLED_NS:
                    scanned[self._relative(folder.path)] = seen
        finally:
            self._write_own(_SCANNED, scanned)
        return report

    def not_archived(self) -> list[str]:
        """Return the files of the repository that the archive lacks, folders that did not change left out."""
        scanned = self._read_own(_SCANNED)
        found = []
        for folder in archived_folders(self.repo.root):
            if self._has_news(folder, scanned):
                known = self.entries(folder.batch)
                names = (self._relative(folder.path) + "/" + item.name for item in files_of(folder.path))
                found += [name for name in names if name not in known]
        return found

    def _has_news(self, folder: Folder, scanned: dict[str, float]) -> bool:
        return scanned.get(self._relative(folder.path)) != folder.path.stat().st_mtime_ns

    def _update_folder(
        self, folder: Folder, report: UpdateReport, *, reserve_gb: float, stop: Callable[[], bool]
    ) -> bool:
        """Archive the files of a folder; return whether all of it is in the archive now."""
        known, added, shared = self.entries(folder.batch), list[Entry](), dict[int, Entry]()
        n_damaged = len(report.damaged)
        try:
            for item in files_of(folder.path):
                entry = known.get(f"{self._relative(folder.path)}/{item.name}")
                if self._is_known(item, entry):
                    report.n_known += 1
                    continue
                report.left = self._why_stop(reserve_gb, stop)
                if report.left:
                    break
                if (made := self._archive_file(item, report, shared)) is not None:
                    added.append(made)
                if len(added) >= _FILES_AT_ONCE:
                    self._record(folder.batch, added)
                    added = []
        finally:
            self._record(folder.batch, added, is_last=True)
        return not report.left and len(report.damaged) == n_damaged

    def _is_known(self, item: os.DirEntry[str], entry: Entry | None) -> bool:
        """Return whether nothing is to be done for a file: archived as it is now, or a link to its archived copy."""
        if entry is None:
            return False
        if item.is_symlink() and Path(item.path).resolve() == (self.root / entry.archive).resolve():
            return True
        found = item.stat()
        return (found.st_size, found.st_mtime_ns) == (entry.size, entry.mtime_ns)

    def _why_stop(self, reserve_gb: float, stop: Callable[[], bool]) -> str:
        if stop():
            return "its time is over"
        return f"the archive's disk has less than {reserve_gb:g} GB" if self.space.free < reserve_gb * GB else ""

    def _archive_file(self, item: os.DirEntry[str], report: UpdateReport, shared: dict[int, Entry]) -> Entry | None:
        """Copy one file, unless its copy is there; return its line of the manifest, None where it is damaged."""
        file, found = self._relative(Path(item.path)), item.stat()
        if (twin := shared.get(found.st_ino)) is not None:  # another name of the same file
            return Entry(file, twin.archive, twin.sha256, twin.size, found.st_mtime_ns, self._clock())
        try:
            place, digest = self._place(Path(item.path), file)
            if digest is None:
                digest = copy_verified(Path(item.path), self.root / place, sha256=digest_in_name(item.name))
                report.n_copied += 1
                report.n_bytes += found.st_size
        except DataError as problem:
            report.damaged.append(str(problem))
            return None
        shared[found.st_ino] = Entry(file, place, digest, found.st_size, found.st_mtime_ns, self._clock())
        return shared[found.st_ino]

    def _place(self, path: Path, file: str) -> tuple[str, str | None]:
        """Return where a file goes, and its digest where a good copy is there already.

        What is in the archive is never written over: another content under the same name gets a name of its own.
        """
        place = archive_place(file)
        assert place is not None
        self._make_folder((self.root / place).parent)
        if not (self.root / place).exists():
            return place, None
        digest = digest_on_disk(path)
        if (wanted := digest_in_name(path.name)) and not digest.startswith(wanted):
            raise DataError(f"{path} is damaged: its SHA-256 begins with {digest[:12]}, not {wanted}")
        if digest_on_disk(self.root / place) == digest:
            return place, digest
        first, dot, rest = Path(place).name.partition(".")
        place = f"{Path(place).parent.as_posix()}/{first}_{digest[:12]}{dot}{rest}"
        return place, digest if (self.root / place).exists() and digest_on_disk(self.root / place) == digest else None

    def _make_folder(self, folder: Path) -> None:
        """Make a folder; those at the top of the archive are for their owner only."""
        try:
            top = self.root / folder.relative_to(self.root).parts[0]
            if not top.exists():
                top.mkdir(mode=_OWNER_ONLY)
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise told_as_away(problem, folder) from problem

    def _record(self, batch: str, added: list[Entry], *, is_last: bool = False) -> None:
        if added:
            self._make_folder(Manifest(self.root, batch).path.parent)
            try:
                Manifest(self.root, batch).add(added)
                self.entries(batch).update({entry.file: entry for entry in added})
            except OSError as problem:
                raise told_as_away(problem, self.root) from problem
        if is_last and added:
            Manifest(self.root, batch).write_checksums()
            self._summarise(batch)

    # What it holds

    def summary(self) -> dict[str, BatchSummary]:
        """Return batch -> numbers of files and bytes."""
        try:
            told = json.loads((self.root / _SUMMARY).read_text())
        except (FileNotFoundError, ValueError):
            told = {}
        return {
            batch: BatchSummary(*told[batch]) if batch in told else self._counted(batch) for batch in self.batches()
        }

    def _counted(self, batch: str) -> BatchSummary:
        copies = {entry.archive: entry.size for entry in self.entries(batch).values()}
        return BatchSummary(len(copies), sum(copies.values()))

    def _summarise(self, batch: str) -> None:
        known = {name: tuple(item) for name, item in self.summary().items()} | {batch: tuple(self._counted(batch))}
        with appearing_whole(self.root / _SUMMARY) as temporary:
            temporary.write_text(json.dumps(known))

    # Reading back

    def check(
        self, *, n_files: int | None = None, do_mend: bool = True, seed: int = 0,
        stop: Callable[[], bool] = lambda: False,
    ) -> CheckReport:  # fmt: skip
        """Read copies back and compare them with their manifests: those of the batches that waited longest.

        ``n_files`` of them, drawn by chance within a batch; None: all. With ``do_mend`` a damaged copy is made anew
        where the repository still has the file.
        """
        report, checked, rng = CheckReport(), self._read_own(_CHECKED), random.Random(seed)
        for batch in sorted(self.batches(), key=lambda name: (checked.get(name, 0.0), name)):
            left = None if n_files is None else n_files - report.n_files
            if (left is not None and left <= 0) or stop():
                break
            entries = list({entry.archive: entry for entry in self.entries(batch).values()}.values())
            chosen = entries if left is None or left >= len(entries) else rng.sample(entries, left)
            for entry in chosen:
                if stop():
                    break
                self._check_copy(entry, report, do_mend=do_mend)
            checked[batch] = self._clock()
        self._write_own(_CHECKED, checked)
        return report

    def wrong_with(self, entry: Entry) -> str:
        """Return what is wrong with the copy of a file; empty for a good one."""
        path = self.root / entry.archive
        try:
            if not stat.S_ISREG(path.lstat().st_mode):
                return "is not a file"
            digest = digest_on_disk(path)
        except FileNotFoundError:
            return "is gone"
        except OSError as problem:
            return f"cannot be read: {problem.strerror or problem}"
        return "" if digest == entry.sha256 else f"is damaged: SHA-256 {digest[:12]}, not {entry.sha256[:12]}"

    def _check_copy(self, entry: Entry, report: CheckReport, *, do_mend: bool) -> None:
        report.n_files, report.n_bytes = report.n_files + 1, report.n_bytes + entry.size
        if problem := self.wrong_with(entry):
            if not (self.root / "manifests").is_dir():
                raise TransientError(f"the archive {self.root} went away")
            report.rotten.append(f"{entry.archive} {problem}")
            if do_mend and self._mend(entry):
                report.mended.append(entry.archive)

    def _mend(self, entry: Entry) -> bool:
        """Copy a file anew from the repository, where that still has it as it was."""
        source, target = self.repo.root / entry.file, self.root / entry.archive
        is_one_file = not target.is_symlink() and target.exists() and source.exists() and source.samefile(target)
        if is_one_file or not source.is_file():
            return False
        try:
            copy_verified(source, target, sha256=entry.sha256)
        except DataError:
            return False
        return True

    # Bringing back

    def restore(self, file: str) -> str:
        """Bring a file of the repository back from its copy; return what was done: whole, brought back.

        A damaged file is put aside, a link to the archive becomes a file. DataError where there is no good copy.
        """
        entry, path = self.entry_of(file), self.repo.root / file
        if entry is None:
            raise DataError(f"{file} is not in the archive {self.root}")
        is_file = not path.is_symlink() and path.is_file()
        if is_file and digest_on_disk(path) == entry.sha256:
            return "whole"
        if problem := self.wrong_with(entry):
            raise DataError(f"the archive's copy of {file} {problem}")
        if is_file:
            aside = self.repo.root / _BROKEN / f"{path.name}.{time.time_ns()}"
            aside.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, aside)
        copy_verified(self.root / entry.archive, path, sha256=entry.sha256)
        os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns))
        return "brought back"

    def lacking(self, batch: str, *, with_links: bool = True) -> list[str]:
        """Return the archived files that the repository lacks, or holds as links to the archive only."""

        def lacks(file: str) -> bool:
            path = self.repo.root / file
            return (path.is_symlink() and with_links) or not path.exists()

        return [file for file in sorted(self.entries(batch)) if lacks(file)]

    # Its own notes

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.repo.root).as_posix()

    def _read_own(self, name: str) -> dict[str, float]:
        try:
            found: dict[str, float] = json.loads((self.root / name).read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return found

    def _write_own(self, name: str, values: dict[str, float]) -> None:
        self._make_folder((self.root / name).parent)
        try:
            with appearing_whole(self.root / name) as temporary:
                temporary.write_text(json.dumps(values))
        except OSError as problem:
            raise told_as_away(problem, self.root) from problem


def batches_named(archive: Archive, names: Iterable[str]) -> list[str]:
    """Return batches by their names; ConfigError for one that the archive does not hold."""
    known = archive.batches()
    for name in names:
        if name not in known:
            raise ConfigError(f"the archive {archive.root} holds nothing of {name}")
    return list(names) or known
