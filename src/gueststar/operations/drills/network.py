"""Machines that are not there: network namespaces of this one on a bridge, whose cables can be pulled.

Takes root and the program ``ip`` (Debian: iproute2).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Network:
    """A bridge with namespaces on it; this machine is on it as well."""

    name: str
    """At most eight characters."""
    prefix: str
    """First three numbers of the addresses: 10.117.3."""
    machines: dict[str, str] = field(default_factory=dict)
    """Name of a machine -> its address."""

    @property
    def here(self) -> str:
        """The address of this machine."""
        return f"{self.prefix}.1"

    def add(self, machine: str) -> str:
        """Add a machine with a cable to the bridge; return its address."""
        number = len(self.machines) + 2
        space, near, far = f"{self.name}-{machine}", f"{self.name}{number}", f"{self.name}{number}f"
        self.machines[machine] = f"{self.prefix}.{number}"
        _ip("netns", "add", space)
        _ip("link", "add", near, "type", "veth", "peer", "name", far)
        _ip("link", "set", near, "master", self.name, "up")
        _ip("link", "set", far, "netns", space)
        _ip("-n", space, "addr", "add", f"{self.prefix}.{number}/24", "dev", far)
        _ip("-n", space, "link", "set", far, "up")
        _ip("-n", space, "link", "set", "lo", "up")
        return self.machines[machine]

    def start(self, machine: str, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a program on a machine."""
        return subprocess.Popen(["ip", "netns", "exec", f"{self.name}-{machine}", *command], **options)

    def cut(self, machine: str) -> None:
        """Pull a machine's cable: nothing arrives, and nobody is told."""
        _ip("link", "set", self._cable(machine), "down")

    def mend(self, machine: str) -> None:
        """Put the cable back."""
        _ip("link", "set", self._cable(machine), "up")

    def _cable(self, machine: str) -> str:
        return f"{self.name}{self.machines[machine].rsplit('.', 1)[1]}"


def why_not() -> str:
    """Return why there can be no such network here; empty: there can."""
    if os.geteuid() != 0:
        return "network namespaces take root"
    if shutil.which("ip") is None:
        return "no program ip: apt-get install iproute2"
    probe = f"gs{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if made.returncode != 0:
        return f"no network namespaces here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", probe], capture_output=True)
    return ""


@contextmanager
def network(*, name: str | None = None, prefix: str | None = None) -> Iterator[Network]:
    """Make a network for the body of a ``with`` statement; end what was started on it before that."""
    number = os.getpid() % 60_000
    made = Network(name or f"gs{number}", prefix or f"10.{number // 250}.{number % 250}")
    _ip("link", "add", made.name, "type", "bridge")
    try:
        _ip("addr", "add", f"{made.here}/24", "dev", made.name)
        _ip("link", "set", made.name, "up")
        yield made
    finally:
        for machine in made.machines:
            _ip("link", "del", made._cable(machine), is_needed=False)
            _ip("netns", "del", f"{made.name}-{machine}", is_needed=False)
        _ip("link", "del", made.name, is_needed=False)


def _ip(*words: str, is_needed: bool = True) -> None:
    subprocess.run(["ip", *words], check=is_needed, capture_output=True, timeout=30)
