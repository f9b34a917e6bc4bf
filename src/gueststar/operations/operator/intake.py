"""From the landing places into the repository: what is taken in first, and what each kind of file becomes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, LifoQueue, SimpleQueue

from gueststar.cameras.translate import translate
from gueststar.core import times
from gueststar.core.clock import Clock, SystemClock
from gueststar.core.errors import GueststarError
from gueststar.formats.raw import read_headers
from gueststar.model.camera import Camera
from gueststar.model.exposure import ExposureInfo
from gueststar.operations.landing.journal import ArrivedFile, ReceiptJournal
from gueststar.operations.landing.taking import remove_taken, take_raw
from gueststar.operations.landing.watcher import PlaceWatcher
from gueststar.pipelines.expectations import take_schedule
from gueststar.pipelines.ingest import Outcome
from gueststar.store.ledger import ExposureRow, FileStatus
from gueststar.store.operation_settings import LandingPlace
from gueststar.store.repo import SurveyRepo

LOG = logging.getLogger(__name__)

REFUSED = "refused"
"""What the diary calls a file that landed and cannot be taken in."""
_HANGS_AFTER_S = 60.0
_LOOKS_FOR_S = 0.25
"""So long is waited for the headers of files that landed before other work has its turn."""
_WAITS_S = {False: 5.0, True: 60.0}
"""Is it late -> how long a file whose header was read waits for those of others to be read: what an exposure needs, a
calibration frame perhaps, may be among them."""
_FUTURE_S = 30.0
"""Exposures that end later than this after their file was received are told of."""


@dataclass(frozen=True, order=True)
class Waiting:
    """A file that waits to be taken in, sorted: tonight's before a backlog, each by time."""

    is_late: bool
    began: float
    """When the exposure began, Unix time, as far as the header tells; else when the file came."""
    name: str
    file: ArrivedFile = field(compare=False)
    info: ExposureInfo | None = field(default=None, compare=False)
    """What its header tells of the exposure; None where it does not, or there is none."""
    seen: float = field(default=0.0, compare=False)
    """When its header was read, monotonic."""


class HeaderReader:
    """Reads headers in a thread: the last file that came first, for it is the newest exposure most likely."""

    def __init__(self, look: Callable[[ArrivedFile], Waiting], wake: Callable[[], None]) -> None:
        self._look, self._wake = look, wake
        self._unseen: LifoQueue[ArrivedFile | None] = LifoQueue()
        self._seen: SimpleQueue[Waiting] = SimpleQueue()
        self.n_in_hand = 0
        """Files that were given and have not been returned."""
        threading.Thread(target=self._run, daemon=True, name="headers").start()

    def read(self, files: Iterable[ArrivedFile]) -> None:
        """Let the headers of files be read."""
        for file in files:
            self.n_in_hand += 1
            self._unseen.put(file)

    def seen(self, *, wait_s: float) -> list[Waiting]:
        """Return what was read since the last call; wait a little for what is still to be read."""
        found, end = list[Waiting](), time.monotonic() + wait_s
        while self.n_in_hand:
            try:
                found.append(self._seen.get(timeout=max(0.0, end - time.monotonic())))
            except Empty:
                break
            self.n_in_hand -= 1
        return found

    def stop(self) -> None:
        """End after the file that is being read."""
        self._unseen.put(None)

    def _run(self) -> None:
        while (file := self._unseen.get()) is not None:
            self._seen.put(self._look(file))
            self._wake()


