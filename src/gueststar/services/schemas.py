"""The schemas of the streams in the form of Confluent's Schema Registry, read-only.

Its clients ask ``/schemas/ids/<id>`` for the schema that a message names; the rest is for people and tools that look
round. What would write is refused (405). Errors have the registry's own codes.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gueststar.formats.schema_registry import REGISTERED, RegisteredSchema

_TYPE = "application/vnd.schemaregistry.v1+json"
_NO_SUBJECT, _NO_VERSION, _NO_SCHEMA, _BAD_VERSION = 40401, 40402, 40403, 42202


class RegistryError(Exception):
    """What the registry answers instead of a schema."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


async def registry_answer(_request: Request, problem: Exception) -> Response:
    """Return an error in the registry's form."""
    assert isinstance(problem, RegistryError)
    return _answer({"error_code": problem.code, "message": str(problem)}, status=problem.code // 100)


async def _subjects(_request: Request) -> Response:
    return _answer(sorted({schema.subject for schema in REGISTERED}))


async def _versions(request: Request) -> Response:
    return _answer([schema.version for schema in _of_subject(request)])


async def _version(request: Request) -> Response:
    return _answer(_described(_chosen(request)))


async def _version_schema(request: Request) -> Response:
    return Response(_chosen(request).text, media_type=_TYPE)


async def _by_id(request: Request) -> Response:
    return _answer({"schema": _with_id(request).text})


async def _by_id_schema(request: Request) -> Response:
    return Response(_with_id(request).text, media_type=_TYPE)


async def _id_versions(request: Request) -> Response:
    schema = _with_id(request)
    return _answer([{"subject": schema.subject, "version": schema.version}])


async def _types(_request: Request) -> Response:
    return _answer(["AVRO"])


async def _config(_request: Request) -> Response:
    return _answer({"compatibilityLevel": "FULL"})


async def _mode(_request: Request) -> Response:
    return _answer({"mode": "READONLY"})


SCHEMA_ROUTES = [
    Route("/subjects", _subjects),
    Route("/subjects/{subject}/versions", _versions),
    Route("/subjects/{subject}/versions/{version}", _version),
    Route("/subjects/{subject}/versions/{version}/schema", _version_schema),
    Route("/schemas/types", _types),
    Route("/schemas/ids/{id}", _by_id),
    Route("/schemas/ids/{id}/schema", _by_id_schema),
    Route("/schemas/ids/{id}/versions", _id_versions),
    Route("/config", _config),
    Route("/mode", _mode),
]
"""What of the registry's interface is served."""


def _of_subject(request: Request) -> list[RegisteredSchema]:
    subject = request.path_params["subject"]
    found = [schema for schema in REGISTERED if schema.subject == subject]
    if not found:
        raise RegistryError(_NO_SUBJECT, f"Subject '{subject}' not found.")
    return found


def _chosen(request: Request) -> RegisteredSchema:
    found, version = _of_subject(request), request.path_params["version"]
    if version in ("latest", "-1"):
        return found[-1]
    if not version.isdecimal() or int(version) < 1:
        raise RegistryError(_BAD_VERSION, f"The specified version '{version}' is not a valid version id.")
    for schema in found:
        if schema.version == int(version):
            return schema
    raise RegistryError(_NO_VERSION, f"Version {version} not found.")


def _with_id(request: Request) -> RegisteredSchema:
    number = request.path_params["id"]
    for schema in REGISTERED:
        if str(schema.id) == number:
            return schema
    raise RegistryError(_NO_SCHEMA, f"Schema {number} not found")


def _described(schema: RegisteredSchema) -> dict[str, Any]:
    return {"subject": schema.subject, "id": schema.id, "version": schema.version, "schema": schema.text}


def _answer(content: Any, *, status: int = 200) -> Response:
    return JSONResponse(content, status_code=status, media_type=_TYPE)
