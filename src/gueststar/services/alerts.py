"""Alert packets and their cut-outs over HTTP, by candid, and the schemas that messages name by number.

A packet that a reader may not see is answered like one that does not exist. The schemas are served in the form of
Confluent's Schema Registry, read-only, so that its clients decode the streams that embed none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gueststar.core.errors import DataError
from gueststar.formats.avro import decode_alert
from gueststar.formats.cutout_picture import stamp_png
from gueststar.formats.cutouts import decode_cutout, plain_cutout
from gueststar.model.readers import PacketNights, Scope
from gueststar.model.rights import Program
from gueststar.services.gate import Gate
from gueststar.services.schemas import SCHEMA_ROUTES, RegistryError, registry_answer
from gueststar.store.alerts.log import AlertLog
from gueststar.store.alerts.publication import Publication

_CUTOUTS = {"science": "cutoutScience", "template": "cutoutTemplate", "difference": "cutoutDifference"}
_FOREVER = "public, max-age=31536000, immutable"
"""A packet never changes; those that are not public are kept by nobody in between."""
_NOBODY = "private, no-store"
_LARGEST_ZOOM = 20


def alert_app(log: AlertLog, state: Publication, gate: Gate | None = None) -> Starlette:
    """Return the application that serves the packets of an alert log, and the schemas.

    What ``state`` says is held or dropped is not served: it left by no other way either. ``gate`` tells who asks, by
    his token; without it everybody is anonymous and nothing is released.
    """
    handlers = _Alerts(log, state, gate)
    return Starlette(
        routes=[
            Route("/alerts/{candid:int}.avro", handlers.packet),
            Route("/alerts/{candid:int}.json", handlers.told),
            Route("/alerts/{candid:int}/cutouts/{name}", handlers.cutout),
            *SCHEMA_ROUTES,
        ],
        exception_handlers={RegistryError: registry_answer, HTTPException: _problem, DataError: _damaged},
    )


class _Alerts:
    """Handlers over one alert log; it is read in a thread, as it reads files."""

    def __init__(self, log: AlertLog, state: Publication, gate: Gate | None) -> None:
        self._log, self._state, self._gate = log, state, gate

    async def packet(self, request: Request) -> Response:
        """Return a whole packet as it was sent."""
        data, program = await self._found(request)
        candid = request.path_params["candid"]
        return _kept(Response(data, media_type="avro/binary", headers=_named(f"{candid}.avro")), program)

    async def told(self, request: Request) -> Response:
        """Return a packet as JSON, its cut-outs left out; numbers longer than 53 bits are text."""
        data, program = await self._found(request)
        packet = await run_in_threadpool(decode_alert, data)
        told = {key: _for_browsers(value) for key, value in packet.items() if not key.startswith("cutout")}
        return _kept(JSONResponse(told), program)

    async def cutout(self, request: Request) -> Response:
        """Return one cut-out: as it is in the packet (fits.gz), unpacked (fits), or as a picture (png)."""
        kind, _, form = request.path_params["name"].partition(".")
        if kind not in _CUTOUTS or form not in ("fits", "fits.gz", "png"):
            raise HTTPException(404, f"no such cut-out: {', '.join(_CUTOUTS)} as fits, fits.gz or png")
        zoom = _zoom(request)
        data, program = await self._found(request)
        answer = await run_in_threadpool(_cutout_response, data, kind, form, zoom)
        return _kept(answer, program)

    async def _found(self, request: Request) -> tuple[bytes, Program]:
        """Return a packet that the reader may see, and the program that it was triggered in."""
        candid, nights = request.path_params["candid"], await self._nights(request)
        found = await run_in_threadpool(self._read, candid, nights) if candid < 1 << 63 else None
        if found is None:
            raise HTTPException(404, f"no alert {candid}")
        return found

    async def _nights(self, request: Request) -> PacketNights:
        """Return which packets whoever asks may take."""
        if self._gate is None:
            return PacketNights.of_programs([Program.PUBLIC])
        return (await self._gate.sight(request, Scope.ALERTS)).packet_nights()

    def _read(self, candid: int, nights: PacketNights) -> tuple[bytes, Program] | None:
        entry = self._log.find(candid, programs=nights)
        if entry is None or self._state.is_kept_back(candid):
            return None
        return self._log.read(entry), Program(entry.program)


def _cutout_response(data: bytes, kind: str, form: str, zoom: int) -> Response:
    packet = decode_alert(data)
    cutout = packet[_CUTOUTS[kind]]
    if cutout is None:
        raise HTTPException(404, f"alert {packet['candid']} has no {kind} cut-out")
    stamp, name = cutout["stampData"], f"{packet['candid']}_{kind}.{form}"
    if form == "png":
        picture = stamp_png(decode_cutout(stamp), is_difference=kind == "difference", zoom=zoom)
        return Response(picture, media_type="image/png")
    body = stamp if form == "fits.gz" else plain_cutout(stamp)
    media_type = "application/gzip" if form == "fits.gz" else "image/fits"
    return Response(body, media_type=media_type, headers=_named(name))


def _zoom(request: Request) -> int:
    text = request.query_params.get("zoom", "5")
    if not text.isdecimal() or not 1 <= int(text) <= _LARGEST_ZOOM:
        raise HTTPException(400, f"zoom is {text[:20]!r}, needs a number from 1 to {_LARGEST_ZOOM}")
    return int(text)


def _named(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}


def _kept(answer: Response, program: Program) -> Response:
    answer.headers["Cache-Control"] = _FOREVER if program is Program.PUBLIC else _NOBODY
    answer.headers["Vary"] = "Authorization"
    return answer


def _for_browsers(value: Any) -> Any:
    """Return a value whose long integers are text: a browser's numbers end at 2**53."""
    if isinstance(value, dict):
        return {key: _for_browsers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_for_browsers(item) for item in value]
    return str(value) if isinstance(value, int) and abs(value) > 1 << 53 else value


async def _problem(_request: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    return JSONResponse({"error": problem.detail}, status_code=problem.status_code, headers=problem.headers)


async def _damaged(_request: Request, problem: Exception) -> Response:
    """Answer what the log itself cannot read; its paths are nobody's business."""
    return JSONResponse({"error": "this alert cannot be read: tell the survey"}, status_code=500)


def open_alert_app(root: Path) -> Starlette:
    """Return the application of the repository at ``root``."""
    return alert_app(AlertLog(root), Publication(root), Gate(root))
