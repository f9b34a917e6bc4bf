"""Servers of a rehearsal's own that can be stopped and started again: a PostgreSQL and a Kafka, on loopback."""

from __future__ import annotations

import glob
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gueststar.core.errors import ConfigError
from gueststar.stream.broker import LocalBroker


@dataclass(frozen=True)
class PostgresServer:
    """A PostgreSQL server on a socket in a folder of its own."""

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

    def stop_in_order(self) -> None:
        """Stop it as an administrator does: what is committed is on disk."""
        self._control("-m", "fast", "-w", "stop")

    def _control(self, *words: str) -> None:
        command = _as_server_user([self.pg_ctl, "-D", str(self.folder / "data"), *words])
        subprocess.run(command, check=True, timeout=120, stdout=subprocess.DEVNULL)


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Make a server and run it; ConfigError tells what is missing where that cannot be done."""
    initdb, pg_ctl = _binary("initdb"), _binary("pg_ctl")
    if initdb is None or pg_ctl is None:
        lacks = "initdb" if initdb is None else "pg_ctl"
        raise ConfigError(f"no PostgreSQL server: {lacks} is not installed (apt-get install postgresql)")
    _need_driver()
    is_root = os.geteuid() == 0
    user = "postgres" if is_root else pwd.getpwuid(os.geteuid()).pw_name
    folder = Path(tempfile.mkdtemp(prefix="gspg"))  # short: the path of a socket has a limit
    try:
        if is_root:
            _give_to_server_user(folder)
        command = _as_server_user([initdb, "-D", str(folder / "data"), "-A", "trust", "-U", user, "-N"])
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        server = PostgresServer(folder, user, pg_ctl)
        server.start()
        yield server
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            PostgresServer(folder, user, pg_ctl).stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def copied_postgres(server: PostgresServer) -> Iterator[PostgresServer]:
    """Run a second server with a copy of a first one's data: its URL differs in the folder only."""
    folder = Path(tempfile.mkdtemp(prefix="gspg"))
    if os.geteuid() == 0:
        _give_to_server_user(folder)
    server.stop_in_order()
    try:
        subprocess.run(_as_server_user(["cp", "-a", str(server.folder / "data"), str(folder / "data")]), check=True)
    finally:
        server.start()
    copy = PostgresServer(folder, server.user, server.pg_ctl)
    copy.start()
    try:
        yield copy
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            copy.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_broker(root: Path) -> Iterator[LocalBroker]:
    """Run a Kafka for the survey at ``root``; ConfigError tells what is missing where that cannot be done."""
    for program, package in (("java", "openjdk-17-jre-headless"), ("mvn", "maven")):
        if shutil.which(program) is None:
            raise ConfigError(f"no {program} to run Kafka with: apt-get install {package}")
    broker = LocalBroker(root)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


def _need_driver() -> None:
    if importlib.util.find_spec("psycopg2") is None:
        raise ConfigError("PostgreSQL needs the package psycopg2: pip install gueststar[postgres]")


def _give_to_server_user(folder: Path) -> None:
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        raise ConfigError("running as root, and there is no user postgres to run the server") from None
    shutil.chown(folder, "postgres")


def _binary(name: str) -> str | None:
    places = sorted(glob.glob("/usr/lib/postgresql/*/bin")) + os.environ.get("PATH", "").split(os.pathsep)
    return shutil.which(name, path=os.pathsep.join(places))


def _as_server_user(command: list[str]) -> list[str]:
    """Return a command that runs as the user postgres where we are root (the server refuses root)."""
    return command if os.geteuid() != 0 else ["runuser", "-u", "postgres", "--", *command]
