"""Alarms of the operator: raised when something begins to be wrong, settled when it is right again."""

from __future__ import annotations

import logging
import time
from typing import Literal

from gueststar.core.clock import Clock
from gueststar.core.errors import GueststarError
from gueststar.operations.watch.alarms import raise_alarm, settle_alarm
from gueststar.store.repo import SurveyRepo

LOG = logging.getLogger(__name__)

_SAY_AGAIN_S = 60.0


class Alarming:
    """Says what is wrong, not more often than once a minute, and what is right again, once."""

    def __init__(self, repo: SurveyRepo, *, clock: Clock) -> None:
        self.repo, self.clock = repo, clock
        self._open: dict[tuple[str, str], tuple[float, str]] = {}

    def wrong(self, kind: str, subject: str, text: str, severity: Literal["notice", "warning", "critical"]) -> None:
        """Say that something is wrong."""
        said, before = self._open.get((kind, subject), (-1e9, ""))
        if text == before and time.monotonic() - said < _SAY_AGAIN_S:
            return
        self._open[kind, subject] = (time.monotonic(), text)
        LOG.warning("%s %s: %s", kind, subject, text)
        try:
            raise_alarm(self.repo, kind, subject, text, severity, now=self.clock.now())
        except (GueststarError, OSError) as problem:
            LOG.warning("the alarm is in the log only: %s", problem)

    def settle(self, kind: str, subject: str) -> None:
        """Say that something is right, also where it was wrong before this operator began."""
        self._open.setdefault((kind, subject), (0.0, ""))
        self.right(kind, subject)

    def right(self, kind: str, subject: str) -> None:
        """Say that something is right (again)."""
        if self._open.pop((kind, subject), None) is None:
            return
        try:
            settle_alarm(self.repo, kind, subject, now=self.clock.now())
        except (GueststarError, OSError) as problem:
            LOG.warning("alarm %s %s stays open: %s", kind, subject, problem)
            self._open[kind, subject] = (time.monotonic(), "")
