"""One landing place: which of its files are new, and which of those are whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gueststar.core.errors import TransientError
from gueststar.formats.raw_names import is_raw_name
from gueststar.operations.landing.completeness import Arriving, Stamp, is_sidecar, is_unfinished, is_whole
from gueststar.store.operation_settings import LandingPlace


class PlaceAway(TransientError):
    """A landing place does not answer: unmounted, its handle stale, its server gone."""


@dataclass(frozen=True)
class WholeFile:
    """A file that is whole."""

    path: Path
    stamp: Stamp


class WatchedPlace:
    """Looks into a landing place again and again; it neither waits nor remembers on disk.

    ``is_known`` tells files that were taken in before. ``monotonic`` measures how long a file stays the same.
    """

    def __init__(
        self, settings: LandingPlace, *, is_known: Callable[[Path, Stamp], bool], monotonic: Callable[[], float]
    ) -> None:
        self.settings, self._is_known, self._monotonic = settings, is_known, monotonic
        self._arriving: dict[Path, Arriving] = {}
        self._settled: dict[str, Stamp] = {}
        self._forgotten: set[str] = set()
        """Files that were handed over, or are known: a season's may lie there, and each scan meets them all."""
        self._device: int | None = None

    @property
    def n_arriving(self) -> int:
        """Files that are there and not whole yet."""
        return len(self._arriving)

    @property
    def is_growing(self) -> bool:
        """Whether any of those holds something already."""
        return any(arriving.stamp.size for arriving in self._arriving.values())

    def scan(self) -> list[WholeFile]:
        """Read through the place and return the files that have become whole, by name.

        Raises PlaceAway where it does not answer.
        """
        try:
            self._check_mounted()
            new, settled = self._new_and_settled()
        except OSError as problem:
            raise self._away(problem.strerror or str(problem)) from problem
        self._settled = settled
        for path in [path for path in self._arriving if path not in new]:
            del self._arriving[path]
        return self._whole_among(new.items())

    def look_at(self, paths: Iterable[Path]) -> list[WholeFile]:
        """Look at files that changed, and at those that were not whole yet; return those that have become whole."""
        found = {}
        for path in {*map(_described, paths), *self._arriving}:
            try:
                if self._is_wanted(path) and (stamp := _stamp_of(path)) is not None:
                    found[path] = stamp
            except FileNotFoundError:
                self._arriving.pop(path, None)
                self._settled.pop(str(path), None)
            except OSError as problem:
                raise self._away(problem.strerror or str(problem)) from problem
        return self._whole_among(found.items())

    def forget(self, path: Path) -> None:
        """Look at a file anew when it is met next, though it was whole before."""
        self._forgotten.add(str(path))

    def _whole_among(self, files: Iterable[tuple[Path, Stamp]]) -> list[WholeFile]:
        now, whole = self._monotonic(), []
        for path, stamp in files:
            if str(path) in self._forgotten:
                self._settled.pop(str(path), None)
                self._forgotten.discard(str(path))
            if self._settled.get(str(path)) == stamp or self._is_known(path, stamp):
                self._arriving.pop(path, None)
                self._settled[str(path)] = stamp
                continue
            arriving = self._arriving.get(path)
            if arriving is None or arriving.stamp != stamp:
                arriving = self._arriving[path] = Arriving(stamp, now)
            try:
                is_complete = is_whole(path, arriving, self.settings, now=now)
            except FileNotFoundError:
                continue
            except OSError as problem:
                raise self._away(problem.strerror or str(problem)) from problem
            if is_complete:
                del self._arriving[path]
                self._settled[str(path)] = stamp
                whole.append(WholeFile(path, stamp))
        return sorted(whole, key=lambda file: (file.path.name, str(file.path)))

    def _new_and_settled(self) -> tuple[dict[Path, Stamp], dict[str, Stamp]]:
        """Read through the place; return the files that are to be looked at, and those that are as they were."""
        new, settled = dict[Path, Stamp](), dict[str, Stamp]()
        for entry in self._files():
            try:
                known = self._settled.get(entry.path)
                if known is None and not (self._is_wanted(Path(entry.path)) and entry.is_file()):
                    continue
                state = entry.stat()
            except FileNotFoundError:  # renamed or removed since
                continue
            if known == (state.st_size, state.st_mtime_ns) and entry.path not in self._forgotten:
                settled[entry.path] = known
            else:
                new[Path(entry.path)] = Stamp(state.st_size, state.st_mtime_ns)
        return new, settled

    def _files(self) -> Iterator[os.DirEntry[str]]:
        folders = [str(self.settings.path)]
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        yield entry

    def _is_wanted(self, path: Path) -> bool:
        if is_unfinished(path.name) or is_sidecar(path.name):
            return False
        inside = path.relative_to(self.settings.path).parts
        if any(part.startswith(".") for part in inside):
            return False
        return self.settings.holds != "raw" or is_raw_name(path)

    def _check_mounted(self) -> None:
        """Raise PlaceAway where a file system was mounted and the empty folder below it is what is left."""
        here, above = self.settings.path.stat().st_dev, self.settings.path.parent.stat().st_dev
        if self._device is not None and self._device != here and here == above:
            raise self._away("its file system is not mounted")
        self._device = here

    def _away(self, why: str) -> PlaceAway:
        return PlaceAway(f"landing place {self.settings.path} does not answer: {why}")


def _described(path: Path) -> Path:
    """Return the file that a checksum tells of, or the file itself."""
    return path.with_name(path.stem) if is_sidecar(path.name) else path


def _stamp_of(path: Path) -> Stamp | None:
    state = path.stat()
    return Stamp(state.st_size, state.st_mtime_ns) if path.is_file() else None
