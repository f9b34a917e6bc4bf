"""systemd: unit files that keep a survey's processes running, and what a process tells of itself."""

from __future__ import annotations

import os
import pwd
import re
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gueststar.core.errors import ConfigError
from gueststar.formats.atomic import appearing_whole
from gueststar.store.operation_settings import OperationSettings

WATCHDOG_S = 180
"""An operator that has said nothing for so long is ended and started again."""


def notify(state: str) -> bool:
    """Tell systemd how this process fares: READY=1, WATCHDOG=1, STOPPING=1, RELOADING=1, STATUS=in words.

    Several may be told at once, on lines of their own. False where nobody listens: without systemd this does nothing.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]  # an abstract socket
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as listening:
            listening.setblocking(False)
            listening.connect(address)
            listening.sendall(state.encode())
    except OSError:
        return False
    return True


def watchdog_s() -> float | None:
    """Return within how many seconds systemd wants to hear WATCHDOG=1; None where it does not."""
    text, owner = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", str(os.getpid()))
    return int(text) / 1e6 if text.isdigit() and owner == str(os.getpid()) else None


@dataclass(frozen=True)
class Services:
    """What unit files are made from."""

    root: Path
    """The repository."""
    survey: str
    operation: OperationSettings
    is_user: bool = False
    """For the service manager of a user, not of the machine."""
    user: str | None = None
    """Whose processes they are, with the machine's manager; None: the owner of the repository."""
    python: str = sys.executable
    status_port: int = 8081
    alerts_port: int = 8080

    @property
    def prefix(self) -> str:
        """What the names of all units begin with."""
        return "gueststar-" + (re.sub(r"[^A-Za-z0-9_.]+", "-", self.survey).strip("-") or "survey")


def unit_files(services: Services) -> dict[str, str]:
    """Return name -> content: operator, status page, alert service, the watch beside them, and all of them together."""
    name = services.prefix
    return {
        f"{name}-operator.service": _operator(services),
        f"{name}-status.service": _server(services, "status page", "status", "--serve", services.status_port),
        f"{name}-alerts.service": _server(services, "alert service", "serve", "", services.alerts_port),
        f"{name}-watch.service": _watch(services),
        f"{name}-watch.timer": _timer(services),
        f"{name}.target": _target(services),
    }


def folder_of(services: Services) -> Path:
    """Return where the unit files belong."""
    return Path.home() / ".config/systemd/user" if services.is_user else Path("/etc/systemd/system")


def next_steps(services: Services) -> list[str]:
    """Return the commands by which the units are taken into use."""
    manager = "systemctl --user" if services.is_user else "systemctl"
    steps = [f"{manager} daemon-reload", f"{manager} enable --now {services.prefix}.target"]
    if services.is_user:
        steps.append("loginctl enable-linger  # so that they run without anybody logged in")
    return steps


def _operator(services: Services) -> str:
    return _written(
        ("Unit", [
            f"Description=gueststar: operator of {_words(services.survey)}",
            f"PartOf={services.prefix}.target",
            "Wants=network-online.target",
            "After=network-online.target remote-fs.target time-sync.target postgresql.service",
            "# A survey's operator is started again however often it ended: the night goes on.",
            "StartLimitIntervalSec=0",
        ]),
        ("Service", [
            "Type=notify",
            "NotifyAccess=main",
            f"ExecStart={_command(services, 'operate')}",
            "ExecReload=/bin/kill -HUP $MAINPID",
            f"WatchdogSec={WATCHDOG_S}",
            "Restart=always",
            "RestartSec=5",
            "# SIGTERM goes to the operator alone, which lets its workers finish; what is left then is ended.",
            "KillMode=mixed",
            "TimeoutStartSec=600",
            "TimeoutStopSec=300",
            "# A worker that the system ends for its memory is replaced; the operator stays.",
            "OOMPolicy=continue",
            *_common(services),
        ]),
        ("Install", [f"WantedBy={services.prefix}.target"]),
    )  # fmt: skip


def _server(services: Services, what: str, verb: str, option: str, port: int) -> str:
    options = [*([option] if option else []), "--port", str(port)]
    return _written(
        ("Unit", [
            f"Description=gueststar: {what} of {_words(services.survey)}",
            f"PartOf={services.prefix}.target",
            "After=network.target",
            "StartLimitIntervalSec=0",
        ]),
        ("Service", [
            "Type=exec",
            f"ExecStart={_command(services, verb, *options)}",
            "Restart=always",
            "RestartSec=10",
            "KillMode=mixed",
            "KillSignal=SIGINT",
            "TimeoutStopSec=15",
            *_common(services),
        ]),
        ("Install", [f"WantedBy={services.prefix}.target"]),
    )  # fmt: skip


