"""Who asks: the one place where HTTP services learn for whose eyes they answer.

``Authorization: Bearer gst_...`` names a user by a token (RFC 6750); without it everybody's eyes are meant. Tokens are
taken from that header only, never from an address, and are not logged.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request

from gueststar.core import times
from gueststar.core.errors import AccessDenied, OutOfScope
from gueststar.model.readers import ANONYMOUS, Scope, Sight
from gueststar.store.readers import ReaderStore, User, reader_of, sight_of
from gueststar.store.settings import SurveySettings, read_settings

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="gueststar"'}


@dataclass(frozen=True)
class GateConfig:
    """How patient the gate is."""

    most_failures: int = 10
    """Wrong tokens from one address after which new ones are not looked at."""
    within_s: float = 60.0
    """Time after which a wrong token is forgotten."""
    remembered: int = 1000
    """Tokens whose secret was found right, so that only their validity is looked up again."""


class Gate:
    """Tells for whose eyes requests to one survey's services are."""

    def __init__(
        self, root: Path, *, config: GateConfig = GateConfig(), clock: Callable[[], float] = times.now_mjd_tai,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._path, self.config, self._clock, self._monotonic = root / "survey.yaml", config, clock, monotonic
        self._settings, self._written = read_settings(self._path), self._path.stat().st_mtime_ns
        self._store = ReaderStore.of(root, self._settings.database)
        self._right: dict[bytes, str] = {}
        self._failures: defaultdict[str, deque[float]] = defaultdict(deque)
        self._one_at_a_time = threading.Lock()

    def close(self) -> None:
        """Close the connections to the users."""
        self._store.close()

    async def sight(self, request: Request, scope: Scope) -> Sight:
        """Return what whoever asks may see now.

        Raises HTTPException: 401 for a token that is not valid, 403 for one that is not good for ``scope``, 429 after
        too many wrong ones from one address.
        """
        header = request.headers.get("authorization")
        address = request.client.host if request.client else ""
        return await run_in_threadpool(self.sight_of_header, header, scope, address=address)

    def sight_of_header(self, header: str | None, scope: Scope, *, address: str = "") -> Sight:
        """Return what the sender of an Authorization header may see; errors as `sight`."""
        settings = self._current_settings()
        if header is None:
            return sight_of(settings, ANONYMOUS, at_mjd_tai=self._clock())
        user = self._holder(header, scope, address)
        return sight_of(settings, reader_of(settings, user), at_mjd_tai=self._clock())

    async def member(self, header: str, group: str, scope: Scope, *, address: str = "") -> str:
        """Return the name of the sender of an Authorization header, if he is in a group of users; errors as `sight`.

        HTTPException 403 for a user who is not.
        """
        user = await run_in_threadpool(self._holder, header, scope, address)
        if group not in user.groups or group not in self._current_settings().groups:
            raise HTTPException(403, f"this is for users in the group {group}")
        return user.name

    def _holder(self, header: str, scope: Scope, address: str) -> User:
        """Return whose token a header brings; HTTPException 401 or 403 for one that is not good for this."""
        kind, _, token = header.partition(" ")
        if kind.lower() != "bearer":
            raise HTTPException(401, "send a token: Authorization: Bearer gst_...", headers=_CHALLENGE)
        try:
            number = self._verified(token.strip(), address)
            return self._store.holder(number, scope=scope, at_mjd_tai=self._clock())
        except OutOfScope as problem:
            raise HTTPException(403, str(problem)) from None
        except AccessDenied as problem:
            raise HTTPException(401, str(problem), headers=_CHALLENGE) from None

    def _verified(self, token: str, address: str) -> str:
        """Return the number of a token whose secret is right; slow for those not seen before, one at a time."""
        mark = hashlib.sha256(token.encode()).digest()
        if mark in self._right:
            return self._right[mark]
        with self._one_at_a_time:
            self._check_patience(address)
            try:
                number = self._store.verified(token)
            except AccessDenied:
                self._failures[address].append(self._monotonic())
                raise
            if len(self._right) >= self.config.remembered:
                self._right.clear()
            self._right[mark] = number
        return number

    def _check_patience(self, address: str) -> None:
        now, recent = self._monotonic(), self._failures[address]
        while recent and recent[0] < now - self.config.within_s:
            recent.popleft()
        if len(recent) >= self.config.most_failures:
            wait = f"{self.config.within_s:.0f}"
            raise HTTPException(429, "too many wrong tokens: wait a minute", headers={"Retry-After": wait})

    def _current_settings(self) -> SurveySettings:
        """Return survey.yaml as it is now: groups and releases count from the moment they are written."""
        written = self._path.stat().st_mtime_ns
        if written != self._written:
            self._settings, self._written = read_settings(self._path), written
        return self._settings
