"""Whom a request comes from, and what he may see: the one place that every service asks."""

from __future__ import annotations

from starlette.requests import Request

from gueststar.model.rights import Program


def programs_of(request: Request) -> tuple[Program, ...]:
    """Return the programs whose alerts a request may see: anonymous requests see public ones."""
    return (Program.PUBLIC,)
