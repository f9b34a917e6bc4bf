"""A real PostgreSQL server of a test's own: on a socket in a temporary folder, stopped when the test ends."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class PostgresServer:
    """A server that can be stopped and started again."""

    folder: Path
    user: str
    pg_ctl: str

    @property
    def url(self) -> str:
        """The URL of its database."""
        return f"postgresql://{self.user}@/postgres?host={self.folder}"

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off"
        self._control("-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        """Stop it at once, in the middle of whatever it does."""
        self._control("-m", "immediate", "-w", "stop")

    def _control(self, *words: str) -> None:
        command = _as_server_user([self.pg_ctl, "-D", str(self.folder / "data"), *words])
        subprocess.run(command, check=True, timeout=120, stdout=subprocess.DEVNULL)


@contextmanager
def running_server() -> Iterator[PostgresServer]:
    """Make a server and run it; skip the test where that cannot be done."""
    initdb, pg_ctl = _binary("initdb"), _binary("pg_ctl")
    if initdb is None or pg_ctl is None:
        pytest.skip(f"no PostgreSQL server: {'initdb' if initdb is None else 'pg_ctl'} is not installed")
    pytest.importorskip("psycopg2")
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    folder = Path(tempfile.mkdtemp(prefix="gspg"))  # short: the path of a socket has a limit
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("running as root, and there is no user postgres to run the server")
        shutil.chown(folder, "postgres")
    command = _as_server_user([initdb, "-D", str(folder / "data"), "-A", "trust", "-U", user, "-N"])
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    server = PostgresServer(folder, user, pg_ctl)
    server.start()
    try:
        yield server
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _binary(name: str) -> str | None:
    places = sorted(glob.glob("/usr/lib/postgresql/*/bin")) + os.environ.get("PATH", "").split(os.pathsep)
    return shutil.which(name, path=os.pathsep.join(places))


def _as_server_user(command: list[str]) -> list[str]:
    """Return a command that runs as the user postgres where we are root (the server refuses root)."""
    return command if os.geteuid() != 0 else ["runuser", "-u", "postgres", "--", *command]