def _watch(services: Services) -> str:
    command = _command(services, "alarm check", "")
    return _written(
        ("Unit", [f"Description=gueststar: look at {_words(services.survey)} from outside its operator"]),
        ("Service", ["Type=oneshot", f"ExecStart={command}", "TimeoutStartSec=120", "Nice=5", *_common(services)]),
    )


def _timer(services: Services) -> str:
    return _written(
        ("Unit", [
            f"Description=gueststar: when to look at {_words(services.survey)}",
            f"PartOf={services.prefix}.target",
        ]),
        ("Timer", ["OnActiveSec=2min", "OnUnitActiveSec=10min", "AccuracySec=30s"]),
        ("Install", [f"WantedBy={services.prefix}.target"]),
    )  # fmt: skip


def _target(services: Services) -> str:
    wanted = "default.target" if services.is_user else "multi-user.target"
    return _written(
        ("Unit", [f"Description=gueststar: the survey {_words(services.survey)}"]),
        ("Install", [f"WantedBy={wanted}"]),
    )


def _common(services: Services) -> Iterator[str]:
    """Yield what all processes have: whose they are, where, and what they may touch."""
    root = services.root
    if not services.is_user:
        yield f"User={services.user or pwd.getpwuid(root.stat().st_uid).pw_name}"
    yield f"WorkingDirectory={_path(root)}"
    yield "# Passwords (GUESTSTAR_MAIL_PASSWORD=...): a file that only its owner reads."
    yield f"EnvironmentFile=-{_path(root / 'operator/environment')}"
    yield "Environment=OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1"
    yield "UMask=0027"
    yield from (f"{name}=yes" for name in _ALWAYS)
    yield "SystemCallArchitectures=native"
    if services.is_user:  # a user's manager cannot take more away
        return
    yield from (f"{name}=yes" for name in _MACHINE)
    yield "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK"
    yield "CapabilityBoundingSet="
    yield "ProtectSystem=strict"
    yield "ProtectHome=read-only"
    places = [root, *_places(services.operation)]
    yield from (f"ReadWritePaths={_writable(place)}" for place in dict.fromkeys(places))
    if not any(place.is_relative_to(temporary) for place in places for temporary in ("/tmp", "/var/tmp")):
        yield "PrivateTmp=yes"


_ALWAYS = ("NoNewPrivileges", "LockPersonality", "RestrictRealtime", "RestrictSUIDSGID")
_MACHINE = (
    "PrivateDevices", "ProtectClock", "ProtectControlGroups", "ProtectHostname", "ProtectKernelLogs",
    "ProtectKernelModules", "ProtectKernelTunables", "RestrictNamespaces",
)  # fmt: skip
"""Not MemoryDenyWriteExecute: numba compiles while it runs."""


def _places(operation: OperationSettings) -> list[Path]:
    archive = [] if operation.disks.archive is None else [operation.disks.archive]
    return [*(place.path.absolute() for place in operation.landing), *(path.absolute() for path in archive)]


def _command(services: Services, verb: str, *options: str) -> str:
    group, _, name = verb.partition(" ")
    words = [services.python, "-m", "gueststar", group, str(services.root)]
    if name:  # a verb of a group comes before the repository
        words.insert(4, name)
    return " ".join(_word(word) for word in [*words, *options] if word)


def _word(text: str) -> str:
    """Return a word of a command line as systemd reads it: % and $ would stand for something else."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{plain}"' if re.search(r"[\s'\"\\;]", text) else plain


def _path(path: Path) -> str:
    """Return a path as it stands in a setting that is one path up to the end of the line."""
    return str(path).replace("%", "%%")


def _writable(path: Path) -> str:
    """Return a path as it stands in a list of them: quoted where it has blanks; it need not be there at the start."""
    text = f"-{_path(path)}"
    return f'"{text}"' if re.search(r"\s", text) else text


def _words(text: str) -> str:
    return " ".join(text.replace("%", "%%").split())


def _written(*sections: tuple[str, Sequence[str]]) -> str:
    return "\n".join(f"[{name}]\n" + "\n".join(lines) + "\n" for name, lines in sections)


def write_units(services: Services, folder: Path) -> list[Path]:
    """Write the unit files into a folder; return where they are. ConfigError where it cannot be written to."""
    made = []
    for name, text in unit_files(services).items():
        try:
            with appearing_whole(folder / name) as temporary:
                temporary.write_text(text)
                temporary.chmod(0o644)
        except OSError as problem:
            raise ConfigError(
                f"{folder / name} cannot be written ({problem.strerror}): be root, or use --user or --print"
            ) from None
        made.append(folder / name)
    return made
