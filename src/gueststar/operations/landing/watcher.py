"""Threads that wait at a landing place, so that a file system that hangs holds up nothing else."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue

from watchfiles import watch

from gueststar.core.clock import Clock
from gueststar.operations.landing.journal import ArrivedFile, ReceiptJournal
from gueststar.operations.landing.place import PlaceAway, WatchedPlace, WholeFile
from gueststar.store.operation_settings import LandingPlace

LOG = logging.getLogger(__name__)

_LOOK_AGAIN_S = 0.5
"""How often files that are not whole yet are looked at; empty ones are when something happens, or with the scan."""
_DEBOUNCE_MS = 100
_STEP_MS = 100
_REST_S = 5.0
"""Before events are asked for again of a place that gives none."""


class PlaceWatcher:
    """Watches one place: events where the file system sends them, and a reconciling scan."""

    def __init__(
        self, settings: LandingPlace, journal: ReceiptJournal, *, clock: Clock, wake: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.settings, self._journal, self._clock, self._wake = settings, journal, clock, wake
        self.place = WatchedPlace(settings, is_known=journal.is_taken, monotonic=monotonic)
        self.trouble = ""
        """Why the place does not answer; empty while it does."""
        self.n_scans = 0
        """How often the place was read through."""
        self._whole: SimpleQueue[ArrivedFile] = SimpleQueue()
        self._changed: set[Path] = set()
        self._lock, self._stop, self._event = threading.Lock(), threading.Event(), threading.Event()
        self._threads: list[threading.Thread] = []
        self._looked = time.monotonic()

    def start(self) -> None:
        """Begin to watch."""
        for work in (self._listen, self._look):
            thread = threading.Thread(target=work, daemon=True, name=f"landing {self.settings.path.name}")
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End watching; a thread that hangs in a dead file system is left to itself."""
        self._stop.set()
        self._event.set()
        for thread in self._threads:
            thread.join(timeout=2.0)

    def arrived(self) -> list[ArrivedFile]:
        """Return the files that have become whole since the last call."""
        files = []
        while True:
            try:
                files.append(self._whole.get_nowait())
            except Empty:
                return files

    @property
    def n_whole(self) -> int:
        """Files that the next call of `arrived` would return."""
        return self._whole.qsize()

    @property
    def silent_s(self) -> float:
        """How long ago the place was looked into, seconds: much longer than its ``scan_s`` where it hangs."""
        return time.monotonic() - self._looked

    def scan(self) -> None:
        """Read through the place now."""
        self._hand_over(self.place.scan, is_scan=True)

    def _look(self) -> None:
        due = 0.0
        while not self._stop.is_set():
            if time.monotonic() >= due:
                self.scan()
                due = time.monotonic() + self.settings.scan_s
            else:
                with self._lock:
                    changed, self._changed = self._changed, set()
                self._hand_over(partial(self.place.look_at, changed))
            wait = due - time.monotonic()
            if self.place.is_growing and not self.trouble:
                wait = min(wait, _LOOK_AGAIN_S)
            self._event.wait(max(wait, 0.0))
            self._event.clear()

    def _hand_over(self, look: Callable[[], list[WholeFile]], *, is_scan: bool = False) -> None:
        try:
            found = look()
            self.trouble = ""
        except PlaceAway as problem:
            found, self.trouble = [], str(problem)
        self._looked = time.monotonic()
        files = [self._received(file) for file in found]
        if files:
            try:
                self._journal.add(files)
            except OSError as problem:  # the repository's disk: the files are safe where they are
                LOG.warning("receipt times are in memory only: %s", problem)
            for file in files:
                self._whole.put(file)
            self._wake()
        self.n_scans += is_scan

    def _received(self, file: WholeFile) -> ArrivedFile:
        before = self._journal.received(file.path, file.stamp)
        return ArrivedFile(file.path, file.stamp, self._clock.now() if before is None else before)

    def _listen(self) -> None:
        while not self._stop.is_set():
            try:
                for changes in watch(
                    self.settings.path, stop_event=self._stop, debounce=_DEBOUNCE_MS, step=_STEP_MS,
                    ignore_permission_denied=True, watch_filter=None,
                ):  # fmt: skip
                    self._note(Path(path) for _, path in changes)
            except OSError as problem:  # no such folder, or no events there: the scan finds what comes
                LOG.debug("no events from %s: %s", self.settings.path, problem)
            self._stop.wait(_REST_S)

    def _note(self, paths: Iterable[Path]) -> None:
        with self._lock:
            self._changed.update(paths)
        self._event.set()