class Intake:
    """One landing place and the files of it that wait."""

    def __init__(self, settings: LandingPlace, camera: Camera, *, prompt_s: float, backlog_share: int = 4) -> None:
        self.settings, self.camera, self.prompt_s, self.backlog_share = settings, camera, prompt_s, backlog_share
        self.waiting: list[Waiting] = []
        self._headers: HeaderReader | None = None
        self._n_prompt, self._is_removed, self._is_gone = 0, False, False
        self._watcher: PlaceWatcher | None = None
        self._journal: ReceiptJournal | None = None
        self._clock: Clock = SystemClock()
        self.cannot_remove = ""
        """Why a file that was taken in is still there; empty where that did not happen."""

    def start(self, journal: ReceiptJournal, clock: Clock, wake: Callable[[], None]) -> None:
        """Begin to watch."""
        self._journal, self._clock = journal, clock
        self._watcher = PlaceWatcher(self.settings, journal, clock=clock, wake=wake)
        self._watcher.start()
        self._headers = HeaderReader(self._entry, wake)

    def stop(self) -> None:
        """End watching."""
        if self._watcher is not None:
            self._watcher.stop()
        if self._headers is not None:
            self._headers.stop()

    @property
    def trouble(self) -> str:
        """What is wrong with the place; empty where nothing is."""
        if self._watcher is None:
            return ""
        if self._watcher.silent_s > max(_HANGS_AFTER_S, 3 * self.settings.scan_s):
            return f"landing place {self.settings.path} has not answered for {self._watcher.silent_s:.0f} s"
        return self._watcher.trouble or self.cannot_remove

    @property
    def n_waiting(self) -> int:
        """Files that are there, whole, and not taken in yet."""
        return len(self.waiting) + self._n_unseen

    @property
    def _n_unseen(self) -> int:
        in_hand = 0 if self._headers is None else self._headers.n_in_hand
        return in_hand + (0 if self._watcher is None else self._watcher.n_whole)

    @property
    def infos(self) -> list[ExposureInfo]:
        """What the headers of files tell that are not taken in; files of one exposure tell the same."""
        told = {item.info.exposure_id: item.info for item in self.waiting if item.info is not None}
        return list(told.values())

    @property
    def n_unseen(self) -> int:
        """Files that may hold any exposure, for all one knows: not looked into, or without a header that tells."""
        if self.settings.holds != "raw":
            return 0
        return self._n_unseen + sum(item.info is None for item in self.waiting)

    @property
    def n_arriving(self) -> int:
        """Files that are there and not whole yet."""
        return 0 if self._watcher is None else self._watcher.place.n_arriving

    @property
    def is_read(self) -> bool:
        """Whether the place was read through since watching began."""
        return self._watcher is not None and self._watcher.n_scans > 0

    def next_files(self, n: int) -> list[Waiting]:
        """Return the next files to be taken in: tonight's first, one in ``backlog_share`` of those that came late."""
        if self._watcher is not None and self._headers is not None:
            self._headers.read(self._watcher.arrived())
            if seen := self._headers.seen(wait_s=_LOOKS_FOR_S):
                self.waiting = sorted([*self.waiting, *seen])
        now, is_all_seen = time.monotonic(), self._n_unseen == 0
        free = [item for item in self.waiting if is_all_seen or now - item.seen > _WAITS_S[item.is_late]]
        return [self._pop(free) for _ in range(min(n, len(free)))]  # listed until `taken`: an interruption loses none

    def _pop(self, free: list[Waiting]) -> Waiting:
        late = next((k for k, item in enumerate(free) if item.is_late), None)
        if late is not None and late > 0:
            self._n_prompt += 1
            if self._n_prompt >= self.backlog_share:
                self._n_prompt = 0
                return free.pop(late)
        return free.pop(0)

    def _entry(self, file: ArrivedFile) -> Waiting:
        info = self._info(file.path)
        began = file.received if info is None else times.unix(info.mjd_start)
        return Waiting(file.received - began > self.prompt_s, began, file.path.name, file, info, time.monotonic())

    def _info(self, path: Path) -> ExposureInfo | None:
        """Return what the header of a file tells of its exposure; None where it does not tell."""
        if self.settings.holds != "raw":
            return None
        try:
            return translate(self.camera, read_headers(path)).info
        except Exception:  # whatever it is, taking the file in will say what is wrong with it
            return None

    def take(self, repo: SurveyRepo, file: ArrivedFile) -> list[ExposureRow]:
        """Take a file in; return the exposures that it brought.

        One that is gone (its place went away) brings nothing, and is met again when it is back.
        """
        self._is_gone = False
        if self.settings.holds == "raw":
            try:
                return self._take_raw(repo, file)
            except FileNotFoundError:
                if file.path.exists():
                    raise
                self._is_gone = True
                return []
        if self.settings.holds == "schedule":
            self._take_schedule(repo, file)
        return []  # orbits are taken in by the action that looks after them

    def _take_raw(self, repo: SurveyRepo, file: ArrivedFile) -> list[ExposureRow]:
        if _has_grown(file):
            return []  # the watcher hands it over again
        if not file.path.exists():
            raise FileNotFoundError(file.path)
        outcome = take_raw(repo, file, self.settings)
        if outcome.status is FileStatus.REFUSED:
            LOG.warning("refused %s: %s", file.path, outcome.reason)
            repo.ledger.event(
                REFUSED, file.path.name, f"refused: {outcome.reason}", path=str(file.path), at=self._clock.now()
            )
        self._is_removed = False
        if self.settings.after == "remove":
            self._is_removed = self._remove(repo, file, outcome)
        if outcome.status is not FileStatus.INGESTED or outcome.exposure_id is None:
            return []
        row = repo.ledger.exposure(outcome.exposure_id)
        if row is not None:
            _tell_of_future(repo, row, file)
        return [] if row is None else [row]

    def _remove(self, repo: SurveyRepo, file: ArrivedFile, outcome: Outcome) -> bool:
        try:
            return remove_taken(repo, file, outcome)
        except OSError as problem:
            self.cannot_remove = f"{file.path} is taken in and cannot be removed: {problem.strerror or problem}"
            return False

    def _take_schedule(self, repo: SurveyRepo, file: ArrivedFile) -> None:
        try:
            take_schedule(repo, file.path)
        except GueststarError as problem:
            repo.ledger.event("schedule", file.path.name, f"refused: {problem}")

    def taken(self, file: ArrivedFile) -> None:
        """Note that a file was taken in."""
        self.waiting = [item for item in self.waiting if item.file is not file]
        if self._is_gone and self._watcher is not None:
            LOG.warning("%s is gone before it was taken in; it is taken when it is back", file.path)
            self._watcher.place.forget(file.path)
        elif self._journal is not None:
            self._journal.taken(file, is_removed=self._is_removed)


def _has_grown(file: ArrivedFile) -> bool:
    """Return whether a file that was empty for long is not so any more."""
    try:
        return file.stamp.size == 0 and file.path.stat().st_size > 0
    except FileNotFoundError:
        return False


def _tell_of_future(repo: SurveyRepo, row: ExposureRow, file: ArrivedFile) -> None:
    """Write down that an exposure ended after its file was here: one of two clocks is wrong, and it is taken anyway."""
    ahead = times.unix(row.info.mjd_start) + row.info.exposure_s - file.received
    if ahead > _FUTURE_S:
        text = f"{file.path.name} was here {ahead:.0f} s before its exposure ended: the camera's clock or ours is wrong"
        repo.ledger.event("clock", str(row.id), text, exposure=row.id, night=row.info.day_obs, ahead_s=ahead)
        LOG.warning(text, extra={"exposure": row.id, "night": row.info.day_obs})
