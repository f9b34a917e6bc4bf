"""Run an application of ours on a port until it is interrupted."""

from __future__ import annotations

import socket
from collections.abc import Callable

from starlette.types import ASGIApp

from gueststar.core.errors import ConfigError

LOOPBACK = "127.0.0.1"
GRACE_S = 10
"""Answers that are under way when it is interrupted have so long; those without an end are cut then."""


def serve(app: ASGIApp, *, host: str = LOOPBACK, port: int = 0, tell: Callable[[str], None]) -> None:
    """Serve until interrupted; ``tell`` hears the address (port 0: a free one). ConfigError if it cannot be taken."""
    import uvicorn

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as problem:
            reason = problem.strerror or problem
            raise ConfigError(f"{host} port {port} cannot be listened to ({reason}): choose another") from problem
        shown = f"[{host}]" if ":" in host else host
        tell(f"http://{shown}:{listening.getsockname()[1]}/")
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_S)
        uvicorn.Server(config).run(sockets=[listening])
