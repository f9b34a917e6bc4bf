"""The live status of a survey: a page to which news are pushed, previews of images, figures for Prometheus.

It is the operator's. Over loopback it is shown to processes of the operator's own user; anybody else brings the token
of a user in the operators' group, as a bearer token or, from a browser, as the password that it asks for.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections.abc import Callable
from functools import partial
from importlib import resources
from typing import Any

import jinja2
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from gueststar.core.errors import DataError, TransientError
from gueststar.model.readers import Scope
from gueststar.services.gate import Gate
from gueststar.services.peers import is_own
from gueststar.services.pushes import push

PREVIEWS = ("science", "reference", "difference")

_POLICY = (
    "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_BY_PROXY = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
"""Headers of a request that somebody else passes on: such a one is not from this machine."""

_NOBODY_KEEPS = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}


class Door:
    """Lets those in who may see the state of operation."""

    def __init__(self, open_gate: Callable[[], Gate] | None, group: str) -> None:
        self._open_gate, self._group = open_gate, group
        self._gate: Gate | None = None

    async def admit(self, request: Request, *, is_for_every_local: bool = False) -> None:
        """Return if whoever asks may see it; HTTPException 401, 403 or 429 if not.

        ``is_for_every_local``: over loopback other users of this machine may as well.
        """
        header = _bearer(request.headers.get("authorization"))
        if header is None and _is_local(request):
            assert request.client is not None
            if is_for_every_local or await run_in_threadpool(is_own, request.client.host, request.client.port):
                return
        if header is None or self._open_gate is None:
            challenge = {"WWW-Authenticate": 'Basic realm="gueststar: any name, and your token as the password"'}
            raise HTTPException(401, f"this is for the operator and the group {self._group}", headers=challenge)
        if self._gate is None:  # not before: the page is there while the database, where users are, is not
            self._gate = await run_in_threadpool(self._open_gate)
        address = request.client.host if request.client else ""
        await self._gate.member(header, self._group, Scope.WATCH, address=address)


class _Status:
    """Handlers; what they show is asked for in a thread, as it reads files and the database."""

    def __init__(
        self, facts: Callable[[], dict[str, Any]], figures: Callable[[], tuple[bytes, str]],
        preview: Callable[[int, int, str], bytes | None], door: Door,
    ) -> None:  # fmt: skip
        self._facts, self._figures, self._preview, self._door = facts, figures, preview, door
        text = (resources.files("gueststar.services") / "pages" / "status.html").read_text()
        self._page = jinja2.Environment(autoescape=True).from_string(text)

    async def page(self, request: Request) -> Response:
        """Return the page; it asks for the rest itself."""
        await self._door.admit(request)
        facts = await run_in_threadpool(self._facts)
        shown = self._page.render(survey=facts["survey"], facts=facts)
        return HTMLResponse(shown, headers={"Content-Security-Policy": _POLICY, **_NOBODY_KEEPS})

    async def facts(self, request: Request) -> Response:
        """Return the facts as JSON; numbers of exposures are text, as they are too long for a browser's."""
        await self._door.admit(request)
        return JSONResponse(await run_in_threadpool(self._facts), headers=_NOBODY_KEEPS)

    async def pushed(self, request: Request) -> Response:
        """Return the facts as events that go on: all, then what changed, as long as whoever asks may see them."""
        await self._door.admit(request)
        return push(self._facts, partial(self._door.admit, request), headers=_NOBODY_KEEPS)

    async def preview(self, request: Request) -> Response:
        """Return a small picture of an image."""
        await self._door.admit(request)
        kind = request.path_params["kind"]
        if kind not in PREVIEWS:
            raise HTTPException(404, f"no such picture: {', '.join(PREVIEWS)}")
        exposure, detector = request.path_params["exposure"], request.path_params["detector"]
        picture = await run_in_threadpool(self._preview, exposure, detector, kind) if exposure < 1 << 63 else None
        if picture is None:
            raise HTTPException(404, f"exposure {exposure} detector {detector} has no {kind} image")
        headers = {**_NOBODY_KEEPS, "Cache-Control": "private, max-age=300"}
        return Response(picture, media_type="image/png", headers=headers)

    async def figures(self, request: Request) -> Response:
        """Return figures for Prometheus: numbers only, no exposure is named."""
        await self._door.admit(request, is_for_every_local=True)
        text, kind = await run_in_threadpool(self._figures)
        return Response(text, headers={"Content-Type": kind, **_NOBODY_KEEPS})


def status_app(
    *, facts: Callable[[], dict[str, Any]], figures: Callable[[], tuple[bytes, str]],
    preview: Callable[[int, int, str], bytes | None], open_gate: Callable[[], Gate] | None = None,
    group: str = "operators",
) -> Starlette:  # fmt: skip
    """Return the application that shows what ``facts`` returns, as JSON-able values, and what ``figures`` says.

    ``preview`` returns the picture of an exposure's detector image of one of the kinds in `PREVIEWS`, or None. Without
    ``open_gate``, which opens the gate when it is first needed, nobody but this machine's own user sees anything.
    """
    handlers = _Status(facts, figures, preview, Door(open_gate, group))
    return Starlette(
        routes=[
            Route("/", handlers.page),
            Route("/facts.json", handlers.facts),
            Route("/facts.events", handlers.pushed),
            Route("/metrics", handlers.figures),
            Route("/previews/{exposure:int}/{detector:int}/{kind}.png", handlers.preview),
        ],
        exception_handlers={HTTPException: _problem, DataError: _not_now, TransientError: _not_now},
    )


def _is_local(request: Request) -> bool:
    """Return whether a request comes from this machine, to this machine's name, and through nobody else."""
    if request.client is None or any(name in request.headers for name in _BY_PROXY):
        return False
    host = request.url.hostname or ""
    try:
        named = host == "localhost" or ipaddress.ip_address(host).is_loopback
        return named and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:  # a name that leads here from elsewhere
        return False


def _bearer(header: str | None) -> str | None:
    """Return an Authorization header as one that brings a token: browsers send it as a password."""
    if header is None or not header.lower().startswith("basic "):
        return header
    try:
        _, _, token = base64.b64decode(header.partition(" ")[2], validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "Bearer -"
    return f"Bearer {token}"


async def _problem(_request: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    headers = {**(problem.headers or {}), **_NOBODY_KEEPS}
    if problem.status_code == 401:  # a browser asks for the token then
        headers["WWW-Authenticate"] = 'Basic realm="gueststar: any name, and your token as the password"'
    return JSONResponse({"error": problem.detail}, status_code=problem.status_code, headers=headers)


async def _not_now(_request: Request, problem: Exception) -> Response:
    return JSONResponse({"error": str(problem)}, status_code=503, headers=_NOBODY_KEEPS)
