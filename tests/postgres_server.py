"""A real PostgreSQL server of a test's own; the test is skipped where none is installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from gueststar.core.errors import ConfigError
from gueststar.operations.drills.servers import PostgresServer, running_postgres

__all__ = ["PostgresServer", "running_server"]


@contextmanager
def running_server() -> Iterator[PostgresServer]:
    """Make a server and run it; skip the test where that cannot be done."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(running_postgres())
        except ConfigError as problem:
            pytest.skip(str(problem))
        yield server
