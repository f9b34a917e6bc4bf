"""Serve the status page: the facts, looked at not more often than every few seconds however many look at them."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gueststar.core.clock import Clock, SystemClock
from gueststar.operations.watch.facts import Facts, as_json
from gueststar.operations.watch.look import looking
from gueststar.operations.watch.previews import Previews
from gueststar.operations.watch.prometheus import Figures
from gueststar.operations.watch.watcher import Watcher
from gueststar.services.gate import Gate
from gueststar.services.status import status_app
from gueststar.services.web_server import serve

FRESH_S = 2.0


class Glance:
    """The facts as they were a moment ago."""

    def __init__(self, watcher: Watcher, *, clock: Clock | None = None) -> None:
        self._watcher, self._clock = watcher, clock or SystemClock()
        self._known: tuple[float, Facts] | None = None
        self._one_at_a_time = threading.Lock()

    def facts(self) -> Facts:
        """Return them; they are looked up where they are older than `FRESH_S`."""
        with self._one_at_a_time:
            now = self._clock.now()
            if self._known is None or not 0.0 <= now - self._known[0] < FRESH_S:
                self._known = (now, self._watcher.facts())
            return self._known[1]

    def told(self) -> dict[str, Any]:
        """Return them for a browser: integers that its numbers cannot hold are text."""
        return dict(_for_browsers(as_json(self.facts())))


def serve_status(root: Path, *, host: str, port: int, group: str, tell: Callable[[str], None]) -> None:
    """Serve the page until it is interrupted; ``tell`` hears where. ConfigError if the port is taken.

    Each minute it looks at the survey from outside the operator, which cannot say itself that it is gone.
    """
    watcher, previews = Watcher(root), Previews(root.absolute())
    glance = Glance(watcher)
    figures = Figures(glance.facts).text
    app = status_app(facts=glance.told, figures=figures, preview=previews.of, open_gate=lambda: Gate(root), group=group)
    try:
        with looking(root.absolute()):
            serve(app, host=host, port=port, tell=tell)
    finally:
        previews.close()
        watcher.close()


def _for_browsers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _for_browsers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_for_browsers(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, int) and abs(value) > 1 << 53 else value
