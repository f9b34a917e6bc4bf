"""The operator of a rehearsal: the real `gueststar operate`, in a process of its own that can be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import psutil

from gueststar.core.errors import TransientError
from gueststar.operations.drills.world import one_thread_each
from gueststar.store.operator_state import OperatorState, read_operator_state

LOOK_S = 0.1
"""How often it is looked whether something holds that is waited for."""

GONE_S = 20.0
"""How long an operator may take to leave when it is asked to."""


class Operating(AbstractContextManager["Operating"]):
    """Runs the operator of a survey; ended, with all its workers, when the ``with`` statement ends.

    ``clock_starts``: what time it is for it when it is first started, Unix; started again, it is as much later.
    """

    def __init__(self, root: Path, *options: object, clock_starts: float | None = None) -> None:
        self.root, self.options = root, tuple(map(str, options))
        self.clock_starts = clock_starts
        self._first_started: float | None = None
        self.log = root.parent / f"{root.name}.operator.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._family: list[psutil.Process] = []

    def __enter__(self) -> Operating:
        self.start()
        return self

    def start(self) -> None:
        """Start it."""
        command = [sys.executable, "-m", "gueststar", "operate", str(self.root), *self.options, *self._as_if()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=one_thread_each(), start_new_session=True
            )

    def _as_if(self) -> list[str]:
        """Return the option that tells it what time it is."""
        if self.clock_starts is None:
            return []
        self._first_started = self._first_started or time.time()
        now = datetime.fromtimestamp(self.clock_starts + time.time() - self._first_started, UTC)
        return ["--as-if", now.replace(tzinfo=None).isoformat()]

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def status(self) -> int | None:
        """Exit status; None while it runs."""
        return self._process.poll() if self._process else None

    def state(self) -> OperatorState | None:
        """Return what it says it does; None if this very process has not said anything yet."""
        state = read_operator_state(self.root)
        return state if state is not None and state.pid == self.pid else None

    def what_time_it_is(self) -> float:
        """Return what time it is for it, Unix, when it has come up."""
        self.wait_until(self.state, "it is up", timeout_s=120.0)
        state = self.state()
        assert state is not None
        return state.clock + time.time() - state.beat

    def workers(self) -> list[psutil.Process]:
        """Return its worker processes: the innermost of its family that run our code."""
        state = self.state()
        named = {worker.pid for worker in state.workers} if state else set()
        return [process for process in self._children() if process.pid in named]

    @property
    def n_workers(self) -> int:
        """Workers that it names and whose processes are there."""
        state = self.state()
        return sum(psutil.pid_exists(worker.pid) for worker in state.workers if worker.pid) if state else 0

    def _children(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            self._family = psutil.Process(self.pid).children(recursive=True)
        return self._family

    def kill(self) -> None:
        """End it as kill -9 does; its workers are left to find out by themselves."""
        self._children()
        os.kill(self.pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def stop(self) -> int:
        """Ask it to leave and return its exit status."""
        assert self._process is not None
        if self.is_running:
            self._process.terminate()
        return self._process.wait(GONE_S)

    def wait_until(self, condition: Callable[[], object], what: str, *, timeout_s: float = 600.0) -> float:
        """Wait until something holds and return how long that took, seconds; TransientError if it never does."""
        begun = time.monotonic()
        while not condition():
            if not self.is_running:
                raise TransientError(f"the operator ended before {what}: {self.last_words()}")
            if time.monotonic() - begun > timeout_s:
                raise TransientError(f"not within {timeout_s:.0f} s: {what}; {self.last_words()}")
            time.sleep(LOOK_S)
        return time.monotonic() - begun

    def last_words(self) -> str:
        """Return the end of what it wrote."""
        if not self.log.exists():
            return "it wrote nothing"
        return "its last words: " + " / ".join(self.log.read_text(errors="replace").splitlines()[-5:])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        family = self._children() if self.is_running else self._family
        if self.is_running:
            os.kill(self.pid, signal.SIGKILL)
            assert self._process is not None
            self._process.wait()
        for process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
