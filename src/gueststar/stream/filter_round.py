"""One round of filters: ask them of what is new, and send what passed."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gueststar.core.errors import TransientError
from gueststar.store.alerts.log import FOLDER
from gueststar.store.filters.definitions import FilterStore, has_filters
from gueststar.store.settings import SurveySettings
from gueststar.stream.clients import has_stream
from gueststar.stream.filter_topics import FilterTopics
from gueststar.stream.filters import RunFilters, nights_of_owners


def run_filters(root: Path, settings: SurveySettings) -> list[str]:
    """Ask the filters of a survey of what is new, and send what passed where there is a stream; tell it as lines.

    It comes behind the publication and does nothing to it: call it whether that succeeded or not. Raises ConfigError
    or TransientError where the brokers cannot be used; what passed waits for the next round.
    """
    if not has_filters(root, settings.database):
        return []
    is_streamed, nights_of = has_stream(root, settings.stream), nights_of_owners(root, settings)
    with _alone(root):
        store = FilterStore.of(root, settings.database)
        try:
            with RunFilters(root, store, settings.filters, nights_of=nights_of) as filters:
                receipt = filters.run(must_be_sent=is_streamed)
        finally:
            store.close()
        lines = receipt.lines() if receipt.n_alerts or receipt.paused else []
        if is_streamed:
            with FilterTopics(root, settings.stream, nights_of=nights_of) as topics:
                lines += topics.send().lines()
    return lines


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Hold the filters of a repository; TransientError if another process does."""
    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    with (root / FOLDER / "filters.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TransientError(f"another process asks the filters of {root}") from None
        yield
