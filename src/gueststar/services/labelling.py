"""The labelling page: a small web server on this machine's loopback address."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from gueststar.core.errors import DataError
from gueststar.model.labels import ARTEFACT_KINDS, REAL_KINDS, DetectionKind
from gueststar.model.readers import Reader, Scope
from gueststar.services.gate import Gate
from gueststar.services.labelling_desk import LabellingDesk
from gueststar.services.labelling_queue import ANY, UNLABELLED, Choice, Order
from gueststar.services.web_server import LOOPBACK, serve
from gueststar.store.labels import LabelStore
from gueststar.store.visible import open_as, seen_by

KEYS: dict[DetectionKind, str] = {
    DetectionKind.TRANSIENT: "1", DetectionKind.TRANSIENT_IN_HOST: "2", DetectionKind.VARIABLE: "3",
    DetectionKind.MOVER: "4", DetectionKind.BRIGHT_STAR: "b", DetectionKind.COSMIC_RAY: "c", DetectionKind.GHOST: "g",
    DetectionKind.TRAIL: "t", DetectionKind.BAD_PIXEL: "p", DetectionKind.EDGE: "e", DetectionKind.DIPOLE: "d",
    DetectionKind.NOISE: "n",
}  # fmt: skip
"""Keys that label; u takes back, space skips, s shows the scores."""


def serve_labelling(
    root: Path, *, port: int, person: str, tell: Callable[[str], None], reader: str | None = None
) -> None:
    """Serve the page until it is interrupted, with what a ``reader`` may see (None: the operator); ``tell`` says where.

    The address holds a key that is drawn anew each time: other users of the machine reach the port, but not the page.
    Raises ConfigError if the port is taken.
    """
    with open_as(root, reader) as repo:
        desk = LabellingDesk(repo, LabelStore.of(root, repo.settings.database), person=person)
        progress, key, gate = desk.progress(), secrets.token_urlsafe(24), Gate(repo.root)
        app = labelling_app(desk, key=key, gate=gate)
        waiting = (
            f"{progress['waiting']} detections of the night {progress['night']} wait"
            if progress["night"]
            else "none waits"
        )
        serve(app, port=port, tell=lambda url: tell(f"{waiting}: {url}?key={key}"))
        gate.close()


def labelling_app(desk: LabellingDesk, *, key: str, gate: Gate | None = None) -> Starlette:
    """Return the application.

    It answers to the loopback names only, and to whom brings ``key`` (in the page's address, from then on in a cookie).
    It takes labels only with the token that its own page carries, so that no other page in the same browser can label.
    Programs may send a user's token instead (scope ``label``), where there is a ``gate``: they see what that user may
    see, and label in its name.
    """
    handlers = _Handlers(desk, token=secrets.token_urlsafe(16), key=key, gate=gate)
    return Starlette(
        routes=[
            Route("/", handlers.page),
            Route("/next", handlers.next),
            Route("/page", handlers.list_page),
            Route("/detections/{dia_source_id:int}", handlers.detection),
            Route("/detections/{dia_source_id:int}/cutouts.png", handlers.cutouts),
            Route("/detections/{dia_source_id:int}/label", handlers.label, methods=["POST"]),
            Route("/undo", handlers.undo, methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[LOOPBACK, "localhost"])],
        exception_handlers={DataError: _not_found},
    )


class _Handlers:
    """Handlers of the desks; a desk is asked in a thread, as it reads files and the database."""

    def __init__(self, desk: LabellingDesk, *, token: str, key: str, gate: Gate | None) -> None:
        self.desk, self.token, self.key, self.gate = desk, token, key, gate
        self._desks: dict[Reader, LabellingDesk] = {}

    async def page(self, request: Request) -> Response:
        """Return the page itself; with the key in its address, the page without it and a cookie."""
        import jinja2

        if self._is_key(request.query_params.get("key", "")):
            answer = RedirectResponse("/", status_code=303)
            answer.set_cookie(_cookie(request), self.key, httponly=True, samesite="strict")
            return answer
        await self._desk(request)

        text = (resources.files("gueststar.services") / "pages" / "labelling.html").read_text()
        kinds = [
            {"number": int(kind), "title": kind.title, "key": KEYS[kind], "is_real": kind.is_real}
            for kind in (*REAL_KINDS, *ARTEFACT_KINDS)
        ]
        template = jinja2.Environment(autoescape=True).from_string(text)
        shown = template.render(
            survey=self.desk.repo.settings.name,
            person=self.desk.person,
            token=self.token,
            kinds=kinds,
            orders=[order.value for order in Order],
            labels=[UNLABELLED, ANY, *(kind["title"] for kind in kinds)],
        )
        return HTMLResponse(shown, headers={"Content-Security-Policy": _POLICY})

    async def next(self, request: Request) -> Response:
        """Return the detection that is to be labelled next."""
        skipped = frozenset(int(key) for key in request.query_params.get("skipped", "").split(",") if key.isdigit())
        desk, choice = await self._desk(request), Choice.of(request.query_params)
        return await self._shown(desk, await run_in_threadpool(desk.next, choice, skipped=skipped))

    async def list_page(self, request: Request) -> Response:
        """Return one page of the detections that are asked for."""
        desk, choice = await self._desk(request), Choice.of(request.query_params)
        number = request.query_params.get("page", "1")
        page = partial(desk.page, choice, number=int(number) if number.isdigit() else 1)
        return JSONResponse(await run_in_threadpool(page))

    async def detection(self, request: Request) -> Response:
        """Return one detection."""
        return await self._shown(await self._desk(request), request.path_params["dia_source_id"])

    async def cutouts(self, request: Request) -> Response:
        """Return its cut-outs as a PNG."""
        desk = await self._desk(request)
        picture = await run_in_threadpool(desk.picture, request.path_params["dia_source_id"])
        return Response(picture, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})

    async def label(self, request: Request) -> Response:
        """Store a label, and return how many there are."""
        desk = await self._desk(request)
        if not self._is_own(request):
            return JSONResponse({"error": "reload the page"}, status_code=403)
        try:
            kind = DetectionKind((await request.json())["kind"])
        except (ValueError, KeyError, TypeError):
            return JSONResponse({"error": "no such class"}, status_code=400)
        key = request.path_params["dia_source_id"]
        await run_in_threadpool(desk.label, key, kind)
        return JSONResponse(await run_in_threadpool(lambda: desk.progress(Choice(night=desk.queue.find(key)[0].night))))

    async def undo(self, request: Request) -> Response:
        """Take the last label back and return whose it was."""
        desk = await self._desk(request)
        if not self._is_own(request):
            return JSONResponse({"error": "reload the page"}, status_code=403)
        return await self._shown(desk, await run_in_threadpool(desk.undo))

    async def _desk(self, request: Request) -> LabellingDesk:
        """Return the desk of whoever asks; HTTPException 401 for one who brings neither a key nor a token."""
        if "authorization" in request.headers and self.gate is not None:
            sight = await self.gate.sight(request, Scope.LABEL)
            if sight.reader not in self._desks:
                self._desks[sight.reader] = await run_in_threadpool(self._desk_of, sight.reader)
            return self._desks[sight.reader]
        if not self._is_key(request.cookies.get(_cookie(request), "")):
            raise HTTPException(401, "open the address that the command printed, with its key")
        return self.desk

    def _desk_of(self, reader: Reader) -> LabellingDesk:
        with_labels, clock = self.desk.labels, self.desk.clock
        return LabellingDesk(seen_by(self.desk.repo, reader), with_labels, person=reader.name, clock=clock)

    def _is_key(self, text: str) -> bool:
        return secrets.compare_digest(text.encode(), self.key.encode())

    def _is_own(self, request: Request) -> bool:
        """Return whether a request to change something comes from the page, or from a program with a token."""
        is_page = secrets.compare_digest(request.headers.get("x-labelling-token", "").encode(), self.token.encode())
        return is_page or (self.gate is not None and "authorization" in request.headers)

    async def _shown(self, desk: LabellingDesk, key: int | None) -> Response:
        """Return a detection as JSON; its number is text, as it is too long for a browser's numbers."""
        found: dict[str, Any] = {"id": None}
        if key is not None:
            facts, scores = await run_in_threadpool(lambda: (desk.facts(key), desk.scores(key)))
            found |= {"id": str(key), "facts": facts, "scores": scores}
        night = None if key is None else desk.queue.find(key)[0].night
        return JSONResponse(found | {"progress": await run_in_threadpool(desk.progress, Choice(night=night))})


_POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
)


def _cookie(request: Request) -> str:
    """Return the name of the cookie that holds the key: a browser shares cookies among the ports of a host."""
    return f"gueststar_labelling_{request.url.port}"


async def _not_found(_request: Request, problem: Exception) -> Response:
    return JSONResponse({"error": str(problem)}, status_code=404)
