"""A real Kafka for tests, and packets to send to it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gueststar.model.detections import OutboxAlert
from gueststar.stream.broker import LocalBroker

NIGHT = 20260101


@contextmanager
def running_broker(root: Path, *, is_secure: bool = False) -> Iterator[LocalBroker]:
    """Run the broker of a repository's folder; skip where its programs are missing."""
    for program, package in (("java", "openjdk-17-jre-headless"), ("mvn", "maven")):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} to run Kafka with: apt-get install {package}")
    broker = LocalBroker(root)
    broker.start(is_secure=is_secure)
    try:
        yield broker
    finally:
        broker.stop()


def packets(n: int, *, first: int = 1, size: int = 20_000, program: int = 1, night: int = NIGHT) -> list[OutboxAlert]:
    """Return packets that differ, of about a real one's size; zstd cannot shrink their insides."""
    return [
        OutboxAlert(candid, f"GST26{candid:07d}", night, program, candid.to_bytes(8, "big") + os.urandom(size))
        for candid in range(first, first + n)
    ]
