"""How an operator stands: what its rooms share, and what of it changes while it works."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Literal

from gueststar.core.clock import Clock
from gueststar.operations.operator.alarming import Alarming
from gueststar.operations.operator.facts import night_of
from gueststar.operations.rules.book import RuleBook
from gueststar.store.repo import SurveyRepo

LOG = logging.getLogger(__name__)

Mode = Literal["running", "paused", "waiting", "stopping", "dry"]
_N_RECENT = 30


class Standing:
    """The repository as it is open now, the rules in force, the mode and its reason, and what is due when."""

    def __init__(
        self, repo: SurveyRepo, rules: RuleBook, *, clock: Clock, open_repo: Callable[[SurveyRepo], SurveyRepo]
    ) -> None:
        self.repo, self.rules, self.clock, self._open_repo = repo, rules, clock, open_repo
        self.alarming = Alarming(repo, clock=clock)
        self.mode: Mode = "running"
        self.why = ""
        """Of the mode; empty where it runs."""
        self.recent: deque[str] = deque(maxlen=_N_RECENT)
        """What it did last, in lines, the newest at the end."""
        self._due: dict[str, float] = {}

    @property
    def night(self) -> int:
        """The survey's night now, YYYYMMDD."""
        return night_of(self.clock.now(), self.repo.camera)

    def use(self, repo: SurveyRepo) -> None:
        """Work with a repository that was opened anew."""
        self.repo = self.alarming.repo = repo

    def open_again(self) -> SurveyRepo:
        """Return a door to the repository of its own, for a thread."""
        return self._open_repo(self.repo)

    def become(self, mode: Mode, why: str = "") -> None:
        """Change the mode."""
        self.mode, self.why = mode, why

    def is_due(self, what: str, every_s: float) -> bool:
        """Return whether something was not done within ``every_s``; if so, it is taken as done now."""
        now = time.monotonic()
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + every_s
        return True

    def hurry(self, what: str | None = None) -> None:
        """Let something, or everything, be due at once."""
        if what is None:
            self._due.clear()
        else:
            self._due[what] = 0.0

    def put_off(self, what: str, seconds: float) -> None:
        """Let something not be due for so long."""
        self._due[what] = time.monotonic() + seconds

    def say(self, line: str) -> None:
        """Tell what was done: to the log, and among the last lines of the picture."""
        LOG.info(line)
        self.recent.append(f"{time.strftime('%H:%M:%S', time.gmtime(self.clock.now()))} {line}")
