"""A network of its own for a process of a rehearsal, which can be cut off and joined again (it takes root)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gueststar.core.errors import ConfigError

OUTSIDE, INSIDE = "10.213.7.1", "10.213.7.2"
"""Addresses of the two ends of the cable; of a range for private use."""


@dataclass(frozen=True)
class Namespace:
    """A network namespace, joined to ours by a cable."""

    name: str
    cable: str

    def command(self, words: list[str]) -> list[str]:
        """Return a command that runs within it."""
        return ["ip", "netns", "exec", self.name, *words]

    def cut(self) -> None:
        """Unplug the cable: nothing is told to either side."""
        _ip("link", "set", self.cable, "down")

    def join(self) -> None:
        """Plug it in again."""
        _ip("link", "set", self.cable, "up")


@contextmanager
def namespace() -> Iterator[Namespace]:
    """Make a network namespace; ConfigError where we may not."""
    name = f"gsdrill{os.getpid() % 10000}"
    made = Namespace(name, f"{name}a")
    inner = f"{name}b"
    try:
        _ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError) as problem:
        said = getattr(problem, "stderr", "") or problem
        raise ConfigError(f"a network of its own cannot be made (it takes root and iproute2): {said}") from None
    try:
        _ip("link", "add", made.cable, "type", "veth", "peer", "name", inner)
        _ip("link", "set", inner, "netns", name)
        _ip("addr", "add", f"{OUTSIDE}/30", "dev", made.cable)
        _ip("link", "set", made.cable, "up")
        _ip("-n", name, "addr", "add", f"{INSIDE}/30", "dev", inner)
        for device in (inner, "lo"):
            _ip("-n", name, "link", "set", device, "up")
        yield made
    finally:
        for words in (("netns", "del", name), ("link", "del", made.cable)):
            subprocess.run(["ip", *words], capture_output=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
