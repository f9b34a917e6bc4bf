"""Facts that are pushed as they change: server-sent events, of which the first tells all and others what changed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from gueststar.core.errors import DataError, TransientError

EVERY_S = 2.0
"""Facts are looked at this often while somebody listens."""
PING_S = 15
"""A line without meaning is sent this often, so that what lies between does not take the connection for dead."""
_ALL, _CHANGES, _TROUBLE = "facts", "changes", "trouble"

Ask = Callable[[], Mapping[str, Any]]
Admit = Callable[[], Awaitable[None]]


def push(ask: Ask, admit: Admit, *, headers: Mapping[str, str], every_s: float = EVERY_S) -> EventSourceResponse:
    """Return the answer that pushes what ``ask`` returns, JSON-able values by name.

    ``admit`` raises HTTPException for who may not see it (any more): it is asked before each look, and the stream ends.
    """
    return EventSourceResponse(events(ask, admit, every_s=every_s), headers=dict(headers), ping=PING_S)


async def events(ask: Ask, admit: Admit, *, every_s: float) -> AsyncIterator[ServerSentEvent]:
    """Yield ``facts`` (all of them), then ``changes`` (what changed), and ``trouble`` while they cannot be had."""
    known: dict[str, str] | None = None
    while True:
        try:
            await admit()
            told = {name: json.dumps(value) for name, value in (await run_in_threadpool(ask)).items()}
        except HTTPException:
            return
        except (DataError, TransientError) as problem:
            yield ServerSentEvent(event=_TROUBLE, data=json.dumps({"error": str(problem)}))
        else:
            changed = {name: text for name, text in told.items() if known is None or known.get(name) != text}
            if changed:
                yield ServerSentEvent(event=_CHANGES if known else _ALL, data=_joined(changed))
            known = told
        await asyncio.sleep(every_s)


def _joined(values: Mapping[str, str]) -> str:
    """Return values that are JSON already as one object."""
    return "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in values.items()) + "}"
