"""What the Kafka library says, as lines of our log: a trouble is told once, not every second that it lasts."""

from __future__ import annotations

import logging
import re
import time

TOLD_AGAIN_S = 600.0
"""A trouble that lasts is told again after so long."""
ERRORS = 3
"""The library's level (of syslog) from which on lines are taken: errors."""

_CHANGING = re.compile(r"\[thrd:[^]]*\]: |\(after .*?\)|\d+ identical error\(s\) suppressed")
"""What differs from line to line of one trouble."""


class OncePerTrouble(logging.Filter):
    """Lets a line through unless the same was told within `TOLD_AGAIN_S`, by whichever client."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line of the library is news."""
        facility, client, text = (str(item) for item in record.args or ("", "", record.msg))
        trouble = (facility, _CHANGING.sub("", text).strip())
        now = time.monotonic()
        if now - self._told.get(trouble, -TOLD_AGAIN_S) < TOLD_AGAIN_S:
            return False
        self._told = {known: at for known, at in self._told.items() if now - at < TOLD_AGAIN_S} | {trouble: now}
        record.msg, record.args = "Kafka client %s: %s", (client, trouble[1] or facility)
        return True


KAFKA_LOG = logging.getLogger(__name__)
"""Where clients of the brokers write, instead of to standard error."""
KAFKA_LOG.addFilter(OncePerTrouble())
