"""Alerts leave beside the operator's loop: brokers may take their time, or be away."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from gueststar.core.clock import Clock
from gueststar.core.errors import GueststarError
from gueststar.operations.operator.alarming import Alarming
from gueststar.operations.operator.facts import night_of
from gueststar.operations.operator.trouble import LONGEST_WAIT_S
from gueststar.pipelines.night.publishing import publish_night
from gueststar.store.repo import SurveyRepo

LOG = logging.getLogger(__name__)

_AWAY = "the brokers do not take alerts; they wait in the log"


class Publishing:
    """Sends what waits in the alert log, in a thread, not more often than the settings say."""

    def __init__(
        self, pool: ThreadPoolExecutor, open_repo: Callable[[], SurveyRepo], alarming: Alarming, *, clock: Clock
    ) -> None:
        self._pool, self._open_repo, self._alarming, self._clock = pool, open_repo, alarming, clock
        self._sending: Future[bool] | None = None
        self._not_before = 0.0
        self.last_alert: float | None = None
        """When alerts left last, Unix time."""

    @property
    def is_sending(self) -> bool:
        """Whether alerts are on their way."""
        return self._sending is not None

    def turn(self, repo: SurveyRepo, *, has_new_alerts: bool) -> bool:
        """Send alerts if there are new ones; return whether some are still to be sent."""
        if self._sending is not None:
            if not self._sending.done():
                return has_new_alerts
            has_new_alerts |= not self._ended(self._sending, every_s=repo.settings.operation.queue.publish_every_s)
            self._sending = None
        if has_new_alerts and time.monotonic() >= self._not_before:
            self._sending = self._pool.submit(self._send, night_of(self._clock.now(), repo.camera))
            return False
        return has_new_alerts

    def _send(self, night: int) -> bool:
        with self._open_repo() as repo:
            return publish_night(repo, night)

    def _ended(self, sending: Future[bool], *, every_s: float) -> bool:
        """Return whether the alerts left."""
        try:
            is_sent = sending.result()
        except (GueststarError, OSError) as problem:
            LOG.warning("alerts wait: %s", problem)
            is_sent = False
        if is_sent:
            self.last_alert = self._clock.now()
            self._alarming.right("alerts_waiting", "")
        else:
            self._alarming.wrong("alerts_waiting", "", _AWAY, "critical")
        self._not_before = time.monotonic() + (every_s if is_sent else LONGEST_WAIT_S)
        return is_sent
