"""The labelling page: a small web server on this machine's loopback address."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from gueststar.core.errors import DataError
from gueststar.model.labels import ARTEFACT_KINDS, REAL_KINDS, DetectionKind
from gueststar.services.labelling_desk import LabellingDesk
from gueststar.services.web_server import LOOPBACK, serve
from gueststar.store.labels import LabelStore
from gueststar.store.repo import SurveyRepo

KEYS: dict[DetectionKind, str] = {
    DetectionKind.TRANSIENT: "1", DetectionKind.TRANSIENT_IN_HOST: "2", DetectionKind.VARIABLE: "3",
    DetectionKind.MOVER: "4", DetectionKind.BRIGHT_STAR: "b", DetectionKind.COSMIC_RAY: "c", DetectionKind.GHOST: "g",
    DetectionKind.TRAIL: "t", DetectionKind.BAD_PIXEL: "p", DetectionKind.EDGE: "e", DetectionKind.DIPOLE: "d",
    DetectionKind.NOISE: "n",
}  # fmt: skip
"""Keys that label; u takes back, space skips, s shows the scores."""


def serve_labelling(root: Path, *, port: int, person: str, tell: Callable[[str], None]) -> None:
    """Serve the page until it is interrupted; ``tell`` says where. ConfigError if the port is taken."""
    with SurveyRepo.open(root) as repo:
        desk = LabellingDesk(repo, LabelStore.of(root, repo.settings.database), person=person)
        waiting = desk.progress()["waiting"]
        serve(labelling_app(desk), port=port, tell=lambda url: tell(f"{waiting} detections wait at {url}"))


def labelling_app(desk: LabellingDesk) -> Starlette:
    """Return the application.

    It answers to the loopback names only, and takes labels only with the token that its own page carries, so that no
    other page in the same browser can label.
    """
    token = secrets.token_urlsafe(16)
    handlers = _Handlers(desk, token)
    return Starlette(
        routes=[
            Route("/", handlers.page),
            Route("/next", handlers.next),
            Route("/detections/{dia_source_id:int}", handlers.detection),
            Route("/detections/{dia_source_id:int}/cutouts.png", handlers.cutouts),
            Route("/detections/{dia_source_id:int}/label", handlers.label, methods=["POST"]),
            Route("/undo", handlers.undo, methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[LOOPBACK, "localhost"])],
        exception_handlers={DataError: _not_found},
    )


class _Handlers:
    """Handlers of one desk; the desk is asked in a thread, as it reads files and the database."""

    def __init__(self, desk: LabellingDesk, token: str) -> None:
        self.desk, self.token = desk, token

    async def page(self, _request: Request) -> Response:
        """Return the page itself."""
        import jinja2

        text = (resources.files("gueststar.services") / "pages" / "labelling.html").read_text()
        kinds = [
            {"number": int(kind), "title": kind.title, "key": KEYS[kind], "is_real": kind.is_real}
            for kind in (*REAL_KINDS, *ARTEFACT_KINDS)
        ]
        template = jinja2.Environment(autoescape=True).from_string(text)
        shown = template.render(
            survey=self.desk.repo.settings.name, person=self.desk.person, token=self.token, kinds=kinds
        )
        return HTMLResponse(shown, headers={"Content-Security-Policy": _POLICY})

    async def next(self, request: Request) -> Response:
        """Return the detection that is to be labelled next."""
        skipped = frozenset(int(key) for key in request.query_params.get("skipped", "").split(",") if key.isdigit())
        key = await run_in_threadpool(self.desk.next, skipped=skipped)
        return await self._shown(key)

    async def detection(self, request: Request) -> Response:
        """Return one detection."""
        return await self._shown(request.path_params["dia_source_id"])

    async def cutouts(self, request: Request) -> Response:
        """Return its cut-outs as a PNG."""
        picture = await run_in_threadpool(self.desk.picture, request.path_params["dia_source_id"])
        return Response(picture, media_type="image/png", headers={"Cache-Control": "max-age=3600"})

    async def label(self, request: Request) -> Response:
        """Store a label, and return how many there are."""
        if not self._is_own(request):
            return JSONResponse({"error": "reload the page"}, status_code=403)
        try:
            kind = DetectionKind((await request.json())["kind"])
        except (ValueError, KeyError, TypeError):
            return JSONResponse({"error": "no such class"}, status_code=400)
        await run_in_threadpool(self.desk.label, request.path_params["dia_source_id"], kind)
        return JSONResponse(await run_in_threadpool(self.desk.progress))

    async def undo(self, request: Request) -> Response:
        """Take the last label back and return whose it was."""
        if not self._is_own(request):
            return JSONResponse({"error": "reload the page"}, status_code=403)
        return await self._shown(await run_in_threadpool(self.desk.undo))

    def _is_own(self, request: Request) -> bool:
        return secrets.compare_digest(request.headers.get("x-labelling-token", ""), self.token)

    async def _shown(self, key: int | None) -> Response:
        """Return a detection as JSON; its number is text, as it is too long for a browser's numbers."""
        found: dict[str, Any] = {"id": None, "progress": await run_in_threadpool(self.desk.progress)}
        if key is not None:
            facts, scores = await run_in_threadpool(lambda: (self.desk.facts(key), self.desk.scores(key)))
            found |= {"id": str(key), "facts": facts, "scores": scores}
        return JSONResponse(found)


_POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
)


async def _not_found(_request: Request, problem: Exception) -> Response:
    return JSONResponse({"error": str(problem)}, status_code=404)
