"""The link from the camera: it drops raw files into a landing folder by a timetable, well or badly."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from gueststar.operations.drills.world import RawFile

How = Literal["rename", "slow", "torn", "twice"]
"""Renamed into place; written in two halves under its own name; only the first half arrives; the same file again
under another name."""


@dataclass(frozen=True)
class Delivery:
    """One file on its way."""

    at_s: float
    """When it arrives, seconds after the link was opened."""
    source: Path
    name: str
    """Its name in the landing folder."""
    how: How = "rename"
    pause_s: float = 0.5
    """Between the halves of a file that is written slowly."""


def timetable(
    files: Sequence[RawFile], *, begins: float, outage: tuple[int, int] | None = None, back_s: float = 0.0
) -> list[Delivery]:
    """Return when the files of a night arrive: a moment after the shutter; calibration frames at once.

    ``outage`` names the first and the one after the last science exposure (from 0) that wait until ``back_s``; then
    they come all together. ``begins`` is the Unix time at which the link is opened.
    """
    deliveries, n_science = [], 0
    for file in files:
        at_s = 0.0
        if file.is_science:
            at_s = max(file.shutter_closed - begins, 0.0)
            if outage and outage[0] <= n_science < outage[1]:
                at_s = max(back_s, at_s)
            n_science += 1
        deliveries.append(Delivery(at_s, file.path, file.path.name))
    return sorted(deliveries, key=lambda delivery: delivery.at_s)


def deliver(delivery: Delivery, landing: Path) -> None:
    """Bring one file into the landing folder."""
    target = landing / delivery.name
    if delivery.how == "torn":
        content = delivery.source.read_bytes()
        _renamed_into_place(content[: len(content) // 2], target)
    elif delivery.how == "slow":
        content = delivery.source.read_bytes()
        with target.open("wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            time.sleep(delivery.pause_s)
            file.write(content[len(content) // 2 :])
    else:
        names = (delivery.name, f"again_{delivery.name}") if delivery.how == "twice" else (delivery.name,)
        for name in names:
            _copied_into_place(delivery.source, landing / name)


class CameraLink(AbstractContextManager["CameraLink"]):
    """Delivers by a timetable, in a thread of its own, until it is closed."""

    def __init__(self, deliveries: Sequence[Delivery], landing: Path) -> None:
        self.landing = landing
        self._waiting = sorted(deliveries, key=lambda delivery: delivery.at_s)
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.n_delivered = 0
        self.delivered_at: dict[str, float] = {}
        """Name -> Unix time at which it was there."""

    def __enter__(self) -> CameraLink:
        self.landing.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def _run(self) -> None:
        opened = time.monotonic()
        for delivery in self._waiting:
            if self._is_closed.wait(max(opened + delivery.at_s - time.monotonic(), 0.0)):
                return
            self._deliver(delivery)

    def _deliver(self, delivery: Delivery) -> None:
        while not self._is_closed.is_set():
            try:
                deliver(delivery, self.landing)
            except OSError:  # the landing place is away or full: a link tries again
                self._is_closed.wait(0.2)
            else:
                self.n_delivered += 1
                self.delivered_at[delivery.name] = time.time()
                return

    @property
    def is_done(self) -> bool:
        """Whether everything has arrived."""
        return self.n_delivered == len(self._waiting)

    def wait(self, timeout_s: float) -> bool:
        """Wait until everything has arrived; return whether it has."""
        self._thread.join(timeout_s)
        return self.is_done

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_closed.set()
        self._thread.join(10.0)


def _renamed_into_place(content: bytes, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.part")
    temporary.write_bytes(content)
    os.replace(temporary, target)


def _copied_into_place(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.part")
    shutil.copyfile(source, temporary)
    os.replace(temporary, target)
