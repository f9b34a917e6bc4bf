"""News are pushed to the status page as they change, over real HTTP, to those who may see them, while they may."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.exceptions import HTTPException

from gueststar.core.errors import TransientError
from gueststar.services.pushes import events
from gueststar.services.status import status_app
from gueststar.stream.broker import free_ports


async def _nobody_minds() -> None:
    return None


def collected(ask: Callable[[], Any], n: int, admit: Callable[[], Any] = _nobody_minds) -> list[tuple[str, Any]]:
    async def collect() -> list[tuple[str, Any]]:
        found = []
        async for event in events(ask, admit, every_s=0.001):
            found.append((event.event, json.loads(event.data)))
            if len(found) == n:
                break
        return found

    return asyncio.run(asyncio.wait_for(collect(), 5.0))


def test_the_first_event_tells_all_and_those_after_it_what_changed() -> None:
    told = iter(
        [{"now": 1, "alarms": []}, {"now": 1, "alarms": []}, {"now": 3, "alarms": []}, {"now": 3, "alarms": [7]}]
    )
    found = collected(lambda: next(told), 3)
    assert found == [("facts", {"now": 1, "alarms": []}), ("changes", {"now": 3}), ("changes", {"alarms": [7]})]


def test_a_trouble_is_told_and_ends_nothing() -> None:
    answers = iter([TransientError("the database is away"), {"now": 1}])

    def ask() -> Any:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert collected(ask, 2) == [("trouble", {"error": "the database is away"}), ("facts", {"now": 1})]


def test_who_may_not_see_it_any_more_is_told_nothing_more() -> None:
    left = iter([True, True, False])

    async def admit() -> None:
        if not next(left):
            raise HTTPException(401, "the token has ended")

    numbers = iter(range(100))
    assert [event for event, _ in collected(lambda: {"now": next(numbers)}, 99, admit)] == ["facts", "changes"]


@contextmanager
def served(app: Any) -> Iterator[str]:
    (port,) = free_ports(1)
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", timeout_graceful_shutdown=2)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10.0)
        assert not thread.is_alive()


@pytest.fixture
def count() -> dict[str, Any]:
    return {"survey": "tiny", "now": 0}


@pytest.fixture
def address(count: dict[str, Any]) -> Iterator[str]:
    app = status_app(facts=lambda: dict(count), figures=lambda: (b"", "text/plain"), preview=lambda *_: None)
    with served(app) as address:
        yield address


def test_a_client_over_http_hears_of_a_change_without_asking_again(address: str, count: dict[str, Any]) -> None:
    heard = []
    with httpx.stream("GET", f"{address}/facts.events", timeout=10.0) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "no-store" in answer.headers["cache-control"]
        for line in answer.iter_lines():
            if line.startswith("data:"):
                heard.append(json.loads(line.removeprefix("data:")))
                count["now"] += 1
                if len(heard) == 2:
                    break
    assert heard == [{"survey": "tiny", "now": 0}, {"now": 1}]


def test_a_stranger_gets_no_stream(address: str) -> None:
    assert httpx.get(f"{address}/facts.events", headers={"X-Forwarded-For": "10.0.0.5"}).status_code == 401
    with httpx.stream("GET", f"{address}/facts.events", headers={"Authorization": "Bearer gst_x"}) as answer:
        assert answer.status_code == 401


def test_a_listener_does_not_keep_the_service_from_ending(count: dict[str, Any]) -> None:
    app = status_app(facts=lambda: dict(count), figures=lambda: (b"", "text/plain"), preview=lambda *_: None)
    with httpx.Client(timeout=10.0) as client, served(app) as address, client.stream("GET", f"{address}/facts.events"):
        begun = time.monotonic()
    assert time.monotonic() - begun < 9.0
