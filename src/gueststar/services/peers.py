"""Who of this machine's users is at the other end of a connection over loopback."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from pathlib import Path


def is_own(host: str, port: int) -> bool:
    """Return whether a client at a loopback address and port is a process of this process's user, or of root.

    Where the system does not tell (it is no Linux) every client on loopback is taken for our own.
    """
    address = ipaddress.ip_address(host)
    mapped = getattr(address, "ipv4_mapped", None)
    if not (mapped or address).is_loopback:
        return False
    owner = _owner_of(mapped or address, port)
    return owner is None or owner in (0, os.getuid())


def _owner_of(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> int | None:
    """Return the user of a socket of this machine; None where the system does not tell."""
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    if not tables[0].exists():
        return None
    wanted = {f"{form}:{port:04X}" for form in _forms(address)}
    for table in tables:
        if not table.exists():
            continue
        for line in table.read_text().splitlines()[1:]:
            columns = line.split()
            if columns[1] in wanted:
                return int(columns[7])
    return -1  # it is gone already: nobody's


def _forms(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[str]:
    """Return how the system writes an address: words of 32 bits in the order of this machine."""
    packed = address.packed
    forms = [packed] if address.version == 6 else [packed, socket.inet_pton(socket.AF_INET6, f"::ffff:{address}")]
    return ["".join(f"{word:08X}" for word in struct.unpack(f"={len(form) // 4}I", form)) for form in forms]
